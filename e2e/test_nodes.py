"""Many nodes on one Redis, as processes: what breaks, what goes on, and that nobody is left in the dark."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from e2e.processes import DEADLINE, LONG, Flyx, Server, clean_environment, sha256, write_random
from e2e.redis import RedisServer
from e2e.signals import PATIENCE, Client, talk
from flyx.client.signaling import Restored, RetryPolicy, Signaling
from flyx.signaling.messages import Answer, AnswerData, Join, Offer, OfferData, Role

UNLIMITED = ["--create-rate", "none", "--join-rate", "none", "--miss-rate", "none", "--max-offers", "0"]


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.stop()


@dataclass
class Trio:
    """Two nodes, and the Redis that they share."""

    first: Server
    second: Server
    redis: RedisServer


@pytest.fixture(scope="module")
def shared_trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    """For all tests that leave them as well as they were."""
    home = tmp_path_factory.mktemp("nodes")
    redis = RedisServer(home)
    servers = [Server(clean_environment(home), home, "--redis", redis.url) for _ in range(2)]
    yield Trio(*servers, redis)
    try:
        for server in servers:
            server.send_signal(signal.SIGTERM).ends(0)
    finally:
        for server in servers:
            server.kill()
        redis.stop()


@pytest.fixture
async def trio(shared_trio: Trio) -> Trio:
    """The same, once the nodes have got over what the last test did to their Redis."""
    for server in (shared_trio.first, shared_trio.second):
        await until_ready(server)
    return shared_trio


Node = Callable[..., Server]


@pytest.fixture
def node(flyx: Flyx, redis_server: RedisServer) -> Node:
    """Starts one more node; options may be added."""

    def start(*options: str) -> Server:
        server = Server(flyx.environment, flyx.directory, "--redis", redis_server.url, *options)
        flyx.adopt(server)
        return server

    return start


def get(server: Server, path: str) -> tuple[int, bytes]:
    """Status and body of a GET."""
    url = server.url.replace("ws:", "http:") + path
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()


def ask(server: Server, path: str) -> tuple[int, Any]:
    """Status and what the body says, of a GET of JSON."""
    status, body = get(server, path)
    return status, json.loads(body)


def task_count(server: Server) -> int:
    """Tasks of a server's event loop, that of our question included."""
    lines = get(server, "/metrics")[1].decode().splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("flyx_tasks "))))


async def until(condition: Callable[[], Awaitable[bool]], within: float = PATIENCE) -> None:
    """Wait for something that nobody announces."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110 (another process's state)
            await asyncio.sleep(0.05)


async def until_ready(server: Server, status: int = 200) -> None:
    async def is_so() -> bool:
        return (await asyncio.to_thread(ask, server, "/readyz"))[0] == status

    await until(is_so)


async def resume_somewhere(client: Client, url: str) -> bool:
    """Come back as a patient client does: a server that says `later` is asked again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await client.resume(url)
            except (ConnectionClosed, InvalidStatus, OSError):
                await asyncio.sleep(0.1)


def test_a_file_crosses_three_nodes(flyx: Flyx, node: Node) -> None:
    nodes = [node() for _ in range(3)]
    source = write_random(flyx.directory / "file.bin", 3_000_000)
    sender = flyx.start("send", "--server", nodes[0].url, "--json", "--receivers", "2", source)
    code = sender.code()
    places = [(server, flyx.directory / f"into{n}") for n, server in enumerate(nodes[1:])]
    receivers = [
        flyx.start("receive", "--server", server.url, "--json", "--yes", "-o", into, code)
        for server, into in places
    ]
    for receiver in (*receivers, sender):
        receiver.ends(0)
    for _, into in places:
        assert sha256(into / "file.bin") == sha256(source)


def test_a_transfer_survives_the_death_of_its_node(flyx: Flyx, node: Node) -> None:
    """Both ends lose their server; the bytes go on, and the sender ends as if nothing had been."""
    nodes = [node(), node()]
    source = write_random(flyx.directory / "file.bin", LONG // 4)
    sender = flyx.start("send", "--server", nodes[0].url, "--limit", "30MB", "--json", source)
    receiver = flyx.start(
        "receive", "--server", nodes[1].url, "--json", "--yes", "-o", flyx.directory / "into", sender.code()
    )
    sender.mid_transfer()
    for server in nodes:
        server.send_signal(signal.SIGKILL)
    receiver.ends(0)
    sender.ends(0)
    assert sha256(flyx.directory / "into" / "file.bin") == sha256(source)


async def test_clients_of_a_killed_node_go_on_at_another(node: Node) -> None:
    first, second, third = node(), node(), node()
    async with Client() as sender, Client() as receiver:
        await sender.enter(first.url)
        await receiver.enter(second.url, sender.room)
        await sender.expect("join")
        await talk(sender, receiver, "before")
        second.send_signal(signal.SIGKILL)
        assert await receiver.close_code() == 1006
        # What had been sent to it last nobody knows any more, and it is told so.
        assert await receiver.resume(third.url) is False
        assert not (await sender.expect("join")).get("recovered")
        await talk(sender, receiver, "after")
        first.send_signal(signal.SIGKILL)
        assert await sender.close_code() == 1006
        assert await sender.resume(third.url) is False
        assert (await sender.expect("join"))["client_id"] == receiver.id
        assert (await receiver.expect("join"))["client_id"] == sender.id
        await talk(sender, receiver, "at last")


async def test_who_was_on_a_node_that_is_dead_or_stands_still_is_missed(node: Node) -> None:
    """No connection tells of it: their leases run out. A node that goes on first asks how it stands."""
    first, second, third = node(), node(), node()
    async with Client() as sender, Client() as receiver, Client() as lost:
        await sender.enter(first.url)
        for client, server in ((receiver, second), (lost, third)):
            await client.enter(server.url, sender.room)
            await sender.expect("join")
        third.send_signal(signal.SIGKILL)
        second.stop()
        gone = [await sender.expect("disconnect") for _ in range(2)]
        assert all(one["away"] for one in gone)
        assert {one["client_id"] for one in gone} == {receiver.id, lost.id}
        await sender.say("offer", sdp="kept", target_id=receiver.id)
        second.resume()
        # It finds itself buried and sends its clients back, without a word of what it had in its queues.
        assert (await receiver.hear())["data"]["code"] == "resync"
        assert await receiver.close_code() == 1012
        assert await resume_somewhere(receiver, second.url) is False
        assert not (await sender.expect("join")).get("recovered")
        await talk(sender, receiver, "again")


async def test_without_redis_what_is_there_goes_on_and_nobody_new_comes(trio: Trio) -> None:
    first, second, redis_server = trio.first, trio.second, trio.redis
    async with Client() as sender, Client() as near, Client() as far, Client() as stranger:
        await sender.enter(first.url)
        for client, server in ((near, first), (far, second)):
            await client.enter(server.url, sender.room)
            await sender.expect("join")
        redis_server.stop()
        await until_ready(first, 503)
        await talk(sender, near, "without Redis")
        assert ask(first, "/healthz")[0] == 200
        assert await stranger.knock(first.url, sender.room) == 1013
        redis_server.start()
        # Everything in it is gone; the nodes put back what they know.
        for server in (first, second):
            await until_ready(server)
        await talk(sender, far, "across")
        await talk(sender, near, "within")
        await stranger.enter(second.url, sender.room)
        await sender.expect("join")
        await talk(sender, stranger, "new")


async def test_a_redis_that_hangs_is_as_good_as_none(trio: Trio) -> None:
    first, second, redis_server = trio.first, trio.second, trio.redis
    async with Client() as sender, Client() as near, Client() as far:
        await sender.enter(first.url)
        for client, server in ((near, first), (far, second)):
            await client.enter(server.url, sender.room)
            await sender.expect("join")
        redis_server.freeze()
        try:
            await until_ready(first, 503)
            await talk(sender, near, "meanwhile")
            # Waits for Redis, and is not lost.
            await sender.say("offer", sdp="late", target_id=far.id)
        finally:
            redis_server.thaw()
        assert (await far.expect("offer"))["sdp"] == "late"
        await until_ready(first)
        await until_ready(second)
        await talk(sender, far, "across")


async def test_flushall_loses_no_room_that_somebody_is_in(trio: Trio) -> None:
    first, second, redis_server = trio.first, trio.second, trio.redis
    async with Client() as sender, Client() as receiver, Client() as newcomer:
        await sender.enter(first.url)
        await receiver.enter(second.url, sender.room)
        await sender.expect("join")
        redis_server.ask("FLUSHALL")

        async def restored() -> bool:
            return bool(await asyncio.to_thread(redis_server.ask, "EXISTS", f"flyx:room:{sender.room}"))

        await until(restored)
        await talk(sender, receiver, "across")
        await newcomer.enter(second.url, sender.room)
        await sender.expect("join")
        # Tokens are good as before.
        assert await receiver.resume(first.url)


async def test_a_killed_subscription_loses_nothing_in_silence(trio: Trio) -> None:
    first, second, redis_server = trio.first, trio.second, trio.redis
    async with Client() as sender, Client() as receiver:
        await sender.enter(first.url)
        await receiver.enter(second.url, sender.room)
        await sender.expect("join")
        redis_server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        for number in range(10):
            await sender.say("offer", sdp=f"{number}", target_id=receiver.id)
        for number in range(10):
            message = await receiver.hear()
            if message["type"] == "error":
                # Redis had counted a subscriber whose connection it was closing.
                assert message["data"]["code"] == "resync"
                assert not await resume_somewhere(receiver, second.url)
                break
            assert message["data"]["sdp"] == f"{number}"


def worker_processes(server: Server) -> list[psutil.Process]:
    """The processes that serve, in the order of their start."""
    workers = []
    for child in psutil.Process(server.process.pid).children():
        # One that has ended meanwhile is none.
        with suppress(psutil.NoSuchProcess):
            if "spawn_main" in " ".join(child.cmdline()):
                workers.append(child)
    return workers


async def test_a_killed_worker_is_replaced(node: Node) -> None:
    server = node("--workers", "2")
    before = worker_processes(server)
    assert len(before) == 2
    before[0].kill()

    async def replaced() -> bool:
        now = worker_processes(server)
        return len(now) == 2 and before[0] not in now

    await until(replaced)
    async with Client() as sender, Client() as receiver:
        await resume_or_enter(sender, server.url)
        await receiver.enter(server.url, sender.room)
        await sender.expect("join")
        await talk(sender, receiver, "on")
    server.send_signal(signal.SIGTERM).ends(0)


async def resume_or_enter(client: Client, url: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await client.enter(url)
                return
            except (ConnectionClosed, OSError):
                await asyncio.sleep(0.1)


async def test_workers_end_with_their_parent(node: Node) -> None:
    server = node("--workers", "2")
    workers = worker_processes(server)
    os.kill(server.process.pid, signal.SIGKILL)
    gone, alive = await asyncio.to_thread(psutil.wait_procs, workers, DEADLINE)
    assert not alive, gone


class Pair:
    """A sender and a receiver that never stop talking; each counts what it hears."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.rounds = 0
        self.holes = 0
        self._stop = asyncio.Event()

    async def run(self) -> None:
        retry = RetryPolicy(first_pause=0.1, longest_pause=1.0)
        async with Signaling(self.url, None, Role.SENDER, retry=retry) as sender:
            room = sender.joined.room_id
            async with Signaling(self.url, room, Role.RECEIVER, retry=retry) as receiver:
                async with asyncio.TaskGroup() as tasks:
                    echo = tasks.create_task(self._answer(receiver))
                    await self._offer(sender, receiver.joined.client_id)
                    echo.cancel()

    async def _offer(self, sender: Signaling, target: str) -> None:
        number = 0
        while not isinstance(await sender.receive(), Join):
            pass
        sender.post(Offer(data=OfferData(sdp="0", target_id=target)))
        while not self._stop.is_set():
            match await sender.receive():
                case Answer(data=data):
                    assert data.sdp == str(number), "lost, doubled or out of order"
                    number += 1
                    self.rounds += 1
                    await asyncio.sleep(0.02)
                    sender.post(Offer(data=OfferData(sdp=str(number), target_id=target)))
                case Restored(recovered=False) | Join(recovered=False):
                    self.holes += 1

    async def _answer(self, receiver: Signaling) -> None:
        while True:
            match await receiver.receive():
                case Offer(data=data):
                    receiver.post(Answer(data=AnswerData(sdp=data.sdp)))
                case Restored(recovered=False):
                    self.holes += 1

    def stop(self) -> None:
        self._stop.set()


async def test_a_rolling_restart_under_load_loses_no_session_and_no_message(node: Node) -> None:
    server = node("--workers", "2", "--drain", "1", *UNLIMITED)
    pairs = [Pair(server.url) for _ in range(10)]
    async with asyncio.TaskGroup() as tasks:
        for pair in pairs:
            tasks.create_task(pair.run())
        for worker in worker_processes(server):
            mark = [pair.rounds for pair in pairs]

            async def all_went_on(mark: list[int] = mark) -> bool:
                return all(pair.rounds > before + 5 for pair, before in zip(pairs, mark, strict=True))

            await until(all_went_on)
            worker.terminate()
            await asyncio.to_thread(worker.wait, DEADLINE)

            async def all_again() -> bool:
                return len(worker_processes(server)) == 2

            await until(all_again)
        mark = [pair.rounds for pair in pairs]
        await until(lambda: all_went_on(mark))
        for pair in pairs:
            pair.stop()
    assert sum(pair.holes for pair in pairs) == 0


async def churn(nodes: list[Server], redis_server: RedisServer, times: int) -> None:
    """Come and go so often, by way of two nodes; afterwards all is as before."""

    async def come_and_go(number: int) -> None:
        async with Client() as sender, Client() as receiver:
            await sender.enter(nodes[number % 2].url)
            await receiver.enter(nodes[(number + 1) % 2].url, sender.room)
            await sender.expect("join")
            if number % 2:
                await receiver.say("disconnect")
                assert await receiver.close_code() == 1000
            await sender.say("disconnect")
            assert await sender.close_code() == 1000

    async def rounds(count: int) -> None:
        queue = iter(range(count // 2))

        async def one_after_the_other() -> None:
            for number in queue:
                await come_and_go(number)

        await asyncio.gather(*(one_after_the_other() for _ in range(20)))

    async def nobody_is_left() -> bool:
        rooms = await asyncio.to_thread(redis_server.ask, "KEYS", "flyx:room:*")
        return len(rooms) == len(nodes) and all(ask(server, "/status")[1]["clients"] == 0 for server in nodes)

    await rounds(min(1000, times))
    await until(nobody_is_left)
    keys = set(redis_server.keys())
    tasks = [task_count(server) for server in nodes]
    processes = [psutil.Process(server.process.pid) for server in nodes]
    files, memory = [p.num_fds() for p in processes], [p.memory_info().rss for p in processes]
    await rounds(times)
    await until(nobody_is_left)
    # The nodes themselves have a leader now and then.
    assert set(redis_server.keys()) - {"flyx:janitor"} <= keys
    assert all(ttl > 0 for ttl in redis_server.keys().values())

    async def files_as_before() -> bool:
        return all(p.num_fds() <= before for p, before in zip(processes, files, strict=True))

    async def tasks_as_before() -> bool:
        now = await asyncio.to_thread(lambda: [task_count(server) for server in nodes])
        return all(count <= before for count, before in zip(now, tasks, strict=True))

    await until(files_as_before)
    await until(tasks_as_before)
    for process, before in zip(processes, memory, strict=True):
        assert process.memory_info().rss < before + 12 * 10**6, f"{times} times took memory"


async def test_who_has_gone_leaves_nothing_behind(node: Node, redis_server: RedisServer) -> None:
    nodes = [node(*UNLIMITED) for _ in range(2)]
    await churn(nodes, redis_server, 800)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_a_hundred_thousand_have_gone_and_left_nothing_behind(
    node: Node, redis_server: RedisServer
) -> None:
    nodes = [node(*UNLIMITED) for _ in range(2)]
    started = time.monotonic()
    await churn(nodes, redis_server, 100_000)
    print(f"{time.monotonic() - started:.0f} s")  # noqa: T201 (what a soak is for)
