from __future__ import annotations

import asyncio
import logging
import os
import resource
import sqlite3
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from flyx.errors import InputError
from flyx.server.app import Server
from flyx.server.rooms import sqlite
from flyx.server.rooms.sqlite import SqliteRoomStore
from flyx.server.rooms.store import RoomStore, StoreFull, StoreUnavailable
from flyx.signaling.commands import Admit, LoseConnection, Relay, Resume
from flyx.signaling.members import Traffic
from flyx.signaling.messages import Offer, OfferData
from tests.server.peers import local
from tests.server.rooms.store_contract import T0, RoomStoreContract, a_room, enter, generation


@asynccontextmanager
async def opened(
    path: Path, *, max_rooms: int = 100, max_per_creator: int = 0, now: float = T0
) -> AsyncIterator[SqliteRoomStore]:
    store = SqliteRoomStore(path, max_rooms=max_rooms, max_per_creator=max_per_creator)
    await store.open(now)
    try:
        yield store
    finally:
        await store.close()


class TestSqliteRoomStore(RoomStoreContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "state"

    @asynccontextmanager
    async def make_store(self, *, max_rooms: int = 100, max_per_creator: int = 0) -> AsyncIterator[RoomStore]:
        async with opened(self.path, max_rooms=max_rooms, max_per_creator=max_per_creator) as store:
            yield store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def test_whoever_was_inside_is_away_and_has_the_grace_time_from_the_restart(path: Path) -> None:
    async with opened(path) as store:
        await store.create(a_room(grace=30.0))
        await store.apply("K7M2QX", enter("s"), T0)
        other = generation(await store.apply("K7M2QX", enter("r"), T0))
        await store.apply("K7M2QX", LoseConnection("r", other, "lost", Traffic(2, 1, ("one",))), T0)
    # An hour later, when every grace time would be over.
    async with opened(path, now=T0 + 3600) as store:
        seen = await store.load("K7M2QX")
        assert seen is not None
        absences = {name: member.absence for name, member in seen.room.members.items()}
        assert [a.until for a in absences.values() if a] == [T0 + 3630] * 2
        sender = (await store.apply("K7M2QX", Resume("s", "token of s", "new"), T0 + 3629))[0]
        receiver = (await store.apply("K7M2QX", Resume("r", "token of r", "new", received=0), T0 + 3629))[0]
        assert isinstance(sender, Admit)
        assert isinstance(receiver, Admit)
        # Nobody knows what the sender had heard; what the receiver had was written down.
        assert not sender.joined.data.recovered
        assert receiver.joined.data.recovered
        assert receiver.replay[0] == "one"


async def test_rooms_that_ended_meanwhile_are_not_brought_back(path: Path) -> None:
    async with opened(path) as store:
        await store.create(a_room("000000", ttl=60.0))
        await store.create(a_room("000001", idle_timeout=60.0))
        await store.create(a_room("000002", ttl=None, persistent=True))
    async with opened(path, now=T0 + 60) as store:
        assert await store.load("000002") is not None
        assert await store.count() == 1
    with sqlite3.connect(path) as file:
        assert file.execute("SELECT room_id FROM rooms").fetchall() == [("000002",)]
    file.close()


async def test_relaying_to_somebody_present_writes_nothing(path: Path) -> None:
    async with opened(path) as store:
        await store.create(a_room())
        sender = generation(await store.apply("K7M2QX", enter("s"), T0))
        await store.apply("K7M2QX", enter("r"), T0)
        seen = await store.load("K7M2QX")
        await store.apply("K7M2QX", Relay("s", sender, Offer(data=OfferData(sdp="v=0"))), T0)
        assert await store.load("K7M2QX") is seen


async def test_changes_of_many_rooms_at_once_are_all_written(path: Path) -> None:
    ids = [f"{n:06}" for n in range(200)]
    async with opened(path, max_rooms=200) as store:
        assert all(await asyncio.gather(*(store.create(a_room(room_id)) for room_id in ids)))
        await asyncio.gather(*(store.apply(room_id, enter("s"), T0) for room_id in ids))
    async with opened(path, max_rooms=200) as store:
        for room_id in ids:
            seen = await store.load(room_id)
            assert seen is not None
            assert list(seen.room.members) == ["s"]


async def test_rooms_on_their_way_to_the_file_count(path: Path) -> None:
    async with opened(path, max_rooms=3) as store:
        creations = (store.create(a_room(f"{n:06}")) for n in range(10))
        results = await asyncio.gather(*creations, return_exceptions=True)
        assert [r for r in results if r is True] == [True] * 3
        assert all(isinstance(r, StoreFull) for r in results if r is not True)


async def test_who_is_cancelled_leaves_memory_and_file_of_one_mind(path: Path) -> None:
    async with opened(path) as store:
        await store.create(a_room())
        task = asyncio.create_task(store.apply("K7M2QX", enter("s"), T0))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        seen = await store.load("K7M2QX")
        assert seen is not None
        inside = list(seen.room.members)
    async with opened(path) as store:
        seen = await store.load("K7M2QX")
        assert seen is not None
        assert list(seen.room.members) == inside


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can be made larger than it is, or written at all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_changes_nothing_and_can_be_emptied(path: Path) -> None:
    async with opened(path) as store:
        await store.create(a_room())
        await store.apply("K7M2QX", enter("s"), T0)
        before = await store.load("K7M2QX")
        with full_disk():
            with pytest.raises(StoreUnavailable):
                await store.apply("K7M2QX", enter("r"), T0)
            with pytest.raises(StoreUnavailable):
                await store.create(a_room("000000"))
        assert await store.load("K7M2QX") is before
        assert await store.load("000000") is None
        await store.apply("K7M2QX", enter("r"), T0)
        assert await store.create(a_room("000000"))
    async with opened(path) as store:
        assert await store.count() == 2


async def test_the_file_is_for_its_owner_and_holds_no_token(path: Path) -> None:
    async with opened(path) as store:
        await store.create(a_room())
        await store.apply("K7M2QX", enter("s"), T0)
        for file in path.parent.iterdir():
            if os.name == "posix":
                assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
            assert b"token of s" not in file.read_bytes()


async def test_a_file_serves_one_server(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_LOCK_TIMEOUT", 0.01)
    async with opened(path):
        with pytest.raises(InputError, match="in use by another server") as caught:
            async with opened(path):
                pass
        assert caught.value.hint
    async with opened(path):
        pass


def set_version(path: Path, version: int) -> None:
    """Make a file one of another version of flyx."""
    with sqlite3.connect(path) as file:
        file.execute(f"PRAGMA user_version = {version}")
    file.close()


async def test_what_is_not_ours_is_left_alone(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"my diary " * 1000)  # noqa: ASYNC240 (nothing else runs)
    with pytest.raises(InputError, match="not a file of flyx serve"):
        async with opened(path):
            pass
    assert path.read_bytes() == b"my diary " * 1000  # noqa: ASYNC240

    other = tmp_path / "other"
    with sqlite3.connect(other) as file:
        file.execute("CREATE TABLE rooms (mine)")
    file.close()
    with pytest.raises(InputError, match="not a file of flyx serve"):
        async with opened(other):
            pass


async def test_a_file_of_a_later_version_is_refused_with_its_rooms_in_it(path: Path) -> None:
    async with opened(path) as store:
        await store.create(a_room())
    set_version(path, sqlite._SCHEMA_VERSION + 1)
    with pytest.raises(InputError, match="another version") as caught:
        async with opened(path):
            pass
    assert caught.value.hint
    set_version(path, sqlite._SCHEMA_VERSION)
    async with opened(path) as store:
        assert await store.load("K7M2QX") is not None


async def test_a_file_of_the_version_before_is_taken_over_and_that_version_refuses_it(path: Path) -> None:
    """Version 1 deletes the rooms whose records have fields that it does not know."""
    async with opened(path) as store:
        await store.create(a_room())
    set_version(path, 1)
    async with opened(path) as store:
        assert await store.load("K7M2QX") is not None
    with sqlite3.connect(path) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (2,)
    file.close()


@pytest.mark.parametrize("name", ["", "no/such/directory/state"])
async def test_a_place_where_no_file_can_be_is_explained(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"--state .* cannot be used"):
        async with opened(tmp_path / name):
            pass


async def test_a_damaged_record_costs_one_room(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(path) as store:
        for room_id in ("000000", "000001", "000002", "000003"):
            await store.create(a_room(room_id))
    with sqlite3.connect(path) as file:
        file.execute("UPDATE rooms SET record = 'secret' WHERE room_id = '000001'")
        file.execute("UPDATE rooms SET record = replace(record, '000002', '000009') WHERE room_id = '000002'")
        file.execute("UPDATE rooms SET record = replace(record, 'version', 'v') WHERE room_id = '000003'")
    file.close()
    async with opened(path) as store:
        assert await store.count() == 1
        assert await store.load("000000") is not None
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 3
    assert "secret" not in str([vars(record) for record in errors])


async def test_a_server_keeps_its_test_room(path: Path) -> None:
    ids = set()
    for _ in range(2):
        async with Server(local(test_room=True, state=path)) as server:
            ids.add(server.test_room_id)
    assert len(ids) == 1
