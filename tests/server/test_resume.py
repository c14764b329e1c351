"""Clients that lose their connection and come back, against the real server in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from flyx.server.app import Server
from flyx.signaling.config import RoomConfig
from tests.server.peers import ANSWER, OFFER, FakeClock, Peer, joined, local, pair, peer, to, trio, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOST = {"reason": "the connection was lost", "away": True}


def break_off(client: Peer) -> None:
    """End the connection as a network does that goes away."""
    client.socket.transport.abort()


@asynccontextmanager
async def returning(
    server: Server, client: Peer, *, room_id: str | None = None, **claim: Any
) -> AsyncIterator[Peer]:
    """Connect as somebody who was inside, without expecting to be let in."""
    async with peer(server, f"/ws/{room_id or client.room_id}?resume=1") as back:
        data = {"client_id": client.id, "resume_token": client.joined["resume_token"], **claim}
        await back.say({"type": "join", "data": data})
        yield back


@asynccontextmanager
async def resumed(server: Server, client: Peer, **claim: Any) -> AsyncIterator[Peer]:
    """Connect as somebody who was inside, and take the `joined` message."""
    async with returning(server, client, **claim) as back:
        back.joined = await back.expect("joined")
        assert back.id == client.id
        yield back


async def test_a_sender_comes_back_to_its_room_and_its_receivers(server: Server) -> None:
    async with pair(server) as (sender, receiver):
        break_off(sender)
        assert await receiver.expect("disconnect") == {"client_id": sender.id, **LOST}
        async with resumed(server, sender, received=1) as back:
            assert back.joined["role"] == "sender"
            assert back.joined["recovered"] is True
            assert back.joined["resume_token"] != sender.joined["resume_token"]
            assert back.joined["peers"] == [{"client_id": receiver.id, "role": "receiver"}]
            arrival = {"client_id": sender.id, "role": "sender", "recovered": True}
            assert await receiver.expect("join") == arrival
            await back.say(OFFER)
            await receiver.expect("offer")


async def test_what_was_said_meanwhile_is_delivered_on_return(server: Server) -> None:
    async with trio(server) as (sender, first, second):
        break_off(sender)
        for receiver in (first, second):
            await receiver.expect("disconnect")
        await first.say(ANSWER)
        await second.say({"type": "disconnect", "data": {"reason": "enough"}})
        await second.drain()
        async with joined(server, f"/ws/{sender.room_id}") as third:
            assert third.joined["peers"] == [{"client_id": sender.id, "role": "sender", "away": True}]
            async with resumed(server, sender, received=2) as back:
                assert back.joined["recovered"] is True
                assert await back.expect("answer") == {"client_id": first.id, "sdp": "v=0"}
                assert await back.expect("disconnect") == {"client_id": second.id, "reason": "enough"}
                assert await back.expect("join") == {"client_id": third.id, "role": "receiver"}
                await back.expect_silence()


async def test_what_the_network_swallowed_is_sent_again_and_the_rest_is_not(server: Server) -> None:
    async with pair(server) as (sender, receiver):
        for n in range(5):
            await sender.say({"type": "offer", "data": {"sdp": f"offer {n}"}})
        # All five arrive; the client was busy with the first two when it lost its connection.
        for _ in range(5):
            await receiver.expect("offer")
        break_off(receiver)
        assert await sender.expect("disconnect") == {"client_id": receiver.id, **LOST}
        await sender.say({"type": "offer", "data": {"sdp": "offer 5"}})
        await sender.expect_silence()
        async with resumed(server, receiver, received=2) as back:
            assert back.joined["recovered"] is True
            assert [(await back.expect("offer"))["sdp"] for _ in range(4)] == [
                f"offer {n}" for n in range(2, 6)
            ]
            await back.expect_silence()


async def test_the_server_tells_what_it_has_taken(server: Server) -> None:
    async with pair(server) as (sender, receiver):
        await receiver.say(ANSWER)
        await receiver.say(OFFER)
        await receiver.expect_error("wrong_role")
        await receiver.say("garbage")
        await receiver.expect_error("bad_json")
        await sender.expect("answer")
        break_off(receiver)
        await sender.expect("disconnect")
        # The second was answered with an error: that is taken. The third is no message.
        async with resumed(server, receiver, received=0) as back:
            assert (back.joined["recovered"], back.joined["received"]) == (True, 2)


@pytest.mark.parametrize("claim", [{"received": 99}, {"received": 2**53}, {}])
async def test_a_count_that_does_not_fit_is_not_believed(server: Server, claim: dict[str, int]) -> None:
    async with pair(server) as (sender, receiver):
        break_off(sender)
        await receiver.expect("disconnect")
        async with resumed(server, sender, **claim) as back:
            assert (back.joined["recovered"], back.joined["received"]) == (False, 0)
            # As on the first day.
            assert await back.expect("join") == {"client_id": receiver.id, "role": "receiver"}
            assert await receiver.expect("join") == {"client_id": sender.id, "role": "sender"}


async def test_who_missed_more_than_is_kept_is_told_so(server: Server) -> None:
    async with pair(server) as (sender, receiver):
        break_off(receiver)
        await sender.expect("disconnect")
        for n in range(65):
            await sender.say(to(receiver.id, {"type": "offer", "data": {"sdp": f"offer {n}"}}))
        await sender.expect_silence()
        async with resumed(server, receiver, received=0) as back:
            assert back.joined["recovered"] is False
            await back.expect_silence()
            # The sender is to start anew with it.
            assert await sender.expect("join") == {"client_id": receiver.id, "role": "receiver"}


async def test_an_older_connection_is_replaced_and_its_messages_go_on(server: Server) -> None:
    async with pair(server) as (sender, receiver):
        await sender.say(OFFER)
        await sender.expect_silence()
        # The server has not seen that the connection is dead.
        async with resumed(server, receiver, received=0) as back:
            assert back.joined["recovered"] is True
            await back.expect("offer")
            await back.say(ANSWER)
            await sender.expect("answer")
            assert [m["type"] for m in await receiver.drain()] == ["offer", "error"]
            assert receiver.socket.close_code == 4409
            # Its end is of no interest to anybody.
            await sender.expect_silence()


async def test_a_token_is_new_each_time_and_the_one_before_is_good_once_more(server: Server) -> None:
    async with joined(server) as sender:
        break_off(sender)
        async with resumed(server, sender, received=0) as second:
            break_off(second)
        # The second answer may never have arrived.
        async with resumed(server, sender, received=0) as third:
            break_off(third)
            async with resumed(server, third, received=0) as fourth:
                break_off(fourth)
        async with returning(server, sender) as late:
            await late.expect_error("no_such_session", fatal=True)
            await late.expect_close(4404)


async def test_a_bad_token_an_unknown_client_and_a_missing_room_get_one_answer(server: Server) -> None:
    async with pair(server) as (sender, receiver):
        stolen = str(receiver.joined["resume_token"])
        claims = [
            {"resume_token": "guess"},
            {"resume_token": stolen},
            {"client_id": "00000000-0000-4000-8000-000000000000"},
            {"room_id": "ZZZZZZ"},
            {"room_id": "nonsense"},
        ]
        heard = []
        for claim in claims:
            async with returning(server, sender, **claim) as stranger:
                heard.append(await stranger.drain())
                assert stranger.socket.close_code == 4404
        assert [m["data"]["code"] for m in heard[0]] == ["no_such_session"]
        assert all(messages == heard[0] for messages in heard)
        # Nobody noticed.
        await sender.expect_silence()
        await receiver.expect_silence()


async def test_who_said_goodbye_has_no_place_any_more(server: Server) -> None:
    async with pair(server) as (sender, receiver):
        await receiver.socket.close()
        assert "away" not in await sender.expect("disconnect")
        async with returning(server, receiver) as late:
            await late.expect_error("no_such_session", fatal=True)


async def test_a_place_is_free_when_the_grace_time_is_over() -> None:
    clock = FakeClock()
    async with Server(local(sweep_interval=0.01), clock=clock) as server, pair(server) as (sender, receiver):
        break_off(receiver)
        assert (await sender.expect("disconnect"))["away"] is True
        clock.now += 30
        assert await sender.expect("disconnect") == {
            "client_id": receiver.id,
            "reason": "it did not come back",
        }
        async with returning(server, receiver) as late:
            await late.expect_error("no_such_session", fatal=True)


async def test_a_room_closes_when_its_sender_does_not_come_back() -> None:
    clock = FakeClock()
    async with Server(local(sweep_interval=0.01), clock=clock) as server, pair(server) as (sender, receiver):
        break_off(sender)
        await receiver.expect("disconnect")
        clock.now += 29
        async with joined(server, f"/ws/{sender.room_id}?role=receiver") as late:
            assert late.joined["role"] == "receiver"
            clock.now += 1
            assert "away" not in await late.expect("disconnect")
            await late.expect_error("room_closed", fatal=True)
            await late.expect_close(4410)


async def test_without_a_grace_time_nobody_is_waited_for() -> None:
    config = local(room=RoomConfig(grace=0.0))
    async with Server(config) as server, pair(server) as (sender, receiver):
        break_off(sender)
        assert "away" not in await receiver.expect("disconnect")
        await receiver.expect_error("room_closed", fatal=True)


HOUR = 3600.0


async def test_a_client_that_falls_silent_has_its_place_for_as_long_as_it_asked() -> None:
    clock = FakeClock()
    config = local(sweep_interval=0.01, ping_interval=0.1, ping_timeout=0.1)
    async with (
        Server(config, clock=clock) as server,
        joined(server, f"/ws?role=sender&hold={HOUR:.0f}") as sender,
        joined(server, f"/ws/{sender.room_id}") as receiver,
    ):
        assert sender.joined["limits"]["grace"] == HOUR
        assert receiver.joined["limits"]["grace"] == 30.0
        await sender.expect("join")
        # As if its machine slept.
        sender.socket.transport.pause_reading()
        assert (await receiver.expect("disconnect"))["away"] is True
        clock.now += HOUR - 1
        async with resumed(server, sender, received=1) as back:
            assert back.joined["recovered"] is True


async def test_a_client_that_died_has_its_place_for_the_grace_time_alone() -> None:
    clock = FakeClock()
    async with (
        Server(local(sweep_interval=0.01), clock=clock) as server,
        joined(server, f"/ws?role=sender&hold={HOUR:.0f}") as sender,
        joined(server, f"/ws/{sender.room_id}") as receiver,
    ):
        break_off(sender)
        assert (await receiver.expect("disconnect"))["away"] is True
        clock.now += 30
        assert "away" not in await receiver.expect("disconnect")


async def test_places_are_held_for_long_in_a_few_rooms_of_each_address() -> None:
    path = f"/ws?role=sender&hold={HOUR:.0f}"
    async with (
        Server(local(max_persistent_per_address=1)) as server,
        joined(server, path) as first,
        joined(server, path) as second,
    ):
        held = [sender.joined["limits"]["grace"] for sender in (first, second)]
        assert held == [HOUR, RoomConfig().idle_timeout]


@pytest.mark.parametrize(
    ("path", "first", "error", "code"),
    [
        ("/ws?hold=inf", None, "bad_request", 4400),
        ("/ws?hold=-1", None, "bad_request", 4400),
        ("/ws?resume=1", None, "bad_request", 4400),
        ("/ws/ZZZZZZ?resume=yes", None, "bad_request", 4400),
        ("/ws/ZZZZZZ?resume=1", OFFER, "unexpected_type", 4400),
        (
            "/ws/ZZZZZZ?resume=1",
            {"type": "join", "data": {"client_id": "x", "role": "sender"}},
            "unexpected_type",
            4400,
        ),
        ("/ws/ZZZZZZ?resume=1", {"type": "disconnect"}, "unexpected_type", 4400),
    ],
)
async def test_a_return_that_is_none_is_refused(
    server: Server, path: str, first: dict[str, Any] | None, error: str, code: int
) -> None:
    async with peer(server, path) as client:
        if first is not None:
            await client.say(first)
        await client.expect_error(error, fatal=True)
        await client.expect_close(code)


async def test_who_comes_back_and_says_nothing_is_closed() -> None:
    async with Server(local(join_timeout=0.05)) as server, peer(server, "/ws/ZZZZZZ?resume=1") as silent:
        # Not a way to stay.
        await silent.say({"type": "ping"})
        await silent.expect("pong")
        await silent.expect_error("join_timeout", fatal=True)
        await silent.expect_close(4408)


async def test_join_is_for_the_first_message_of_a_return_only(server: Server) -> None:
    async with joined(server) as sender:
        claim = {"client_id": sender.id, "resume_token": sender.joined["resume_token"]}
        await sender.say({"type": "join", "data": claim})
        await sender.expect_error("unexpected_type")
        await sender.expect_silence()


async def test_many_that_return_at_once_find_their_places(server: Server) -> None:
    async with trio(server) as clients:
        for client in clients:
            break_off(client)
        backs = [resumed(server, client) for client in clients]
        async with backs[0] as one, backs[1] as two, backs[2] as three:
            assert [c.joined["role"] for c in (one, two, three)] == ["sender", "receiver", "receiver"]


async def test_nothing_of_a_connection_stays_behind_but_its_place(server: Server) -> None:
    tasks = len(asyncio.all_tasks())
    for _ in range(10):
        async with pair(server) as (sender, receiver):
            break_off(receiver)
            await sender.expect("disconnect")
            async with resumed(server, receiver, received=0):
                await sender.expect("join")
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
