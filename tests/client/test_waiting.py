"""Receivers that wait for a room: what they wait out and what not, and how often they ask."""

from __future__ import annotations

import asyncio
import heapq
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection

from flyx.client import events, local, waiting
from flyx.client.receive import ReceiveOptions, receive
from flyx.client.send import SendOptions, send
from flyx.client.signaling import RetryPolicy, Signaling
from flyx.client.waiting import Pace, Waiting
from flyx.errors import (
    FlyxError,
    ServerProtocolError,
    ServerRefused,
    ServerUnreachable,
    WrongWords,
)
from flyx.pairing.exchange import Code
from flyx.server.app import Server
from flyx.server.config import LimitConfig
from flyx.server.embedded import EmbeddedServer
from flyx.server.limits import LimitReached, RateLimits
from flyx.signaling.messages import CloseCode, Join, Role
from flyx.storage.writer import ExistingPolicy
from tests.client.network import network as relayed
from tests.client.test_hostile_server import joined, lying, says
from tests.client.test_local import Network, network  # noqa: F401  # a fixture
from tests.client.test_send import Told
from tests.net.endpoints import free_port
from tests.net.names import NO_SUCH_NAME, TRY_AGAIN, Names
from tests.net.proxies import serving
from tests.server.peers import FakeClock, until
from tests.server.peers import local as on_loopback

WORDS = "lemon", "otter"
CODE = Code("words", 2, "lemon-otter")
WAITS = "Waiting for a sender under the code K7M2QX"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PAUSES", RetryPolicy(first_pause=0.01, longest_pause=0.05))


class Wait:
    """A receiver that waits, and what it tells."""

    def __init__(self, directory: Path, server: str | None, words: tuple[str, ...] = WORDS) -> None:
        self.told: list[events.Event] = []
        options = ReceiveOptions(
            server,
            "K7M2QX",
            words,
            None,
            directory,
            ExistingPolicy.REFUSE,
            None,
            local=server is None,
            wait=True,
        )
        self.task = asyncio.create_task(receive(options, self.told.append))

    @property
    def notices(self) -> list[str]:
        return [event.message for event in self.told if isinstance(event, events.Notice)]

    async def says(self, text: str) -> None:
        await until(lambda: any(text in notice for notice in self.notices) or self.task.done())
        assert not self.task.done(), self.task.result()


@pytest.fixture
async def wait(tmp_path: Path) -> AsyncIterator[Callable[..., Wait]]:
    started: list[Wait] = []

    def start(server: str | None, words: tuple[str, ...] = WORDS) -> Wait:
        started.append(Wait(tmp_path / "in", server, words))
        return started[-1]

    yield start
    for each in started:
        each.task.cancel()
    await asyncio.gather(*(each.task for each in started), return_exceptions=True)


@asynccontextmanager
async def chosen(server: str) -> AsyncIterator[Signaling]:
    """A sender in the room that is waited for, which does nothing."""
    async with Signaling(server, "K7M2QX", Role.SENDER, is_new=True) as sender:
        yield sender


async def sends(server: str | None, tmp_path: Path, code: Code = CODE, told: Told | None = None) -> None:
    """Send a file in that room."""
    (tmp_path / "file").write_bytes(b"content")
    options = SendOptions(
        server,
        [tmp_path / "file"],
        code,
        room_id="K7M2QX",
        serve=EmbeddedServer if server is None else None,
    )
    await send(options, (told or Told()).queue.put_nowait)


async def test_a_room_that_is_not_there_yet_is_waited_for_and_that_is_said_once(
    tmp_path: Path, wait: Callable[..., Wait]
) -> None:
    async with Server(on_loopback(stun_urls=())) as server:
        receiver = wait(server.url)
        await receiver.says(WAITS)
        await asyncio.gather(sends(server.url, tmp_path), receiver.task)
        assert (tmp_path / "in" / "file").read_bytes() == b"content"
        assert receiver.notices == [WAITS]


async def test_a_sender_that_leaves_before_our_turn_is_followed_by_the_next(
    tmp_path: Path, wait: Callable[..., Wait]
) -> None:
    async with Server(on_loopback(stun_urls=())) as server:
        receiver = wait(server.url)
        async with chosen(server.url) as first:
            assert isinstance(await first.receive(), Join)
        await receiver.says("The sender left before it came to us. Waiting for another sender")
        await asyncio.gather(sends(server.url, tmp_path), receiver.task)
        assert (tmp_path / "in" / "file").read_bytes() == b"content"


async def test_a_room_that_is_full_is_waited_for(tmp_path: Path, wait: Callable[..., Wait]) -> None:
    async def refuse(connection: ServerConnection) -> None:
        await connection.close(CloseCode.ROOM_FULL)

    async with Server(on_loopback(stun_urls=())) as server, relayed(server.port) as net:
        async with lying(refuse) as full:
            net.target = int(full.rpartition(":")[2])
            receiver = wait(net.url)
            await receiver.says(WAITS)
            net.target = server.port
        await asyncio.gather(sends(server.url, tmp_path), receiver.task)


async def test_a_server_that_is_away_or_restarted_is_waited_for(
    tmp_path: Path, wait: Callable[..., Wait]
) -> None:
    port = free_port()
    receiver = wait(f"ws://127.0.0.1:{port}")
    await receiver.says("The server is out of reach (nothing listens there)")
    for n in range(1, 3):
        async with Server(on_loopback(stun_urls=(), port=port)):
            await until(lambda n=n: receiver.notices.count("The server is there again.") == n)  # type: ignore[misc]
            if n == 1:
                # Somebody is there when it goes, and has forgotten it when it is back.
                async with chosen(f"ws://127.0.0.1:{port}") as sender:
                    assert isinstance(await sender.receive(), Join)
            else:
                await asyncio.gather(sends(f"ws://127.0.0.1:{port}", tmp_path), receiver.task)
        if n == 1:
            await until(lambda: sum("out of reach" in notice for notice in receiver.notices) == 2)
    assert receiver.notices.count(WAITS) == 1


async def refused(connection: ServerConnection) -> None:
    await connection.close(CloseCode.NOT_ALLOWED)


@pytest.mark.parametrize(
    ("answers", "error"),
    [(refused, ServerRefused), (says(joined(Role.RECEIVER, room_id="AAAAAA")), ServerProtocolError)],
)
async def test_a_server_that_is_not_ours_is_an_error_at_once(
    wait: Callable[..., Wait], answers: Callable[..., object], error: type[FlyxError]
) -> None:
    async with lying(answers) as url:  # type: ignore[arg-type]
        with pytest.raises(error):
            await wait(url).task


def answering(answer: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """What says this to every request, or to whatever else comes, and ends the connection."""

    async def answer_it(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(answer)
        writer.close()

    return answer_it


@pytest.mark.parametrize("status", [b"200 OK", b"301 Moved", b"401 Unauthorized", b"404 Not Found"])
async def test_what_is_no_flyx_server_is_an_error_at_once(wait: Callable[..., Wait], status: bytes) -> None:
    answer = b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"
    async with serving(answering(answer)) as port:
        for scheme in ("ws", "wss"):
            with pytest.raises(ServerUnreachable):
                await wait(f"{scheme}://127.0.0.1:{port}").task


@pytest.mark.parametrize("status", [b"429 Too Many Requests", b"502 Bad Gateway", b"503 Unavailable", b""])
async def test_a_proxy_whose_server_is_not_there_yet_is_waited_out(
    wait: Callable[..., Wait], status: bytes
) -> None:
    answer = b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n" if status else b""
    async with serving(answering(answer)) as port:
        await wait(f"ws://127.0.0.1:{port}").says("out of reach")


async def test_a_name_that_nobody_answers_for_is_waited_for_and_one_that_does_not_exist_is_not(
    wait: Callable[..., Wait], names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    for family in (socket.AF_INET, socket.AF_INET6):
        names.answer("silent.test", family, TRY_AGAIN)
        names.answer("missing.test", family, NO_SUCH_NAME)
    with monkeypatch.context() as hurried:
        hurried.setattr("flyx.net.names.PATIENCE", 0.05)
        await wait("ws://silent.test").says("no name server answers")
    with pytest.raises(ServerUnreachable, match="its name does not exist"):
        await wait("ws://missing.test").task


async def test_where_the_server_was_a_page_to_log_in_to_a_network_is_waited_out(
    tmp_path: Path, wait: Callable[..., Wait]
) -> None:
    page = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/login\r\nContent-Length: 0\r\n\r\n"
    async with (
        Server(on_loopback(stun_urls=())) as server,
        relayed(server.port) as net,
        serving(answering(page)) as portal,
    ):
        receiver = wait(net.url)
        await receiver.says(WAITS)
        net.target = portal
        await receiver.says("out of reach")
        net.target = server.port
        await asyncio.gather(sends(server.url, tmp_path), receiver.task)


async def test_wrong_words_end_the_wait_so_that_strangers_have_one_guess(
    tmp_path: Path, wait: Callable[..., Wait]
) -> None:
    async with Server(on_loopback(stun_urls=())) as server:
        receiver = wait(server.url)
        await receiver.says(WAITS)
        sender = asyncio.create_task(sends(server.url, tmp_path, Code("words", 2, "wrong guess")))
        with pytest.raises(WrongWords):
            await receiver.task
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)


async def test_on_the_local_network_a_sender_that_comes_later_is_found(
    network: Network,  # noqa: F811
    tmp_path: Path,
    wait: Callable[..., Wait],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "LOOK_AROUND_FOR", 0.2)
    monkeypatch.setattr(local, "SAY_AFTER", 0.05)
    receiver = wait(None)
    await receiver.says(WAITS)
    sender = asyncio.create_task(sends(None, tmp_path))
    service = await network.announced.get()
    network.announces("K7M2QX", service.port)
    await asyncio.gather(sender, receiver.task)
    assert (tmp_path / "in" / "file").read_bytes() == b"content"
    assert receiver.notices == [WAITS]


async def test_what_is_found_and_is_no_flyx_server_ends_no_wait_on_the_local_network(
    network: Network,  # noqa: F811
    wait: Callable[..., Wait],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "LOOK_AROUND_FOR", 0.2)
    asked = 0

    async def refuse(connection: ServerConnection) -> None:
        nonlocal asked
        asked += 1
        await connection.close(CloseCode.NOT_ALLOWED)

    async with lying(*[refuse] * 100) as liar:
        network.announces("K7M2QX", int(liar.rpartition(":")[2]))
        receiver = wait(None)
        await until(lambda: asked >= 3)
        assert not receiver.task.done()


async def test_false_senders_on_the_local_network_have_three_guesses_however_long_is_waited(
    network: Network,  # noqa: F811
    tmp_path: Path,
    wait: Callable[..., Wait],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "LOOK_AROUND_FOR", 0.2)
    monkeypatch.setattr(local, "LAST_LOOK", 0.1)
    guesses = 0
    async with Server(on_loopback(stun_urls=())) as first, Server(on_loopback(stun_urls=())) as second:
        network.announces("K7M2QX", first.port, second.port)

        async def guess() -> None:
            nonlocal guesses
            while True:
                liar = Told()
                wrong = Code("words", 2, "wrong guess")
                task = asyncio.create_task(sends(first.url, tmp_path, wrong, told=liar))
                try:
                    ended = await liar.hear(events.PeerEnded)
                    guesses += isinstance(ended.error, WrongWords)
                finally:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)

        async def leave() -> None:
            """Have the wait go on after each guess."""
            while True:
                async with chosen(second.url) as sender:
                    await sender.receive()

        hostile = [asyncio.create_task(guess()), asyncio.create_task(leave())]
        try:
            with pytest.raises(WrongWords):
                await wait(None).task
        finally:
            for task in hostile:
                task.cancel()
            await asyncio.gather(*hostile, return_exceptions=True)
    assert 1 <= guesses <= 3


# How often it asks.


class Address:
    """Receivers that wait behind one address of a server with the limits that it has by default."""

    def __init__(self, receivers: int) -> None:
        self.clock = FakeClock(0.0)
        self.rates = RateLimits(LimitConfig(), clock=self.clock)
        # When each looks next.
        self.looks = [(0.0, n, Pace()) for n in range(receivers)]
        # When one looked, and whether it was told anything.
        self.told: list[tuple[float, bool]] = []

    async def wait(self, seconds: float) -> None:
        while self.looks[0][0] < seconds:
            self.clock.now, number, pace = heapq.heappop(self.looks)
            wanted = 0.0
            try:
                await self.rates.look("192.0.2.1")
                await self.rates.miss("192.0.2.1")
            except LimitReached as reached:
                wanted = reached.retry_after
            self.told.append((self.clock.now, not wanted))
            heapq.heappush(self.looks, (self.clock.now + pace.pause(wanted), number, pace))

    def refused_since(self, time: float) -> float:
        """The part of the looks since then that were told nothing."""
        looks = [told for at, told in self.told if at >= time]
        return looks.count(False) / len(looks)


@pytest.fixture
def by_default(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(waiting, "PAUSES", PAUSES)
    random.seed(1)
    yield
    random.seed()


PAUSES = waiting.PAUSES


async def test_a_receiver_that_waits_is_never_refused_and_looks_every_few_seconds(by_default: None) -> None:
    address = Address(1)
    await address.wait(3600)
    assert address.refused_since(0) == 0
    assert len(address.told) > 300


@pytest.mark.parametrize("receivers", [3, 6, 12])
async def test_several_that_wait_behind_one_address_soon_keep_below_the_limit_together(
    by_default: None, receivers: int
) -> None:
    address = Address(receivers)
    await address.wait(3600)
    assert address.refused_since(900) < 0.05


async def test_a_server_that_has_us_wait_is_heeded(by_default: None) -> None:
    pace = Pace()
    assert all(pace.pause(30.0) >= 30.0 for _ in range(20))
    assert max(pace.pause(0.0) for _ in range(100)) <= waiting.LONGEST_PAUSE


async def test_a_wait_ends_at_once_when_it_is_cancelled() -> None:
    async with Server(on_loopback(stun_urls=())) as server:
        rooms = Waiting("K7M2QX", server.url, lambda _: None, local=False, hold=0.0).rooms()
        async with aclosing(rooms):
            task = asyncio.create_task(anext(rooms))  # type: ignore[arg-type]
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
