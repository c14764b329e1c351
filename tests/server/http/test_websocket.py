from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import uuid
from ipaddress import ip_network

import psutil  # type: ignore[import-untyped]
import pytest
from websockets.asyncio.client import connect

from flyx.server.app import Server
from flyx.signaling.codes import ROOM_ID_ALPHABET
from flyx.signaling.config import MAX_MESSAGE_SIZE, RoomConfig
from tests.server.peers import (
    ANSWER,
    OFFER,
    FakeClock,
    Peer,
    candidate,
    http_of,
    joined,
    local,
    pair,
    peer,
    to,
    trio,
    until,
)

# One server for all that do not need their own: each makes its rooms, and none sees another's.
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_connecting_to_ws_makes_a_room_and_its_sender(server: Server) -> None:
    async with joined(server) as sender:
        assert sender.joined["role"] == "sender"
        assert len(sender.room_id) == 6
        assert set(sender.room_id) <= set(ROOM_ID_ALPHABET)
        assert sender.joined["peers"] == []
        # 192 bits in base64.
        assert len(sender.joined["resume_token"]) == 32
        assert sender.joined["recovered"] is False
        assert sender.joined["received"] == 0
        limits = {"max_message_size": MAX_MESSAGE_SIZE, "max_clients": 16, "grace": 30.0}
        assert sender.joined["limits"] == limits
        assert sender.joined["ice_servers"] == [{"urls": ["stun:stun.l.google.com:19302"]}]


async def test_a_sender_may_choose_its_room_and_type_it_carelessly(server: Server) -> None:
    async with joined(server, "/ws?room=k7m-2qx&role=sender") as sender:
        assert sender.room_id == "K7M2QX"
        async with joined(server, "/ws/K7M2QX?role=receiver") as receiver:
            assert receiver.joined["peers"] == [{"client_id": sender.id, "role": "sender"}]


async def test_a_room_that_is_taken_is_refused_and_nobody_in_it_hears_of_that(server: Server) -> None:
    async with joined(server) as sender:
        async with peer(server, f"/ws?room={sender.room_id}") as second:
            await second.expect_error("room_taken", fatal=True)
            await second.expect_close(4401)
        await sender.expect_silence()
    async with joined(server, f"/ws?room={sender.room_id}") as successor:
        assert successor.joined["role"] == "sender"


async def test_of_many_that_choose_one_room_at_once_one_gets_it(server: Server) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(peer(server, "/ws?room=K7M2QX")) for _ in range(20)]
        first = [(await client.hear()) for client in clients]
        told = [message["type"] for message in first]
        assert sorted(told) == ["error"] * 19 + ["joined"]
        assert {m["data"]["code"] for m in first if m["type"] == "error"} == {"room_taken"}


@pytest.mark.parametrize("room", ["", "K7M2Q", "K7M2QXX", "K7M2QU", "K7M2Q%C4%B1", "%00%00%00%00%00%00"])
async def test_a_room_that_there_cannot_be_is_a_bad_request(server: Server, room: str) -> None:
    async with peer(server, f"/ws?room={room}") as sender:
        await sender.expect_error("bad_request", fatal=True)
        await sender.expect_close(4400)


async def test_only_a_new_room_is_named_and_only_its_sender_names_it(server: Server) -> None:
    async with joined(server) as sender:
        async with joined(server, f"/ws/{sender.room_id}?room=K7M2QX") as receiver:
            assert receiver.room_id == sender.room_id
        async with peer(server, "/ws?room=K7M2QX&role=receiver") as other:
            await other.expect_error("wrong_role", fatal=True)
    async with peer(server, "/ws/K7M2QX") as nobody:
        await nobody.expect_error("no_such_room", fatal=True)


async def test_later_clients_are_receivers_with_uuids_of_their_own(server: Server) -> None:
    async with trio(server) as clients:
        assert [c.joined["role"] for c in clients] == ["sender", "receiver", "receiver"]
        assert len({c.id for c in clients}) == 3
        assert all(uuid.UUID(c.id).version == 4 for c in clients)
        sender, first, second = clients
        assert first.joined["peers"] == second.joined["peers"] == [{"client_id": sender.id, "role": "sender"}]


async def test_only_the_sender_hears_of_a_new_receiver(server: Server) -> None:
    async with pair(server) as (sender, first), joined(server, f"/ws/{sender.room_id}") as second:
        assert await sender.expect("join") == {"client_id": second.id, "role": "receiver"}
        await first.expect_silence()


async def test_room_ids_may_be_typed_carelessly(server: Server) -> None:
    async with joined(server) as sender:
        typed = sender.room_id.lower().replace("1", "l").replace("0", "o")
        async with joined(server, f"/ws/{typed[:3]}-{typed[3:]}") as receiver:
            assert receiver.room_id == sender.room_id


async def test_offers_go_to_all_receivers_or_to_one(server: Server) -> None:
    async with trio(server) as (sender, first, second):
        await sender.say(OFFER)
        for receiver in (first, second):
            assert await receiver.expect("offer") == {"client_id": sender.id, "sdp": "v=0"}
        await sender.say(to(second.id, OFFER))
        assert await second.expect("offer") == {"client_id": sender.id, "sdp": "v=0"}
        await first.expect_silence()


async def test_several_offers_are_under_way_at_once(server: Server) -> None:
    async with trio(server) as (sender, first, second):
        for n in range(20):
            await sender.say(to(first.id, {"type": "offer", "data": {"sdp": f"first {n}"}}))
            await sender.say(to(second.id, {"type": "offer", "data": {"sdp": f"second {n}"}}))
        for n in range(20):
            assert (await second.expect("offer"))["sdp"] == f"second {n}"
            await second.say({"type": "answer", "data": {"sdp": f"re second {n}"}})
        for n in range(20):
            assert (await first.expect("offer"))["sdp"] == f"first {n}"
            assert await sender.expect("answer") == {"client_id": second.id, "sdp": f"re second {n}"}


async def test_answers_and_candidates_reach_the_other_role_only(server: Server) -> None:
    async with trio(server) as (sender, first, second):
        await first.say(ANSWER)
        assert await sender.expect("answer") == {"client_id": first.id, "sdp": "v=0"}
        await first.say(candidate())
        heard = await sender.expect("ice_candidate")
        assert heard["client_id"] == first.id
        assert heard["candidate"]["sdpMid"] == "0"
        await sender.say(to(first.id, {"type": "ice_candidate", "data": {"candidate": None}}))
        assert await first.expect("ice_candidate") == {"client_id": sender.id, "candidate": None}
        await second.expect_silence()


async def test_a_receiver_cannot_reach_another_receiver(server: Server) -> None:
    async with trio(server) as (sender, first, second):
        await first.say(candidate(target_id=second.id))
        await first.say(to(second.id, ANSWER))
        await first.say(to(second.id, OFFER))
        await first.expect_error("wrong_role")
        assert (await sender.expect("ice_candidate"))["client_id"] == first.id
        assert (await sender.expect("answer"))["client_id"] == first.id
        await second.expect_silence()


async def test_a_client_cannot_speak_as_another(server: Server) -> None:
    async with trio(server) as (sender, first, second):
        await first.say({"type": "answer", "data": {"client_id": second.id, "sdp": "v=0"}})
        assert (await sender.expect("answer"))["client_id"] == first.id


async def test_a_room_does_not_reach_into_another(server: Server) -> None:
    async with pair(server) as (sender, _), pair(server) as (_, stranger):
        await sender.say(to(stranger.id, OFFER))
        await sender.expect_error("no_such_peer")
        await stranger.expect_silence()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "bad_json"),
        ("[]", "bad_message"),
        ('{"type":"teleport","data":{}}', "unknown_type"),
        ('{"type":"offer","data":{}}', "bad_message"),
        ('{"type":"joined","data":{}}', "bad_message"),
        ('{"type":"join","data":{"client_id":"x","role":"sender"}}', "unexpected_type"),
        ('{"type":"error","data":{"code":"x","message":"y","fatal":true}}', "unexpected_type"),
        (b'{"type":"ping"}', "binary_message"),
        ("x" * (MAX_MESSAGE_SIZE + 1), "message_too_big"),
        ("x" * (2 * MAX_MESSAGE_SIZE), "message_too_big"),
        ("[" * 60_000, "bad_json"),
        (ANSWER, "wrong_role"),
        (to("00000000-0000-4000-8000-000000000000", OFFER), "no_such_peer"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_mistake_is_answered_and_disturbs_nothing(server: Server, frame: str, code: str) -> None:
    async with pair(server) as (sender, receiver):
        await sender.say(frame)
        await sender.expect_error(code)
        await sender.say(OFFER)
        await receiver.expect("offer")
        await receiver.say(ANSWER)
        await sender.expect("answer")


async def test_a_message_of_the_largest_size_is_relayed(server: Server) -> None:
    async with pair(server) as (sender, receiver):
        sdp = "x" * (60 * 1024)
        await sender.say({"type": "offer", "data": {"sdp": sdp}})
        assert (await receiver.expect("offer"))["sdp"] == sdp


async def test_a_monstrous_frame_ends_only_its_own_connection(server: Server) -> None:
    async with pair(server) as (sender, receiver):
        await receiver.say("x" * (4 * MAX_MESSAGE_SIZE))
        await receiver.expect_close(1009)
        assert (await sender.expect("disconnect"))["client_id"] == receiver.id


async def test_too_many_mistakes_close_the_connection(server: Server) -> None:
    async with pair(server) as (sender, receiver):
        for _ in range(17):
            await receiver.say("garbage")
        for _ in range(16):
            await receiver.expect_error("bad_json")
        await receiver.expect_error("too_many_errors", fatal=True)
        await receiver.expect_close(4400)
        assert (await sender.expect("disconnect"))["client_id"] == receiver.id


async def test_messages_to_nobody_are_not_held_against_the_sender(server: Server) -> None:
    async with joined(server) as sender:
        for _ in range(50):
            await sender.say(candidate())
            await sender.expect_error("no_such_peer")


async def test_a_thousand_frames_of_garbage_disturb_nobody(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    noise = random.Random(7)
    frames: list[str | bytes] = [noise.randbytes(noise.randrange(200)) for _ in range(500)]
    frames += [noise.randbytes(noise.randrange(200)).decode("latin-1") for _ in range(500)]
    async with pair(server) as (sender, receiver):
        while frames:
            async with peer(server, f"/ws/{sender.room_id}") as vandal:
                await vandal.expect("joined")
                await sender.expect("join")
                # More than the budget: the rest of the batch comes after the close.
                for _ in range(25):
                    await vandal.say(frames.pop())
                heard = await vandal.drain()
                assert [message["type"] for message in heard] == ["error"] * 17
                assert vandal.socket.close_code == 4400
                await sender.expect("disconnect")
            await sender.say(to(receiver.id, OFFER))
            await receiver.expect("offer")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_invalid_utf8_ends_the_connection_and_is_not_our_error(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair(server) as (sender, receiver):
        await receiver.socket.send(b"\xff\xfe", text=True)
        await receiver.expect_close(1007)
        await sender.expect("disconnect")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_messages_may_come_in_fragments(server: Server) -> None:
    async with pair(server) as (sender, receiver):
        await sender.socket.send(['{"type":"offer",', '"data":{"sdp":', '"v=0"}}'])
        await receiver.expect("offer")


async def test_ping_is_answered_and_pong_is_taken(server: Server) -> None:
    async with joined(server) as sender:
        await sender.say({"type": "ping", "data": {}})
        assert await sender.expect("pong") == {}
        await sender.say({"type": "pong", "data": {}})
        await sender.expect_silence()


async def test_a_client_that_does_not_answer_pings_is_closed() -> None:
    async with Server(local(ping_interval=0.05, ping_timeout=0.1)) as server, pair(server) as (sender, dead):
        # Nothing is read from the socket any more, so no ping is answered.
        dead.socket.transport.pause_reading()
        data = await sender.expect("disconnect")
        assert data == {"client_id": dead.id, "reason": "the connection was lost", "away": True}
        dead.socket.transport.abort()


async def test_the_sender_takes_its_room_along(server: Server) -> None:
    async with trio(server) as (sender, first, second):
        await sender.say({"type": "disconnect", "data": {"reason": "all is sent"}})
        await sender.expect_close(1000)
        for receiver in (first, second):
            assert await receiver.expect("disconnect") == {"client_id": sender.id, "reason": "all is sent"}
            await receiver.expect_error("room_closed", fatal=True)
            await receiver.expect_close(4410)
        async with peer(server, f"/ws/{sender.room_id}") as late:
            await late.expect_error("no_such_room", fatal=True)
            await late.expect_close(4404)


async def test_a_receiver_that_leaves_disturbs_nobody(server: Server) -> None:
    async with trio(server) as (sender, first, second):
        await first.say({"type": "disconnect"})
        await first.expect_close(1000)
        assert await sender.expect("disconnect") == {"client_id": first.id, "reason": "it left"}
        await sender.say(OFFER)
        await second.expect("offer")


async def test_a_receiver_that_vanishes_is_reported(server: Server) -> None:
    async with trio(server) as (sender, first, second):
        first.socket.transport.abort()
        data = await sender.expect("disconnect")
        assert data == {"client_id": first.id, "reason": "the connection was lost", "away": True}
        await second.expect_silence()


async def test_a_persistent_room_outlives_its_sender(server: Server) -> None:
    server_room = await _make_room(server, persistent=True)
    async with joined(server, server_room) as sender, joined(server, server_room) as receiver:
        await sender.expect("join")
        await sender.socket.close()
        await receiver.expect("disconnect")
        async with joined(server, server_room) as successor:
            assert successor.joined["role"] == "sender"
            assert successor.joined["peers"] == [{"client_id": receiver.id, "role": "receiver"}]
            assert (await successor.expect("join"))["client_id"] == receiver.id
            assert await receiver.expect("join") == {"client_id": successor.id, "role": "sender"}


async def _make_room(server: Server, **wishes: object) -> str:
    async with http_of(server) as http:
        response = await http.post("/room", json=wishes)
    assert response.status_code == 201
    return f"/ws/{response.json()['room_id']}"


async def test_a_full_room_refuses_and_goes_on(server: Server) -> None:
    path = await _make_room(server, max_clients=2)
    async with joined(server, path) as sender, joined(server, path) as receiver:
        await sender.expect("join")
        async with peer(server, path) as third:
            await third.expect_error("room_full", fatal=True)
            await third.expect_close(4413)
        await receiver.socket.close()
        await sender.expect("disconnect")
        async with joined(server, path):
            await sender.expect("join")


PAIRED = {"type": "paired", "data": {}}


async def test_silent_connections_keep_nobody_out_of_a_room_and_throw_out_nobody_served() -> None:
    config = local(trusted_proxies=(ip_network("127.0.0.1"),))

    def of(address: str) -> dict[str, object]:
        return {"additional_headers": {"X-Forwarded-For": address}}

    async with Server(config) as server, contextlib.AsyncExitStack() as stack:

        async def arrive(address: str) -> Peer:
            return await stack.enter_async_context(joined(server, path, **of(address)))

        sender = await stack.enter_async_context(joined(server))
        path = f"/ws/{sender.room_id}"
        assert sender.joined["wants_paired"] is True
        await sender.say(PAIRED)
        served = await arrive("198.51.100.1")
        assert "wants_paired" not in served.joined
        await sender.say(to(served.id, PAIRED))
        silent = [await arrive("192.0.2.1") for _ in range(14)]
        # A stranger with one address displaces its own.
        honest = await arrive("203.0.113.1")
        await silent[0].expect_error("displaced", fatal=True)
        await silent[0].expect_close(4413)
        for n in range(1, 20):
            silent.append(await arrive("192.0.2.1"))
            await silent[n].expect_error("displaced", fatal=True)
        await honest.expect_silence()
        # With many addresses it can make the unpaired go, and never the one that is served.
        for n in range(40):
            await arrive(f"192.0.2.{n + 2}")
        await honest.expect_error("displaced", fatal=True)
        await served.expect_silence()
        await sender.say(to(served.id, OFFER))
        await served.expect("offer")


@pytest.mark.parametrize(
    "path", ["/ws/ZZZZZZ", "/ws/nonsense", "/ws/K7M2QX-lemon-otter", "/ws/%00", "/ws/%F0%9F%A6%A6"]
)
@pytest.mark.parametrize("role", ["", "?role=receiver", "?role=sender"])
async def test_missing_and_impossible_rooms_get_one_answer(server: Server, path: str, role: str) -> None:
    async with peer(server, path + role) as stranger:
        data = await stranger.expect("error")
        assert data == {
            "code": "no_such_room",
            "message": "no sender is waiting under this code",
            "fatal": True,
        }
        await stranger.expect_close(4404)
        assert stranger.socket.close_reason == "no sender is waiting under this code"


async def test_role_receiver_never_becomes_a_sender(server: Server) -> None:
    path = await _make_room(server)
    async with peer(server, path + "?role=receiver") as early:
        await early.expect_error("no_such_room", fatal=True)
        await early.expect_close(4404)
    async with joined(server, path), joined(server, path + "?role=receiver") as receiver:
        assert receiver.joined["role"] == "receiver"


async def test_role_sender_never_becomes_a_receiver(server: Server) -> None:
    path = await _make_room(server)
    async with joined(server, path + "?role=sender") as sender:
        async with peer(server, path + "?role=sender") as second:
            await second.expect_error("role_taken", fatal=True)
            await second.expect_close(4401)
        await sender.expect_silence()
    async with joined(server, "/ws?role=sender") as creator:
        assert creator.joined["role"] == "sender"


@pytest.mark.parametrize(
    ("path", "error", "code"),
    [("/ws?role=king", "bad_request", 4400), ("/ws?role=receiver", "wrong_role", 4401)],
)
async def test_a_role_that_cannot_be_is_refused(server: Server, path: str, error: str, code: int) -> None:
    async with peer(server, path) as client:
        await client.expect_error(error, fatal=True)
        await client.expect_close(code)


async def test_our_subprotocol_is_chosen_among_others(server: Server) -> None:
    async with joined(server, subprotocols=["other", "flyx.v1"]) as client:
        assert client.socket.subprotocol == "flyx.v1"
    async with joined(server) as plain:
        assert plain.socket.subprotocol is None


async def test_a_client_of_other_protocols_is_told_so(server: Server) -> None:
    async with peer(server, subprotocols=["flyx.v9"]) as client:
        await client.expect_error("unsupported_protocol", fatal=True)
        await client.expect_close(4400)
        assert "flyx.v1" in str(client.socket.close_reason)


async def test_compression_is_not_negotiated(server: Server) -> None:
    async with joined(server) as client:
        assert client.socket.response is not None
        assert "Sec-WebSocket-Extensions" not in client.socket.response.headers


async def test_a_full_server_says_come_back_later() -> None:
    async with Server(local(max_rooms=1)) as server, joined(server) as sender:
        async with peer(server) as second:
            await second.expect_error("too_many_rooms", fatal=True)
            await second.expect_close(1013)
        await sender.expect_silence()


async def test_an_old_room_closes_with_everybody_inside_once_its_sender_has_left() -> None:
    clock = FakeClock()
    config = local(room=RoomConfig(ttl=3600, persistent=True), sweep_interval=0.01)
    async with Server(config, clock=clock) as server, pair(server) as (sender, receiver):
        assert sender.joined["expires_at"] == clock.now + 3600
        clock.now += 7 * 24 * 3600
        await sender.say(to(receiver.id, OFFER))
        await receiver.expect("offer")
        await sender.socket.close()
        await receiver.expect("disconnect")
        await receiver.expect_error("room_expired", fatal=True)
        await receiver.expect_close(4410)


async def test_an_idle_room_is_gone_even_before_it_is_swept() -> None:
    clock = FakeClock()
    async with Server(local(sweep_interval=1000.0), clock=clock) as server:
        path = await _make_room(server)
        clock.now += 600
        async with peer(server, path) as late:
            await late.expect_error("no_such_room", fatal=True)
            await late.expect_close(4404)


def _stalled_socket(server: Server) -> socket.socket:
    """A connected TCP socket with little room for what is not read."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", server.port))
    raw.setblocking(False)
    return raw


def _server_ends(server: Server) -> list[int]:
    """File descriptors of the server's side of its connections."""
    connections = psutil.Process().net_connections("tcp4")
    return [c.fd for c in connections if c.laddr.port == server.port and c.status == "ESTABLISHED"]


async def test_a_slow_consumer_is_closed_and_delays_nobody() -> None:
    config = local(close_timeout=0.1, linger=0.2)
    async with Server(config) as server, pair(server) as (sender, fast):
        raw = _stalled_socket(server)
        url = f"{server.url}/ws/{sender.room_id}"
        async with connect(url, sock=raw, max_queue=1, ping_interval=None) as stalled:
            slow = Peer(stalled)
            slow.joined = await slow.expect("joined")
            await sender.expect("join")
            stalled.transport.pause_reading()
            connections = len(_server_ends(server))

            gone = asyncio.create_task(sender.expect("disconnect"))
            offers = 0
            big = {"type": "offer", "data": {"sdp": "x" * 60_000}}
            while not gone.done():
                await sender.say(big)
                await fast.expect("offer")
                offers += 1
                assert offers < 2000, "the slow consumer was never closed"
            data = await gone
            assert data["client_id"] == slow.id
            assert "pile up" in data["reason"]

            # It still does not read, so that its connection cannot end in good order: it is cut off.
            await until(lambda: len(_server_ends(server)) < connections)
            stalled.transport.abort()


async def test_nothing_of_a_client_stays_behind(server: Server) -> None:
    tasks = len(asyncio.all_tasks())
    for _ in range(20):
        async with pair(server) as (sender, receiver):
            await sender.say(OFFER)
            await receiver.expect("offer")
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    assert _server_ends(server) == []


async def test_logs_hold_no_room_id_no_address_and_no_sdp(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    # The client runs in this process too, and logs what it does.
    logging.getLogger("websockets.client").setLevel(logging.WARNING)
    async with pair(server) as (sender, receiver):
        await sender.say({"type": "offer", "data": {"sdp": "v=0 secret-sdp"}})
        await receiver.expect("offer")
        await receiver.say("garbage")
        await receiver.expect_error("bad_json")
        room_id = sender.room_id
    records = [r for r in caplog.records if not r.name.startswith("websockets.client")]
    assert any(r.getMessage() == "client connected" for r in records)
    everything = " ".join(str(vars(record)) for record in records)
    for secret in (room_id, "127.0.0.1", "secret-sdp"):
        assert secret not in everything
