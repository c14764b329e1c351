"""Rooms that outlive the process: the store in memory, with a copy in an SQLite file.

The rooms of one process are few and small, so all of them are in memory too, and reading costs nothing. A
change is written first and seen afterwards: what a client was told is on the disk.

    change of a room ---.
    change of a room ----+--> one transaction, on a thread --> seen, answered
    change of a room ---'     (what comes meanwhile waits for the next one)

SQLite runs on a thread of its own: a commit takes about 0.1 ms, but a checkpoint or a slow disk many times
that, for which no client must wait that has nothing to write. `synchronous` is NORMAL: with a write-ahead log
a killed process loses nothing, and a power failure at most the last moments, never the file. FULL would cost
every join a flush of the disk (4 ms where this was measured), to save sessions whose connections have all
died with the machine.

The file is locked as long as the process runs. It holds hashes of tokens, never tokens, but also the
addresses of all clients in a room and of those who made rooms, and messages kept for clients that are away;
so it is readable for its owner only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flyx.errors import InputError
from flyx.server.logs import get_logger, room_tag
from flyx.server.rooms.store import MemoryRoomStore, Stored, StoreFull, StoreUnavailable
from flyx.signaling.commands import Restart
from flyx.signaling.record import BadRecord, dump_room, load_room
from flyx.signaling.room import Room, step

log = get_logger("flyx.server.rooms.sqlite")

_APPLICATION_ID = 0x666C7978
"""The letters of flyx in ASCII: tells our files from those of others."""

_SCHEMA_VERSION = 2
_OLDER_VERSIONS = (1,)
_SCHEMA = "CREATE TABLE rooms (room_id TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID"
"""Version 1 has the same table, and records of which its own code deletes those with a field new to it."""

_LOCK_TIMEOUT = 1.0
"""Seconds to wait for a process that is about to let go of the file."""

# By room id: what the file is to hold of it; None: nothing.
_Batch = Mapping[str, Room | None]


class SqliteRoomStore(MemoryRoomStore):
    """Rooms of one process, found again by the next one that opens the same file."""

    def __init__(self, path: Path, *, max_rooms: int, max_per_creator: int = 0) -> None:
        super().__init__(max_rooms=max_rooms, max_per_creator=max_per_creator)
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flyx-state")
        # Set by open().
        self._file: sqlite3.Connection | None = None
        # Rooms whose change is being written: others that would change them wait.
        self._busy: dict[str, asyncio.Future[None]] = {}
        # What the next transaction will write, and its end.
        self._batch: dict[str, Room | None] = {}
        self._committed: asyncio.Future[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        # New rooms that are being written, each with its creator.
        self._arriving: list[str | None] = []

    async def open(self, now: float) -> None:
        """Bring the rooms back; clients that were inside have the whole grace time from now.

        Raises:
            InputError: The file cannot be used.
        """
        loop = asyncio.get_running_loop()
        try:
            self._file, records = await loop.run_in_executor(self._thread, _open, self._path)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        changes: dict[str, Room | None] = {}
        for room_id, record in records:
            room = _restore(room_id, record, now)
            if room is not None:
                self._rooms[room_id] = Stored(room, 1)
            changes[room_id] = room
        if changes:
            await self._write(changes)
            log.info("rooms restored", rooms=len(self._rooms), over=len(changes) - len(self._rooms))

    async def close(self) -> None:
        if self._writing is not None:
            await self._writing
        if self._file is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
            self._file = None
        self._thread.shutdown()

    async def test_room(self) -> str | None:
        rooms = (kept.room for kept in self._rooms.values())
        return next((r.room_id for r in rooms if r.expires_at is None and r.owner_token_hash is None), None)

    async def create(self, room: Room) -> bool:
        async with self._alone(room.room_id):
            if room.room_id in self._rooms:
                return False
            if len(self._rooms) + len(self._arriving) >= self._max_rooms:
                raise StoreFull
            self._check_budget(room, self._arriving.count(room.creator))
            self._arriving.append(room.creator)
            try:
                await self._write({room.room_id: room})
            finally:
                self._arriving.remove(room.creator)
            return await super().create(room)

    async def replace(self, seen: Stored, room: Room) -> bool:
        async with self._alone(room.room_id):
            if self._rooms.get(room.room_id) is not seen:
                return False
            await self._write({room.room_id: None if room.closed else room})
            return await super().replace(seen, room)

    @contextlib.asynccontextmanager
    async def _alone(self, room_id: str) -> AsyncIterator[None]:
        """Let no other task change this room meanwhile."""
        while room_id in self._busy:
            await asyncio.wait([self._busy[room_id]])
        done = self._busy[room_id] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._busy[room_id]
            done.set_result(None)

    async def _write(self, changes: _Batch) -> None:
        """Return when the file holds these changes; not before, even if cancelled.

        Raises:
            StoreUnavailable: It does not.
        """
        self._batch.update(changes)
        if self._committed is None:
            self._committed = asyncio.get_running_loop().create_future()
        committed = self._committed
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_batches())
        cancelled = False
        while not committed.done():
            try:
                await asyncio.wait([committed])
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            # At the next await, when memory says what the file says.
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        committed.result()

    async def _write_batches(self) -> None:
        loop = asyncio.get_running_loop()
        while self._committed is not None:
            batch, self._batch = self._batch, {}
            committed, self._committed = self._committed, None
            try:
                assert self._file is not None
                await loop.run_in_executor(self._thread, _commit, self._file, batch)
            except sqlite3.Error as error:
                log.error("state not written", file=str(self._path), reason=str(error))
                committed.set_exception(StoreUnavailable())
            else:
                committed.set_result(None)
        self._writing = None


def _open(path: Path) -> tuple[sqlite3.Connection, list[tuple[str, str]]]:
    """Return the file, locked, and the records in it."""
    try:
        # Not by SQLite, which would make it readable for everybody.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        # Statements come from the thread, but the last one may come from the end of the process.
        file = sqlite3.connect(path, timeout=_LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(reason=f"--state {path} cannot be used: {reason}") from error
    try:
        return file, _prepare(file, path)
    except sqlite3.OperationalError as error:
        file.close()
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            hint = "each server needs a file of its own"
            raise InputError(reason=f"--state {path} is in use by another server", hint=hint) from error
        raise InputError(reason=f"--state {path} cannot be used: {error}") from error
    except sqlite3.DatabaseError as error:
        file.close()
        raise _foreign(path) from error
    except BaseException:
        file.close()
        raise


def _prepare(file: sqlite3.Connection, path: Path) -> list[tuple[str, str]]:
    file.execute("PRAGMA locking_mode = EXCLUSIVE")
    file.execute("PRAGMA journal_mode = WAL")
    file.execute("PRAGMA synchronous = NORMAL")
    # Takes the lock, which stays.
    file.execute("BEGIN EXCLUSIVE")
    [application] = file.execute("PRAGMA application_id").fetchone()
    [version] = file.execute("PRAGMA user_version").fetchone()
    if (application, version) == (0, 0) and not file.execute("SELECT * FROM sqlite_schema").fetchone():
        file.execute(_SCHEMA)
        file.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        file.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    elif application != _APPLICATION_ID:
        raise _foreign(path)
    elif version in _OLDER_VERSIONS:
        file.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    elif version != _SCHEMA_VERSION:
        hint = "use the version of flyx that made it, or another file"
        raise InputError(reason=f"--state {path} was made by another version of flyx", hint=hint)
    file.execute("COMMIT")
    return file.execute("SELECT room_id, record FROM rooms").fetchall()


def _foreign(path: Path) -> InputError:
    hint = "name a file that does not exist yet; flyx makes it"
    return InputError(reason=f"--state {path} is not a file of flyx serve", hint=hint)


def _restore(room_id: str, record: str, now: float) -> Room | None:
    """Return the room of a row after the restart; None if it is over, or is none."""
    try:
        room = load_room(record)
        if room.room_id != room_id:
            raise BadRecord("room_id: another room's")
    except BadRecord as error:
        log.error("room not restored", room=room_tag(room_id), reason=str(error))
        return None
    room, _ = step(room, Restart(), now)
    return None if room.closed else room


def _commit(file: sqlite3.Connection, batch: _Batch) -> None:
    """Write all of a batch or nothing."""
    kept = [(room_id, dump_room(room)) for room_id, room in batch.items() if room is not None]
    gone = [(room_id,) for room_id, room in batch.items() if room is None]
    file.execute("BEGIN IMMEDIATE")
    try:
        file.executemany("DELETE FROM rooms WHERE room_id = ?", gone)
        file.executemany("INSERT OR REPLACE INTO rooms VALUES (?, ?)", kept)
        file.execute("COMMIT")
    except BaseException:
        # Some errors have done so already.
        if file.in_transaction:
            file.execute("ROLLBACK")
        raise
