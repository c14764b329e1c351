"""Redis itself: one connection for commands, one for this node's channel.

Both are redis-py's, without its pool, pipeline and PubSub: these cost more for each batch than the batch. A
command is sent at once; those that come during its round trip are sent together in the next one. They run in
one task of their own: a client that goes away cancels nothing half-way, and no reply is taken for another's.
If a command is not answered within a second, it fails, and so do those behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import secrets
from collections import deque
from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from flyx.errors import InputError
from flyx.server.logs import get_logger
from flyx.server.redis.backend import (
    LEASE,
    Backend,
    Budget,
    Commit,
    DeliveryReport,
    DeliveryStatus,
    Item,
    LeaderTasks,
    Lease,
    LeaseLost,
    Renewal,
    RoomState,
    SharedRoom,
)
from flyx.server.redis.scripts import LEADER_MS, SCRIPTS
from flyx.server.redis.wire import dump_item
from flyx.server.rooms.store import BudgetSpent, StoreFull, StoreUnavailable
from flyx.signaling.record import dump_room, load_room
from flyx.signaling.room import Room

log = get_logger("flyx.server.redis.client")

TIMEOUT = 1.0
"""Seconds for a batch of commands, and for a connection."""

_BATCH = 256
"""Commands that are sent together, at most."""

_SUBSCRIBE_PAUSE = 0.5
"""Seconds before this node subscribes again, at most; half of it at least: nodes come back one by one."""

_SILENCE = 10.0
"""Seconds without a message on the channel, where a probe comes every 3, after which it counts as broken."""

_ENDLESS = 30 * 24 * 3600.0
_MARGIN = 24 * 3600.0
"""Seconds that Redis keeps a room that never ends after its last change, and any other after its end."""

_HASHES = {
    name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in SCRIPTS.items()
}
_SCHEMES = ("redis", "rediss", "unix")

Argument = str | bytes | int | float
Command = tuple[Argument, ...]


def check_url(url: str) -> None:
    """Make sure that url can be one of a Redis.

    Raises:
        InputError: It cannot. Its message does not repeat what may be a password.
    """
    try:
        Redis.from_url(url)
        fitting = urlsplit(url).scheme in _SCHEMES
    except ValueError:
        fitting = False
    if not fitting:
        hint = (
            "write it like redis://localhost:6379/0, rediss://:PASSWORD@example.org or unix:///run/redis.sock"
        )
        raise InputError(reason="--redis needs the URL of a Redis", hint=hint)


class RedisBackend(Backend):
    """What the nodes of one service share, kept in one Redis (6.2 or newer)."""

    def __init__(self, url: str) -> None:
        """Args:
        url: redis://, rediss:// or unix://, checked by check_url.
        """
        self.node_id = secrets.token_hex(8)
        self._pool = Redis.from_url(
            url,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
            client_name=f"flyx-{self.node_id}",
            # With RESP3 redis-py writes out each message of a channel for a log that is not kept.
            protocol=2,
        ).connection_pool
        self._line = self._pool.make_connection()  # type: ignore[no-untyped-call]
        # The timeout is ours, of a batch as a whole.
        self._line.socket_timeout = None
        # What waits for the next round trip, each with the future of its answer.
        self._queue: deque[tuple[Command, asyncio.Future[Any]]] = deque()
        self._wake = asyncio.Event()
        # The largest count of ticks that Redis has shown us: a smaller one means that it lost data.
        self._ticks = 0
        # Set by start(): the tasks of commands and of the channel.
        self._sender: asyncio.Task[None]
        self._subscriber: asyncio.Task[None]

    # Life.

    async def start(self) -> None:
        self._sender = asyncio.create_task(self._send())
        self._subscriber = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self._run("resign", self.node_id)
        self._sender.cancel()
        self._subscriber.cancel()
        await asyncio.gather(self._sender, self._subscriber, return_exceptions=True)
        self._fail_all(StoreUnavailable("this node stops"))
        await self._line.disconnect()

    # Commands.

    def _run(self, script: str, *arguments: Argument) -> Awaitable[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append((("EVALSHA", _HASHES[script], 0, *arguments), future))
        self._wake.set()
        return future

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
                try:
                    answers = await self._execute([command for command, _ in batch])
                except (RedisError, OSError, TimeoutError) as error:
                    # What is still to come must not be taken for the answer to something else.
                    await self._line.disconnect(nowait=True)
                    away = StoreUnavailable(f"Redis does not answer: {type(error).__name__}")
                    away.__cause__ = error
                    for _, future in batch:
                        _settle(future, away)
                    # Those behind would each wait as long in vain.
                    self._fail_all(away)
                    continue
                for (_, future), answer in zip(batch, answers, strict=True):
                    _settle(future, answer)

    async def _execute(self, commands: list[Command]) -> list[Any]:
        answers = await self._round_trip(commands)
        unknown = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            # Redis was started anew, or has flushed its scripts.
            await self._round_trip([("SCRIPT", "LOAD", text) for text in SCRIPTS.values()])
            again = await self._round_trip([commands[n] for n in unknown])
            for n, answer in zip(unknown, again, strict=True):
                answers[n] = answer
        return answers

    async def _round_trip(self, commands: list[Command]) -> list[Any]:
        line, answers = self._line, []
        if line.is_connected and await line.can_read():
            # Redis has closed it.
            await line.disconnect(nowait=True)
        if not line.is_connected:
            async with asyncio.timeout(TIMEOUT):
                await line.connect()
        async with asyncio.timeout(TIMEOUT):
            await line.send_packed_command(line.pack_commands(commands))
            for _ in commands:
                try:
                    answers.append(await line.read_response())
                except ResponseError as error:
                    answers.append(error)
        return answers

    def _fail_all(self, error: Exception) -> None:
        while self._queue:
            _settle(self._queue.popleft()[1], error)

    # The channel.

    async def _listen(self) -> None:
        while True:
            channel = self._pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                await self._subscribe(channel)
            except (RedisError, OSError, TimeoutError) as error:
                log.info("the channel of this node is not heard", error=type(error).__name__)
            finally:
                self.on_subscription(False)
                await channel.disconnect(nowait=True)
            await asyncio.sleep(_SUBSCRIBE_PAUSE * random.uniform(0.5, 1.0))  # noqa: S311  # spreads retries

    async def _subscribe(self, channel: AbstractConnection) -> None:
        """Receive until the connection breaks."""
        await channel.connect()  # type: ignore[no-untyped-call]
        await channel.send_command("SUBSCRIBE", f"flyx:node:{self.node_id}")
        while True:
            message = await channel.read_response(timeout=_SILENCE)
            if message is None:
                raise TimeoutError
            kind, _, content = message
            if kind == "message":
                self.on_message(content)
            elif kind == "subscribe":
                self.on_subscription(True)

    # What Backend promises.

    async def create(self, entry: SharedRoom, budget: Budget) -> bool:
        most = (budget.total, budget.per_creator)
        answer = await self._run("create", self.node_id, *_put(entry, budget), *most)
        if answer == "full":
            raise StoreFull
        if answer == "spent":
            raise BudgetSpent
        return bool(_checked(answer) == "ok")

    async def load(self, room_id: str) -> SharedRoom | None:
        incarnation, version, record = await self._run("load", room_id)
        if incarnation is None:
            return None
        _, number, change = _state(incarnation, version)
        return SharedRoom(load_room(record), number, incarnation, change)

    async def states(self, room_ids: Sequence[str]) -> list[RoomState | None]:
        found = await asyncio.gather(*(self._run("version", room_id) for room_id in room_ids))
        return [None if version is None else _state(incarnation, version) for incarnation, version in found]

    async def commit(
        self,
        seen: SharedRoom,
        after: SharedRoom,
        record: str | None,
        messages: Mapping[str, str],
    ) -> tuple[Commit, Collection[str]]:
        room = after.room
        now: frozenset[str] = frozenset() if room.closed else after.nodes
        no_more = seen.nodes - now
        answer = await self._run(
            "commit",
            self.node_id,
            *(room.room_id, seen.incarnation, _version(seen.state), _version(after.state)),
            record or "",
            *(room.deadline, _time_to_live(room)),
            len(now),
            *now,
            len(no_more),
            *no_more,
            *(part for pair in messages.items() for part in pair),
        )
        how, *heard = _checked(answer)
        if how == "done":
            return Commit.DONE, ()
        if how == "ok":
            return Commit.DONE, {node for node, count in zip(messages, heard, strict=True) if not count}
        return (Commit.GONE if how == "gone" else Commit.STALE), ()

    async def restore(self, entry: SharedRoom, budget: Budget) -> bool:
        answer = await self._run("restore", self.node_id, *_put(entry, budget), *entry.nodes)
        return bool(_checked(answer) == "ok")

    async def relay(self, node_id: str, sequence: int, items: Sequence[Item]) -> DeliveryReport:
        parts: list[Argument] = []
        for item in items:
            parts += (item.room_id, item.state[0], _version(item.state), dump_item(item))
        answer = await self._run("relay", self.node_id, node_id, sequence, *parts)
        _, heard, leased, *current = _checked(answer)
        missed_by = DeliveryStatus.NO_SUBSCRIBER if leased else DeliveryStatus.NODE_DEAD
        status = DeliveryStatus.DELIVERED if heard else missed_by
        return DeliveryReport(status, tuple(map(bool, current)))

    async def publish(self, node_id: str, message: str) -> bool:
        return bool(_checked(await self._run("publish", self.node_id, node_id, message)))

    async def renew(self) -> Renewal:
        fresh = secrets.token_hex(8)
        how, epoch, ticks = await self._run("renew", self.node_id, int(LEASE * 1000), self._ticks, fresh)
        self._ticks = int(ticks)
        return Renewal(Lease(how), epoch)

    async def leader_tasks(self, now: float) -> LeaderTasks | None:
        answer = await self._run("leader_tasks", self.node_id, LEADER_MS, now)
        return LeaderTasks(tuple(answer[1]), tuple(answer[2])) if answer[0] else None

    async def evict(self, node_id: str) -> list[str] | None:
        answer = await self._run("evict", node_id)
        return list(answer[1]) if answer[0] else None

    async def forget(self, node_id: str) -> None:
        await self._run("forget", node_id)

    async def count(self) -> int:
        return int(await self._run("count"))

    async def room_ids(self) -> list[str]:
        return list(await self._run("rooms"))

    def rename(self) -> None:
        self.node_id = secrets.token_hex(8)
        self._subscriber.cancel()
        self._subscriber = asyncio.create_task(self._listen())


def _put(entry: SharedRoom, budget: Budget) -> tuple[Argument, ...]:
    """What the scripts want to know of a room that they are to keep."""
    room = entry.room
    # The rooms of a creator are looked through when it makes another, and only if it may not make any number.
    creator = room.creator if budget.per_creator else None
    return (
        *(room.room_id, entry.incarnation, _version(entry.state)),
        *(dump_room(room), room.deadline, _time_to_live(room), creator or ""),
    )


def _version(state: RoomState) -> str:
    """Return version and change as one word, which is all that the scripts compare."""
    return f"{state[1]} {state[2]}"


def _state(incarnation: str, version: str) -> RoomState:
    """The reverse of _version."""
    number, _, change = version.partition(" ")
    return incarnation, int(number), change


def _time_to_live(room: Room) -> int:
    """Return milliseconds after which Redis forgets a room that no node has seen to in time."""
    endless = room.expires_at is None or room.sender is not None
    life = _ENDLESS if endless else room.config.ttl or 0.0
    return int((life + _MARGIN) * 1000)


def _settle(future: asyncio.Future[Any], answer: Any) -> None:
    # The caller may be gone.
    if future.done():
        return
    if isinstance(answer, RedisError):
        # Out of memory, read-only, still loading: nothing was changed, and it may pass.
        log.error("Redis refused a command", error=str(answer))
        away = StoreUnavailable(f"Redis refused: {answer}")
        away.__cause__ = answer
        future.set_exception(away)
    elif isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _checked(answer: Any) -> Any:
    if answer in ("lost", ["lost"]):
        raise LeaseLost("this node has no lease")
    return answer
