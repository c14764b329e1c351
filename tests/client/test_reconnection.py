"""The client's side of signaling when its connection is lost: real servers, behind a bad network."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import field
from websockets.asyncio.client import ClientConnection

from flyx.client.signaling import Interrupted, Restored, RetryPolicy, Signaling
from flyx.errors import RoomLost, RoomTaken, ServerRefused, ServerUnreachable
from flyx.net import changes
from flyx.net.changes import Moved, Slept
from flyx.server.app import Server
from flyx.signaling.config import RoomConfig
from flyx.signaling.messages import (
    Answer,
    AnswerData,
    Disconnect,
    Join,
    JoinData,
    JoinedData,
    Message,
    Offer,
    OfferData,
    Role,
)
from tests.client.network import Network, network
from tests.server.peers import ANSWER, FakeClock, joined, local, until

QUICK = RetryPolicy(first_pause=0.01, longest_pause=0.05, limit=20.0)
BRIEF = RetryPolicy(first_pause=0.01, longest_pause=0.05, limit=0.2)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server(local(stun_urls=())) as running:
        yield running


@asynccontextmanager
async def met(
    server: Server, net: Network, *, retry: RetryPolicy = QUICK
) -> AsyncIterator[tuple[Signaling, Signaling]]:
    """A sender behind the network and a receiver with a connection of its own, introduced."""
    async with Signaling(net.url, None, Role.SENDER, retry=retry) as sender:
        async with Signaling(server.url, sender.joined.room_id, Role.RECEIVER, retry=retry) as receiver:
            assert isinstance(await sender.receive(), Join)
            yield sender, receiver


def offer(text: str) -> Offer:
    return Offer(data=OfferData(sdp=text))


def answer(text: str) -> Answer:
    return Answer(data=AnswerData(sdp=text))


def sdp(message: Message | Interrupted | Restored) -> str:
    assert isinstance(message, Offer | Answer), message
    return message.data.sdp


async def skip_presence(signaling: Signaling) -> Message | Interrupted | Restored:
    """The next message that is not about somebody coming or going."""
    while isinstance(message := await signaling.receive(), Join | Disconnect):
        pass
    return message


async def test_a_cut_connection_is_restored_and_nothing_is_lost(server: Server) -> None:
    async with network(server.port) as net, met(server, net) as (sender, receiver):
        token = sender.joined.resume_token
        net.cut()
        assert isinstance(await sender.receive(), Interrupted)
        away = await receiver.receive()
        assert isinstance(away, Disconnect)
        assert away.data.away
        # Both speak while the connection is down.
        sender.post(offer("one"))
        receiver.post(answer("two"))
        assert await sender.receive() == Restored(recovered=True)
        assert sender.joined.resume_token != token
        assert sdp(await sender.receive()) == "two"
        back = await receiver.receive()
        assert isinstance(back, Join)
        assert back.data.recovered
        assert sdp(await receiver.receive()) == "one"


async def test_what_the_network_swallowed_on_the_way_to_the_server_is_sent_again(server: Server) -> None:
    async with network(server.port) as net, met(server, net) as (sender, receiver):
        sender.post(offer("arrives"))
        assert sdp(await receiver.receive()) == "arrives"
        net.mute = True
        lost = [offer(f"swallowed {n}") for n in range(3)]
        for message in lost:
            sender.post(message)
        await net.has_swallowed(*lost)
        net.cut()
        net.mute = False
        assert isinstance(await sender.receive(), Interrupted)
        assert await sender.receive() == Restored(recovered=True)
        sender.post(offer("last"))
        heard = [sdp(await skip_presence(receiver)) for _ in range(4)]
        assert heard == ["swallowed 0", "swallowed 1", "swallowed 2", "last"]


async def test_what_the_network_swallowed_on_the_way_to_us_comes_again(server: Server) -> None:
    async with network(server.port) as net, met(server, net) as (sender, receiver):
        receiver.post(answer("arrives"))
        assert sdp(await sender.receive()) == "arrives"
        net.deaf = True
        lost = [answer(f"swallowed {n}") for n in range(3)]
        for message in lost:
            receiver.post(message)
        await net.has_swallowed(*lost)
        net.cut()
        net.deaf = False
        assert isinstance(await sender.receive(), Interrupted)
        assert await sender.receive() == Restored(recovered=True)
        assert [sdp(await sender.receive()) for _ in range(3)] == [f"swallowed {n}" for n in range(3)]


async def test_the_answer_to_a_return_may_be_lost_as_well(server: Server) -> None:
    async with network(server.port) as net, met(server, net) as (sender, receiver):
        receiver.post(answer("one"))
        assert sdp(await sender.receive()) == "one"
        net.cut()
        assert isinstance(await sender.receive(), Interrupted)
        assert isinstance(await receiver.receive(), Disconnect)
        net.deaf = True
        returning = asyncio.create_task(sender.receive())
        # The server takes it in and answers, with a new token, and nobody hears it.
        assert isinstance(await receiver.receive(), Join)
        receiver.post(answer("two"))
        await net.has_swallowed(answer("two"))
        assert not returning.done()
        net.deaf = False
        net.cut()
        assert await returning == Restored(recovered=True)
        assert sdp(await sender.receive()) == "two"


async def test_a_loss_is_told_and_the_peers_begin_anew(server: Server) -> None:
    async with network(server.port) as net, Signaling(net.url, None, Role.SENDER, retry=QUICK) as sender:
        async with joined(server, f"/ws/{sender.joined.room_id}") as receiver:
            assert isinstance(await sender.receive(), Join)
            net.down = True
            net.cut()
            assert isinstance(await sender.receive(), Interrupted)
            await receiver.expect("disconnect")
            # More than a mailbox holds.
            for _ in range(65):
                await receiver.say(ANSWER)
            await receiver.expect_silence()
            sender.post(offer("is void"))
            net.down = False
            assert await sender.receive() == Restored(recovered=False)
            assert [peer.client_id for peer in sender.joined.peers] == [receiver.id]
            introduced = await sender.receive()
            assert isinstance(introduced, Join)
            assert introduced.data.client_id == receiver.id
            assert "recovered" not in await receiver.expect("join")
            sender.post(offer("anew"))
            assert (await receiver.expect("offer"))["sdp"] == "anew"


async def test_more_than_we_keep_for_the_server_is_a_loss_that_is_told(server: Server) -> None:
    async with network(server.port) as net, met(server, net) as (sender, receiver):
        net.mute = True
        lost = [offer(f"{n}") for n in range(40)]
        for message in lost:
            sender.post(message)
        await net.has_swallowed(*lost)
        net.cut()
        net.mute = False
        assert isinstance(await sender.receive(), Interrupted)
        assert await sender.receive() == Restored(recovered=False)
        assert isinstance(await sender.receive(), Join)
        sender.post(offer("anew"))
        assert sdp(await skip_presence(receiver)) == "anew"


async def test_a_server_that_restarts_with_its_rooms_is_gone_back_to(tmp_path: Path) -> None:
    config = local(stun_urls=(), state=tmp_path / "state")
    first = Server(config)
    await first.start()
    async with network(first.port) as net:
        async with Signaling(net.url, None, Role.SENDER, retry=QUICK) as sender:
            receiver = Signaling(net.url, sender.joined.room_id, Role.RECEIVER, retry=QUICK)
            async with receiver:
                assert isinstance(await sender.receive(), Join)
                events = [asyncio.create_task(client.receive()) for client in (sender, receiver)]
                await first.stop()
                for event in events:
                    assert await event == Interrupted("the server is stopping")
                async with Server(config) as second:
                    net.target = second.port
                    # It went down in good order and knows what had been said.
                    assert await sender.receive() == Restored(recovered=True)
                    assert await receiver.receive() == Restored(recovered=True)
                    sender.post(offer("still here"))
                    assert sdp(await skip_presence(receiver)) == "still here"


async def test_a_server_that_forgot_its_rooms_is_the_end(server: Server) -> None:
    async with Server(local(stun_urls=())) as other, network(server.port) as net:
        async with Signaling(net.url, None, Role.SENDER, retry=QUICK) as sender:
            net.target = other.port
            net.cut()
            assert isinstance(await sender.receive(), Interrupted)
            with pytest.raises(RoomLost):
                await sender.receive()


async def test_a_room_that_its_sender_chose_is_made_again_where_it_was_forgotten(server: Server) -> None:
    async with Server(local(stun_urls=())) as other, network(server.port) as net:
        async with Signaling(net.url, "K7M2QX", Role.SENDER, is_new=True, retry=QUICK) as sender:
            net.target = other.port
            net.cut()
            assert isinstance(await sender.receive(), Interrupted)
            assert await sender.receive() == Restored(recovered=False, rejoined=True)
            async with Signaling(other.url, "K7M2QX", Role.RECEIVER) as receiver:
                joined = await sender.receive()
                assert isinstance(joined, Join)
                assert joined.data.client_id == receiver.joined.client_id


async def test_a_room_that_somebody_else_has_got_meanwhile_is_taken(server: Server) -> None:
    async with Server(local(stun_urls=())) as other, network(server.port) as net:
        async with (
            Signaling(other.url, "K7M2QX", Role.SENDER, is_new=True),
            Signaling(net.url, "K7M2QX", Role.SENDER, is_new=True, retry=QUICK) as sender,
        ):
            net.target = other.port
            net.cut()
            assert isinstance(await sender.receive(), Interrupted)
            with pytest.raises(RoomTaken):
                await sender.receive()


async def test_a_receiver_whose_place_is_gone_takes_a_new_one() -> None:
    config = local(stun_urls=(), room=RoomConfig(grace=0.0))
    async with Server(config) as server, network(server.port) as net:
        async with Signaling(server.url, None, Role.SENDER) as sender:
            async with Signaling(net.url, sender.joined.room_id, Role.RECEIVER, retry=QUICK) as receiver:
                before = receiver.joined.client_id
                assert isinstance(await sender.receive(), Join)
                net.cut()
                assert isinstance(await receiver.receive(), Interrupted)
                assert await receiver.receive() == Restored(recovered=False, rejoined=True)
                assert receiver.joined.client_id != before
                left, came = await sender.receive(), await sender.receive()
                assert isinstance(left, Disconnect)
                assert isinstance(came, Join)
                assert came.data.client_id == receiver.joined.client_id


async def test_patience_has_an_end(server: Server) -> None:
    async with network(server.port) as net:
        async with Signaling(net.url, None, Role.SENDER, retry=BRIEF) as sender:
            net.down = True
            net.cut()
            assert isinstance(await sender.receive(), Interrupted)
            with pytest.raises(ServerUnreachable):
                await sender.receive()


async def test_a_server_that_says_come_back_is_believed() -> None:
    server = Server(local(stun_urls=()))
    await server.start()
    async with Signaling(server.url, None, Role.SENDER, retry=BRIEF) as sender:
        stopping = asyncio.create_task(server.stop())
        assert await sender.receive() == Interrupted("the server is stopping")
        await stopping
        with pytest.raises(ServerUnreachable):
            await sender.receive()


async def test_receive_may_be_cancelled_while_the_connection_is_lost(server: Server) -> None:
    async with network(server.port) as net, met(server, net) as (sender, receiver):
        net.down = True
        net.cut()
        assert isinstance(await sender.receive(), Interrupted)
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(sender.receive(), 0.02)
        net.down = False
        assert await sender.receive() == Restored(recovered=True)
        sender.post(offer("on"))
        assert sdp(await skip_presence(receiver)) == "on"


async def test_leaving_while_the_connection_is_lost_takes_no_time(server: Server) -> None:
    async with network(server.port) as net:
        async with Signaling(net.url, None, Role.SENDER, retry=QUICK) as sender:
            net.down = True
            net.cut()
            assert isinstance(await sender.receive(), Interrupted)


async def test_a_client_that_is_replaced_does_not_fight_for_its_place(server: Server) -> None:
    async with Signaling(server.url, None, Role.SENDER) as sender:
        room_id = sender.joined.room_id
        receiver = Signaling(server.url, room_id, Role.RECEIVER, retry=QUICK)
        await receiver.__aenter__()
        twin = Signaling(server.url, room_id, Role.RECEIVER, retry=QUICK)
        twin.joined = receiver.joined
        assert await twin.receive() == Restored(recovered=True)
        with pytest.raises(ServerRefused, match="took its place"):
            await receiver.receive()
        await receiver.__aexit__(None, None, None)
        await twin.__aexit__(None, None, None)


async def test_a_room_that_closes_meanwhile_is_lost(server: Server) -> None:
    async with network(server.port) as net:
        async with Signaling(server.url, None, Role.SENDER) as sender:
            receiver = Signaling(net.url, sender.joined.room_id, Role.RECEIVER, retry=QUICK)
            await receiver.__aenter__()
            net.down = True
            net.cut()
            assert isinstance(await receiver.receive(), Interrupted)
        net.down = False
        with pytest.raises(RoomLost):
            await receiver.receive()


def test_pauses_grow_and_are_never_the_same_for_all() -> None:
    retry = RetryPolicy()
    for tries in range(40):
        pauses = [retry.pause(tries) for _ in range(50)]
        bound = min(retry.longest_pause, retry.first_pause * 2**tries)
        assert all(0 <= pause <= bound for pause in pauses)
        assert max(pauses) > bound / 2
        assert len(set(pauses)) > 1


HOUR = 3600.0
PATIENT = RetryPolicy(first_pause=HOUR, longest_pause=HOUR, limit=20.0)


async def test_a_sender_that_is_away_for_an_hour_comes_back_to_its_room() -> None:
    clock = FakeClock()
    config = local(stun_urls=(), sweep_interval=0.01, ping_interval=0.1, ping_timeout=0.1)
    async with Server(config, clock=clock) as server, network(server.port) as net:
        async with Signaling(net.url, None, Role.SENDER, hold=HOUR, retry=QUICK) as sender:
            async with joined(server, f"/ws/{sender.joined.room_id}") as receiver:
                # The server hears nothing of it any more; TCP says nothing.
                net.mute, net.down = True, True
                assert (await receiver.expect("disconnect"))["away"] is True
                clock.now += HOUR - 1
                await receiver.expect_silence()
                net.cut()
                net.mute = net.down = False
                assert isinstance(await sender.receive(), Join)
                assert isinstance(await sender.receive(), Interrupted)
                assert await sender.receive() == Restored(recovered=True)
                assert (await receiver.expect("join"))["recovered"] is True


async def test_a_client_tries_for_as_long_as_its_place_is_held(server: Server) -> None:
    async with network(server.port) as net:
        async with Signaling(net.url, None, Role.SENDER, hold=20.0, retry=BRIEF) as sender:

            async def receive() -> None:
                assert isinstance(await sender.receive(), Interrupted)
                assert await sender.receive() == Restored(recovered=True)

            net.down = True
            net.cut()
            receiving = asyncio.create_task(receive())
            # The time is the condition: longer than it would try otherwise.
            await asyncio.sleep(2 * BRIEF.limit)
            net.down = False
            await receiving


async def test_a_room_that_is_gone_is_not_said_to_be_so_for_want_of_a_server(server: Server) -> None:
    async with Server(local(stun_urls=())) as other, network(server.port) as net:
        async with Signaling(net.url, None, Role.SENDER, retry=QUICK) as sender:
            net.target = other.port
            net.cut()
            assert isinstance(await sender.receive(), Interrupted)
            with pytest.raises(RoomLost) as caught:
                await sender.receive()
            assert "has forgotten it" in str(caught.value)


@pytest.mark.parametrize("noticed", ["as the loss", "after the loss"])
async def test_a_room_that_is_gone_after_a_long_sleep_is_said_to_be_so_for_that(
    server: Server, noticed: str
) -> None:
    async with Server(local(stun_urls=())) as other, network(server.port) as net:
        async with Signaling(net.url, None, Role.SENDER, retry=QUICK) as sender:
            net.target = other.port
            if noticed == "after the loss":
                net.cut()
                assert isinstance(await sender.receive(), Interrupted)
            # The clock of the tests does not stand still meanwhile.
            sender.network_changed(Slept(10_800.0))
            if noticed == "as the loss":
                assert isinstance(await sender.receive(), Interrupted)
            with pytest.raises(RoomLost) as caught:
                await sender.receive()
            # And what passed here besides, on a machine that is busy.
            assert re.search(r"was lost for 108\d\d s", str(caught.value))


@pytest.mark.parametrize("change", [Moved(), Slept(30.0)])
async def test_a_change_of_the_network_ends_a_pause(server: Server, change: Moved | Slept) -> None:
    async with network(server.port) as net:
        async with Signaling(net.url, None, Role.SENDER, retry=PATIENT) as sender:
            net.cut()
            assert isinstance(await sender.receive(), Interrupted)
            returning = asyncio.create_task(sender.receive())
            await asyncio.sleep(0)
            sender.network_changed(change)
            async with asyncio.timeout(10.0):
                assert await returning == Restored(recovered=True)


class Counting(RetryPolicy, frozen=True):
    """Does not wait, but notes after how many tries it is asked to."""

    tries: list[int] = field(default_factory=list)

    def pause(self, tries: int) -> float:
        self.tries.append(tries)
        return 0.0


@pytest.mark.parametrize("moves", [False, True])
async def test_after_a_change_of_the_network_pauses_do_not_grow_for_a_while(
    server: Server, moves: bool
) -> None:
    retry = Counting()
    async with network(server.port) as net:
        async with Signaling(net.url, None, Role.SENDER, retry=retry) as sender:
            net.down = True
            net.cut()
            assert isinstance(await sender.receive(), Interrupted)
            if moves:
                sender.network_changed(Moved())
            returning = asyncio.create_task(sender.receive())
            await until(lambda: len(retry.tries) > 5)
            net.down = False
            assert await returning == Restored(recovered=True)
    assert retry.tries[:5] == ([0] * 5 if moves else list(range(5)))


async def test_after_sleep_the_connection_is_made_anew_and_nothing_is_lost(server: Server) -> None:
    async with network(server.port) as net, met(server, net, retry=PATIENT) as (sender, receiver):
        # It looks alive, and leads nowhere any more.
        net.mute = True
        sender.post(offer("swallowed"))
        await until(lambda: net.swallowed > 0)
        net.mute = False
        sender.network_changed(Slept(90.0))
        assert "slept" in str(await sender.receive())
        assert await sender.receive() == Restored(recovered=True)
        assert sdp(await skip_presence(receiver)) == "swallowed"


async def test_a_connection_whose_address_is_gone_ends_with_one_packet(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent again and again from there may keep all else from leaving: see rtc.peer.fall_silent()."""
    async with network(server.port) as net, met(server, net, retry=PATIENT) as (sender, receiver):
        monkeypatch.setattr(changes, "is_ours", lambda _: False)
        sender.network_changed(Moved())
        monkeypatch.undo()
        assert "the network of this computer has changed" in str(await sender.receive())
        assert await sender.receive() == Restored(recovered=True)
        sender.post(offer("still here"))
        assert sdp(await skip_presence(receiver)) == "still here"
        assert net.resets == 1


async def test_a_client_knows_whether_the_server_is_there(server: Server) -> None:
    async with network(server.port) as net, met(server, net) as (sender, _):
        assert sender.there.is_set()
        sender.network_changed(Slept(90.0))
        # Before anybody has received that.
        assert not sender.there.is_set()
        for end in (lambda: None, net.cut):
            end()
            assert isinstance(await sender.receive(), Interrupted)
            assert not sender.there.is_set()
            assert await sender.receive() == Restored(recovered=True)
            assert sender.there.is_set()


async def test_a_change_that_does_not_concern_the_server_changes_nothing(server: Server) -> None:
    async with network(server.port) as net, met(server, net) as (sender, receiver):
        for change in (Moved(), Slept(3.0)):
            sender.network_changed(change)
        sender.post(offer("still here"))
        assert sdp(await receiver.receive()) == "still here"


class Hasty(Signaling):
    """Asks to begin anew in the very turn of the event loop in which the server gives it its place back."""

    has_asked = False

    async def _expect_joined(self, socket: ClientConnection, claim: JoinData | None = None) -> JoinedData:
        answer = await super()._expect_joined(socket, claim)
        if claim is not None and not self.has_asked:
            self.has_asked = True
            self.begin_anew()
        return answer


async def test_peers_begin_anew_also_if_that_is_asked_for_while_the_server_answers(server: Server) -> None:
    async with network(server.port) as net, Hasty(net.url, None, Role.SENDER, retry=QUICK) as sender:
        async with joined(server, f"/ws/{sender.joined.room_id}") as receiver:
            assert isinstance(await sender.receive(), Join)
            net.cut()
            assert isinstance(await sender.receive(), Interrupted)
            assert await sender.receive() == Restored(recovered=False)
            assert sender.has_asked
            # The server has first said that nothing is lost.
            await receiver.expect("disconnect")
            assert "recovered" in await receiver.expect("join")
            await receiver.expect("disconnect")
            assert "recovered" not in await receiver.expect("join")


@pytest.mark.parametrize("down", [False, True])
async def test_a_client_that_begins_again_has_its_peers_begin_again_as_well(
    server: Server, down: bool
) -> None:
    async with network(server.port) as net, met(server, net, retry=PATIENT) as (sender, receiver):
        if down:
            net.cut()
            assert isinstance(await sender.receive(), Interrupted)
        sender.post(offer("void"))
        sender.begin_anew()
        if not down:
            assert isinstance(await sender.receive(), Interrupted)
        assert await sender.receive() == Restored(recovered=False)
        while not isinstance(message := await receiver.receive(), Join):
            assert isinstance(message, Disconnect)
        assert not message.data.recovered
        sender.post(offer("anew"))
        assert sdp(await receiver.receive()) == "anew"
