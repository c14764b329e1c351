"""Rooms without a server that was named: where a sender makes its own, and what a receiver goes through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Self

import pytest
from websockets.asyncio.server import ServerConnection

from flyx.client import events, local
from flyx.client.local import Room, find_rooms, make_room
from flyx.client.receive import ReceiveOptions, receive
from flyx.client.send import SendOptions, send
from flyx.client.signaling import Interrupted, Restored, Signaling
from flyx.errors import (
    NoSuchRoom,
    RoomFull,
    RoomNotFound,
    SenderGone,
    ServerRefused,
    ServerUnreachable,
    SignalingError,
    WrongWords,
)
from flyx.net import dnssd
from flyx.net.dnssd import CannotDiscover, Found, Service
from flyx.pairing.exchange import Code
from flyx.server import embedded
from flyx.server.app import Server
from flyx.server.config import ServerConfig
from flyx.server.embedded import EmbeddedServer
from flyx.signaling.local import properties_of
from flyx.signaling.messages import CloseCode, Role
from flyx.storage.writer import ExistingPolicy
from tests.client.network import network as relayed
from tests.client.test_hostile_server import joined, lying, says
from tests.client.test_send import Told
from tests.server.peers import local as on_loopback

HOLD = 60.0

NOWHERE = "ws://127.0.0.1:1"
LABEL = "0123456789abcdef"
HOLD = 60.0


def ignore(_: events.Event) -> None:
    pass


class Network:
    """What the local network announces, in the place of one."""

    def __init__(self) -> None:
        # What is said there, from the beginning; and why it cannot be listened to, if that is so.
        self.found: list[Found] = []
        self.trouble = ""
        # What we have announced.
        self.announced: asyncio.Queue[Service] = asyncio.Queue()

    def announces(self, room_id: str, *ports: int, addresses: Sequence[str] = ("127.0.0.1",)) -> None:
        properties = sorted((k.encode(), v.encode()) for k, v in properties_of(room_id, LABEL).items())
        self.found += [Found(LABEL, tuple(properties), tuple(addresses), port) for port in ports]

    def browser(self, *_: object) -> Network._Browser:
        return Network._Browser(self)

    async def announce(self, service: Service, tell: Callable[[str | None], None]) -> None:
        self.announced.put_nowait(service)
        tell(self.trouble or None)
        await asyncio.Event().wait()

    class _Browser:
        def __init__(self, network: Network) -> None:
            self._left = list(network.found)
            self._trouble = network.trouble

        async def __aenter__(self) -> Self:
            if self._trouble:
                raise CannotDiscover(self._trouble)
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

        async def next(self) -> Found:
            if not self._left:
                await asyncio.Event().wait()
            return self._left.pop(0)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    network = Network()
    monkeypatch.setattr(dnssd, "Browser", network.browser)
    monkeypatch.setattr(dnssd, "announce", network.announce)
    # On this computer alone, which no announcement may lead to (tests/signaling/test_local.py).
    monkeypatch.setattr(local, "worth_trying", lambda addresses, _: list(addresses))
    # Others may run here that have them.
    monkeypatch.setattr(local, "LOCAL_PORTS", ())
    return network


@pytest.fixture
def soon_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """For searches that come to their end: it comes soon."""
    monkeypatch.setattr(local, "LOOK_FOR", 0.5)


@asynccontextmanager
async def made(server: str | None, tell: Callable[[events.Event], None] = ignore) -> AsyncIterator[Room]:
    async with make_room(server, EmbeddedServer, None, tell, hold=HOLD) as room:
        yield room


async def found(room_id: str, server: str | None = None, *, most: int = 1) -> list[str]:
    """The servers on which the room is found, one after the other, so many of them at most."""
    servers: list[str] = []
    async with aclosing(find_rooms(room_id, server, ignore, local=True, hold=HOLD)) as rooms:
        while len(servers) < most and (room := await anext(rooms, None)):
            assert room.signaling.joined.room_id == room_id
            servers.append(room.server)
    return servers


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


# Where a sender makes its room.


async def test_a_server_that_is_there_is_used(network: Network) -> None:
    async with Server(on_loopback()) as server:
        async with made(server.url) as room:
            assert (room.server, room.local) == (server.url, False)
            # One that nobody has named is found by others all the same.
            assert (await network.announced.get()).port == server.port
        async with make_room(server.url, None, None, ignore, hold=HOLD) as room:
            assert (room.server, room.local) == (server.url, False)
    assert network.announced.empty()


async def test_where_none_is_the_sender_serves_itself_and_is_announced(network: Network) -> None:
    async with made(NOWHERE) as room:
        assert room.local
        room_id = room.signaling.joined.room_id
        service = await network.announced.get()
        assert room_id not in repr(service)
        async with Signaling(f"ws://127.0.0.1:{service.port}", room_id, Role.RECEIVER, direct=True) as joined:
            assert joined.joined.room_id == room_id


async def test_where_none_may_be_asked_the_sender_serves_itself_at_once(network: Network) -> None:
    async with made(None) as room:
        assert room.local


@pytest.mark.parametrize("answer", [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-x\r\n"])
async def test_what_is_no_flyx_server_does_not_keep_the_sender_from_serving_itself(
    network: Network, answer: bytes
) -> None:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        async with made(f"ws://127.0.0.1:{port}") as room:
            assert room.local


async def test_what_says_nothing_does_not_keep_it_for_long(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "JOIN_TIMEOUT", 0.5)
    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        async with made(f"ws://127.0.0.1:{port}") as room:
            assert room.local


async def test_a_server_that_refuses_is_not_passed_over(network: Network) -> None:
    config = ServerConfig(host="127.0.0.1", port=0, stun_urls=(), api_token="secret")
    async with Server(config) as server:
        with pytest.raises(ServerRefused):
            async with made(server.url):
                pass


async def test_a_named_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ServerUnreachable):
        async with make_room(NOWHERE, None, None, ignore, hold=HOLD):
            pass


async def test_a_room_that_others_cannot_find_comes_with_a_notice_of_the_reason(network: Network) -> None:
    network.trouble = "another program keeps port 5353 to itself"
    told: asyncio.Queue[events.Event] = asyncio.Queue()
    async with made(None, told.put_nowait):
        notice = await told.get()
    assert isinstance(notice, events.Notice)
    assert network.trouble in notice.message


# Where a receiver finds it.


async def test_a_receiver_on_the_same_computer_needs_no_network(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.trouble = "this computer has no network"
    async with made(None) as room:
        port = int(room.server.rpartition(":")[2])
        monkeypatch.setattr(local, "LOCAL_PORTS", (1, port))
        assert await found(room.signaling.joined.room_id) == [f"ws://127.0.0.1:{port}"]


async def test_a_receiver_finds_what_is_announced(network: Network) -> None:
    async with made(None) as room:
        room_id, port = room.signaling.joined.room_id, int(room.server.rpartition(":")[2])
        network.announces("AAAAAA", 1)
        network.announces(room_id, port)
        assert await found(room_id, NOWHERE) == [f"ws://127.0.0.1:{port}"]


async def test_the_default_server_is_asked_as_well(network: Network) -> None:
    async with Server(on_loopback()) as server, Signaling(server.url, None, Role.SENDER) as sender:
        assert await found(sender.joined.room_id, server.url) == [server.url]


async def test_answers_that_lead_nowhere_are_tried_in_turn(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "JOIN_TIMEOUT", 1.5)

    async def web(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    wrong_room = says(joined(Role.RECEIVER, room_id="AAAAAA"))
    async with (
        Server(on_loopback()) as without,
        await asyncio.start_server(web, "127.0.0.1", 0) as no_flyx,
        await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent,
        lying(wrong_room) as liar,
        made(None) as room,
    ):
        room_id, port = room.signaling.joined.room_id, int(room.server.rpartition(":")[2])
        ports = [each.sockets[0].getsockname()[1] for each in (no_flyx, silent)]
        network.announces(room_id, 1, 0, 70_000, *ports, without.port, int(liar.rpartition(":")[2]), port)
        assert await found(room_id) == [f"ws://127.0.0.1:{port}"]


async def test_a_false_sender_is_followed_by_the_true_one(network: Network) -> None:
    async with made(None) as room:
        room_id, port = room.signaling.joined.room_id, int(room.server.rpartition(":")[2])
        async with lying(says(joined(Role.RECEIVER, room_id=room_id))) as liar:
            network.announces(room_id, int(liar.rpartition(":")[2]))
            network.announces(room_id, port)
            assert await found(room_id, most=2) == [liar, f"ws://127.0.0.1:{port}"]


async def test_false_senders_have_three_guesses_in_all(
    network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("flyx.server.rooms.hub.draw_room_id", lambda _: "K7M2QX")
    (tmp_path / "file").write_bytes(b"content")
    guess = Code("words", 2, "wrong guess")
    async with AsyncExitStack() as stack:
        for _ in range(5):
            server = await stack.enter_async_context(Server(on_loopback()))
            network.announces("K7M2QX", server.port)
            liar = Told()
            options = SendOptions(server.url, [tmp_path / "file"], guess)
            task = asyncio.create_task(send(options, liar.queue.put_nowait))
            stack.push_async_callback(lambda task=task: asyncio.gather(task, return_exceptions=True))
            stack.callback(task.cancel)
            await liar.hear(events.RoomOpened)
        told: list[events.Event] = []
        receiving = ReceiveOptions(
            None, "K7M2QX", ("lemon", "otter"), None, tmp_path, ExistingPolicy.REFUSE, None, local=True
        )
        with pytest.raises(WrongWords):
            await receive(receiving, told.append)
    assert sum(isinstance(event, events.RoomJoined) for event in told) == 3


async def test_one_sender_that_is_found_twice_is_met_once(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "LOOK_FOR", 3.0)
    async with made(None) as room:
        room_id, port = room.signaling.joined.room_id, int(room.server.rpartition(":")[2])
        monkeypatch.setattr(local, "LOCAL_PORTS", (port,))
        network.announces(room_id, port, addresses=["127.0.0.2", "127.0.0.3"])
        assert len(await found(room_id, NOWHERE, most=3)) == 1


async def test_unreachable_addresses_cost_little(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "ATTEMPT_DELAY", 0.01)
    # Where something takes connections to everywhere, they lead to nothing.
    monkeypatch.setattr(local, "JOIN_TIMEOUT", 1.5)
    async with made(None) as room:
        room_id, port = room.signaling.joined.room_id, int(room.server.rpartition(":")[2])
        # The others are nowhere (RFC 5737).
        network.announces(room_id, port, addresses=["198.51.100.1", "203.0.113.1", "127.0.0.1"])
        assert await found(room_id) == [f"ws://127.0.0.1:{port}"]


async def test_the_end_of_the_senders_process_is_the_end_of_its_room(network: Network) -> None:
    async with Server(on_loopback()) as server, Signaling(server.url, None, Role.SENDER) as sender:
        room_id = sender.joined.room_id
        async with AsyncExitStack() as stack:
            way = await stack.enter_async_context(relayed(server.port))
            network.announces(room_id, int(way.url.rpartition(":")[2]))
            rooms = await stack.enter_async_context(
                aclosing(find_rooms(room_id, None, ignore, local=True, hold=HOLD))
            )
            receiver = (await anext(rooms)).signaling
            way.cut()
            # Somebody still listens: it may come back.
            assert isinstance(await receiver.receive(), Interrupted)
            assert isinstance(await receiver.receive(), Restored)
            way.close()
            # It need not have been the sender's own: `flyx serve` on its computer is announced as well.
            gone = "The program that served the room has ended, and nothing listens there any more"
            with pytest.raises(SenderGone, match=gone):
                await receiver.receive()


async def test_nothing_found_says_where_it_was_looked_for(network: Network, soon_over: None) -> None:
    with pytest.raises(RoomNotFound) as caught:
        await found("K7M2QX", NOWHERE)
    assert isinstance(caught.value, NoSuchRoom)
    assert str(caught.value) == (
        "No sender is waiting under the code K7M2QX; "
        f"it was looked for at {NOWHERE}, on this computer and on this network."
    )
    network.trouble = "a firewall"
    with pytest.raises(RoomNotFound, match="on this computer, but not on this network: a firewall"):
        await found("K7M2QX")


async def test_a_full_room_is_told_as_one(network: Network, soon_over: None) -> None:
    async def refuse(connection: ServerConnection) -> None:
        await connection.close(CloseCode.ROOM_FULL)

    async with lying(refuse) as server:
        with pytest.raises(RoomFull):
            await found("K7M2QX", server)


async def test_announcements_without_end_are_tried_a_bounded_number_of_times(
    network: Network, monkeypatch: pytest.MonkeyPatch, soon_over: None
) -> None:
    asked = 0

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.close()

    monkeypatch.setattr(local, "is_announced", lambda *_: True)
    monkeypatch.setattr(local, "MAX_PLACES", 4)
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        network.found = [Found(LABEL, (), (f"127.0.0.{n}",), port) for n in range(1, 100)]
        with pytest.raises(SignalingError):
            await found("K7M2QX")
    # One connection to see whether anybody is there, another to ask.
    assert asked <= 2 * 4


async def test_looking_ends_at_once_when_it_is_cancelled(network: Network) -> None:
    task = asyncio.create_task(found("K7M2QX"))
    await asyncio.sleep(0)
    before = time.monotonic()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert time.monotonic() - before < local.LOOK_FOR / 2


def test_the_ports_are_those_of_the_server() -> None:
    assert local.LOCAL_PORTS == embedded.LOCAL_PORTS
