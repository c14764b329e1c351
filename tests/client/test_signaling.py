"""The client's side of signaling, against the real server in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from flyx.client import signaling, websocket
from flyx.client.signaling import Interrupted, Signaling
from flyx.client.websocket import websocket_url
from flyx.errors import (
    InputError,
    NoSuchRoom,
    RoomFull,
    RoomTaken,
    ServerClosed,
    ServerProtocolError,
    ServerRefused,
    ServerUnreachable,
    SignalingError,
)
from flyx.server.app import Server
from flyx.server.config import ServerConfig, TurnConfig
from flyx.signaling.messages import CloseCode, Disconnect, Join, Offer, OfferData, Role
from tests.client.test_hostile_server import joined, lying, says
from tests.server.peers import FakeClock, local, until


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    config = ServerConfig(host="127.0.0.1", port=0, stun_urls=(), test_room=False)
    async with Server(config) as running:
        yield running


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("ws://localhost:8000", "ws://localhost:8000"),
        ("http://localhost:8000/", "ws://localhost:8000"),
        ("https://flyx.example.org", "wss://flyx.example.org"),
        ("wss://example.org/behind/a/proxy/", "wss://example.org/behind/a/proxy"),
        ("localhost:8000", "ws://localhost:8000"),
        ("[::1]:9", "ws://[::1]:9"),
        ("ws://[fe80::1%eth0]:8000", "ws://[fe80::1%eth0]:8000"),
        ("ws://[fe80::1%25eth0]:8000/", "ws://[fe80::1%eth0]:8000"),
        ("https://[2001:db8::1]/flyx", "wss://[2001:db8::1]/flyx"),
    ],
)
def test_a_server_may_be_written_in_several_ways(text: str, url: str) -> None:
    assert websocket_url(text) == url


@pytest.mark.parametrize(
    "text", ["", "ws://", "ftp://x", "ws://[::1", "ws://x:99999", "ws://x:y", "ws://a..b"]
)
def test_what_is_no_server_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(InputError) as caught:
        websocket_url(text)
    assert caught.value.hint


async def test_sender_and_receiver_meet_and_part(server: Server) -> None:
    async with Signaling(server.url, None, Role.SENDER) as sender:
        room_id = sender.joined.room_id
        async with Signaling(server.url, room_id, Role.RECEIVER) as receiver:
            joined = await sender.receive()
            assert isinstance(joined, Join)
            assert joined.data.client_id == receiver.joined.client_id
            sender.post(Offer(data=OfferData(sdp="v=0", target_id=receiver.joined.client_id)))
            offer = await receiver.receive()
            assert isinstance(offer, Offer)
            assert offer.data.client_id == sender.joined.client_id
            receiver.farewell = "enough"
        left = await sender.receive()
        assert isinstance(left, Disconnect)
        assert left.data.reason == "enough"


async def test_goodbye_is_said_also_when_all_tasks_are_cancelled_as_at_the_end_of_asyncio_run(
    server: Server,
) -> None:
    async with Signaling(server.url, None, Role.SENDER) as sender:
        others = asyncio.all_tasks()
        async with Signaling(server.url, sender.joined.room_id, Role.RECEIVER):
            assert isinstance(await sender.receive(), Join)
            for task in asyncio.all_tasks() - others:
                task.cancel()
        left = await sender.receive()
        assert isinstance(left, Disconnect)
        assert not left.data.away


async def test_who_leaves_does_not_wait_for_what_the_server_answers(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT", None)
    async with Signaling(server.url, None, Role.SENDER) as sender, one_way(server) as (url, cut):
        async with Signaling(url, sender.joined.room_id, Role.RECEIVER):
            assert isinstance(await sender.receive(), Join)
            cut.set()
        left = await sender.receive()
    assert isinstance(left, Disconnect)
    assert not left.data.away


@asynccontextmanager
async def one_way(server: Server) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A way to the server by which nothing comes back once the event is set."""
    cut = asyncio.Event()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection("127.0.0.1", server.port)

        async def back() -> None:
            while data := await there_reader.read(65536):
                if not cut.is_set():
                    writer.write(data)

        returning = asyncio.create_task(back())
        while data := await reader.read(65536):
            there.write(data)
        await returning
        there.close()
        writer.close()

    listening = await asyncio.start_server(carry, "127.0.0.1", 0)
    async with listening:
        host, port = listening.sockets[0].getsockname()
        yield f"ws://{host}:{port}", cut


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"code": "forbidden_host", "message": "it has another name"}', "it says that it has another name"),
        ("<html>", "it is no flyx server, or a proxy in between does not pass WebSockets"),
        ("[1]", "it is no flyx server, or a proxy in between does not pass WebSockets"),
        ('{"message": 1}', "it is no flyx server, or a proxy in between does not pass WebSockets"),
    ],
)
async def test_a_server_that_refuses_the_handshake_is_quoted(body: str, reason: str) -> None:
    def refuse(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(403, body)

    async def never(_: ServerConnection) -> None: ...

    async with serve(never, "127.0.0.1", 0, process_request=refuse) as other:
        port = next(iter(other.sockets)).getsockname()[1]
        with pytest.raises(ServerUnreachable, match=reason):
            async with Signaling(f"ws://127.0.0.1:{port}", None, Role.SENDER):
                pass


async def test_a_token_opens_a_server_that_wants_one() -> None:
    config = ServerConfig(host="127.0.0.1", port=0, stun_urls=(), api_token="s3cret")
    async with Server(config) as server:
        for token in (None, "wrong"):
            with pytest.raises(ServerRefused, match="--api-token"):
                async with Signaling(server.url, None, Role.SENDER, api_token=token):
                    pass
        async with Signaling(server.url, None, Role.SENDER, api_token="s3cret") as sender:
            async with Signaling(server.url, sender.joined.room_id, Role.RECEIVER):
                pass


async def test_an_unknown_room_is_no_such_room(server: Server) -> None:
    with pytest.raises(NoSuchRoom, match="000000"):
        async with Signaling(server.url, "000000", Role.RECEIVER):
            pass


async def test_a_sender_has_the_room_that_it_chooses_unless_somebody_else_has_it(server: Server) -> None:
    async with Signaling(server.url, "K7M2QX", Role.SENDER, is_new=True) as sender:
        assert sender.joined.room_id == "K7M2QX"
        with pytest.raises(RoomTaken, match="The room K7M2QX is taken") as caught:
            async with Signaling(server.url, "K7M2QX", Role.SENDER, is_new=True):
                pass
        assert "--reconnect" in str(caught.value.hint)
    async with Signaling(server.url, "K7M2QX", Role.SENDER, is_new=True):
        pass


async def test_a_server_that_is_too_old_to_let_a_sender_choose_is_told_as_one() -> None:
    async with lying(says(joined(room_id="AAAAAA"))) as url:
        with pytest.raises(ServerProtocolError, match="another room") as caught:
            async with Signaling(url, "K7M2QX", Role.SENDER, is_new=True):
                pass
    assert "another version" in str(caught.value.hint)


@pytest.mark.parametrize("room_id", [None, "K7M2QX"])
async def test_a_path_that_is_taken_for_a_room_is_told_as_no_place_for_one(
    server: Server, room_id: str | None
) -> None:
    with pytest.raises((ServerUnreachable, ServerRefused)) as caught:
        async with Signaling(f"{server.url}/ws", room_id, Role.SENDER, is_new=room_id is not None):
            pass
    assert "without /ws" in str(caught.value.hint)


@pytest.mark.parametrize(("asked", "kept"), [(7.5, 7.5), (1e9, 60.0), (None, 0.0)])
async def test_what_a_server_asks_for_before_the_next_try_is_known(asked: float | None, kept: float) -> None:
    data = {"code": "rate_limited", "message": "too many joins", "fatal": True}
    if asked is not None:
        data["retry_after"] = asked

    async def refuse(socket: ServerConnection) -> None:
        await says({"type": "error", "data": data})(socket)
        await socket.close(CloseCode.TOO_MANY_REQUESTS)

    async with lying(refuse) as url:
        with pytest.raises(ServerClosed, match="too many joins") as caught:
            async with Signaling(url, "K7M2QX", Role.RECEIVER):
                pass
    assert caught.value.retry_after == kept


async def test_a_full_room_is_full_when_all_inside_have_paired(server: Server) -> None:
    async with Signaling(server.url, None, Role.SENDER) as sender:
        room_id = sender.joined.room_id
        async with asyncio.TaskGroup() as group:
            leave = asyncio.Event()
            inside = asyncio.Semaphore(0)

            async def stay() -> None:
                async with Signaling(server.url, room_id, Role.RECEIVER) as receiver:
                    me = receiver.joined.client_id
                    sender.tell_paired(me)
                    sender.post(Offer(data=OfferData(sdp="v=0", target_id=me)))
                    # What was said before it has been heard as well.
                    assert isinstance(await receiver.receive(), Offer)
                    inside.release()
                    await leave.wait()

            receivers = sender.joined.limits.max_clients - 1
            for _ in range(receivers):
                group.create_task(stay())
            for _ in range(receivers):
                await inside.acquire()
                # Unread, so many would hold up its farewell.
                await sender.receive()
            with pytest.raises(RoomFull):
                async with Signaling(server.url, room_id, Role.RECEIVER):
                    pass
            leave.set()


async def test_a_room_that_closes_says_so(server: Server) -> None:
    async with Signaling(server.url, None, Role.SENDER) as sender:
        room_id = sender.joined.room_id
        receiver = Signaling(server.url, room_id, Role.RECEIVER)
        await receiver.__aenter__()
        await sender.receive()
    assert isinstance(await receiver.receive(), Disconnect)
    with pytest.raises(ServerClosed):
        await receiver.receive()
    await receiver.__aexit__(None, None, None)


async def test_nothing_listening_is_unreachable() -> None:
    with pytest.raises(ServerUnreachable, match="nothing listens there"):
        async with Signaling("ws://127.0.0.1:9", None, Role.SENDER):
            pass


async def test_an_unknown_host_is_unreachable() -> None:
    with pytest.raises(ServerUnreachable):
        async with Signaling("ws://no.such.host.invalid", None, Role.SENDER):
            pass


@pytest.mark.parametrize(
    ("first", "error"),
    [
        ('{"type":"pong","data":{}}', None),
        ("garbage", SignalingError),
        ('{"type":"disconnect","data":{}}', ServerRefused),
    ],
)
async def test_another_kind_of_server_is_recognised(first: str, error: type[Exception] | None) -> None:
    async def answer(socket: ServerConnection) -> None:
        await socket.send(first)
        await socket.wait_closed()

    async with serve(answer, "127.0.0.1", 0) as other:
        port = next(iter(other.sockets)).getsockname()[1]
        signaling = Signaling(f"ws://127.0.0.1:{port}", None, Role.SENDER)
        if error:
            with pytest.raises(error):
                await signaling.__aenter__()


async def test_a_web_server_is_recognised(server: Server) -> None:
    async with Server(ServerConfig(host="127.0.0.1", port=0, stun_urls=(), test_room=False)) as other:
        with pytest.raises(ServerUnreachable, match="HTTP status"):
            async with Signaling(other.url + "/elsewhere", None, Role.SENDER):
                pass


async def test_ws_to_tls_and_wss_to_none_are_told_apart(server: Server) -> None:
    with pytest.raises(ServerUnreachable, match="it does not speak TLS"):
        async with Signaling(server.url.replace("ws:", "wss:"), None, Role.SENDER):
            pass

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(bytes.fromhex("15030300020232"))
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(ServerUnreachable, match="wss://"):
            async with Signaling(f"ws://127.0.0.1:{port}", None, Role.SENDER):
                pass


async def test_credentials_for_turn_are_fetched_anew_before_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signaling, "MIN_REFRESH_PAUSE", 0.01)
    clock = FakeClock()
    turn = TurnConfig(("turn:turn.example",), "north", ttl=0.02)
    async with Server(local(turn=turn), clock=clock) as server:
        async with Signaling(server.url, None, Role.SENDER) as sender:
            listening = asyncio.create_task(sender.receive())
            first = sender.ice_servers
            assert first == sender.joined.ice_servers
            clock.now += 1000
            await until(lambda: sender.ice_servers != first)
            refreshed = sender.ice_servers[-1]
            assert refreshed.username == f"{int(clock.now)}:{sender.joined.client_id}"
            assert not listening.done()
            listening.cancel()


async def test_an_error_that_changed_nothing_is_not_why_a_connection_is_lost_later() -> None:
    error = {"code": "no_such_peer", "message": "there is no such client in the room", "fatal": False}

    async def answer(socket: ServerConnection) -> None:
        await says(joined(), {"type": "error", "data": error})(socket)
        await socket.close(CloseCode.SERVICE_RESTART)

    async with lying(answer) as url, Signaling(url, None, Role.SENDER) as sender:
        assert await sender.receive() == Interrupted("the server is stopping or restarting")
