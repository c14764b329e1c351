"""Pairing over real connections on this machine: what it is bound to, whose the channels are afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager

import pytest

from flyx.client.pairing import AskWords, KnownWords, Pairing, PairingGate, begin_receiving
from flyx.errors import (
    ConnectionMismatch,
    FlyxError,
    InputError,
    LocalProtocolError,
    PairingFailed,
    PairingTimedOut,
    PeerUnreachable,
    RemoteProtocolError,
    SenderLeft,
    SystemFailure,
    WrongWords,
)
from flyx.pairing.exchange import Code, Greeting, Paired, SenderExchange, WordsWanted
from flyx.pairing.keys import PairingSession
from flyx.pairing.tries import Tries
from flyx.rtc.channel import Channels
from flyx.rtc.peer import PeerConnection
from flyx.transfer.messages import EAGER
from tests.rtc.test_peer import LABELS, listen

ROOM = "K7M2QX"
CODE = Code("words", 2, "lemon-otter")
SESSION = PairingSession("5e" * 16, b"k" * 32)


End = tuple[PeerConnection, Channels]


@asynccontextmanager
async def connected(
    sender: Pairing | None = None, receiver: Pairing | None = None
) -> AsyncIterator[tuple[End, End]]:
    """The sender's connection and the receiver's, with their channels.

    Args:
        sender, receiver: what begins with the descriptions.
    """
    ends = [PeerConnection(LABELS, [], lambda _: None) for _ in range(2)]
    try:
        offer = await ends[0].offer(sender.first_messages() if sender else ())
        await ends[0].accept_answer(await ends[1].answer(offer, receiver.reply if receiver else None))
        channels = [await end.connected() for end in ends]
        yield (ends[0], channels[0]), (ends[1], channels[1])
    finally:
        for end in ends:
            await end.close()


def lemon_otter(_: WordsWanted) -> str:
    return "lemon-otter"


def lemon_apple(_: WordsWanted) -> str:
    return "lemon-apple"


def send(end: End, gate: PairingGate | None = None) -> Coroutine[None, None, Paired]:
    gate = gate or PairingGate(ROOM, CODE)
    return gate.pair(gate.begin(), *end)


def receive(
    end: End,
    session: PairingSession | None = None,
    known: KnownWords | None = None,
    ask: AskWords | None = None,
) -> Coroutine[None, None, Paired]:
    return begin_receiving(ROOM, session, known=known, ask=ask).run(*end)


async def test_both_ends_see_the_same_certificates() -> None:
    async with connected() as (left, right):
        fingerprints = left[0].fingerprints()
        assert fingerprints == right[0].fingerprints()[::-1]
        assert len(set(fingerprints)) == 2
        assert {len(fingerprint) for fingerprint in fingerprints} == {32}
        # Those of the descriptions, since nobody is in between here.
        for pc in (left[0], right[0]):
            ours = pc.fingerprints()[0].hex(":").upper()
            assert ours in pc._pc.localDescription.sdp


async def test_two_ends_pair_and_leave_the_channels_to_the_transfer() -> None:
    async with connected() as (left, right):
        sending = asyncio.create_task(send(left))
        receiving = asyncio.create_task(receive(right, known=lemon_otter))
        ours = await sending
        # At once, before the receiver has had its turn of the loop.
        left[1].control.send("first")
        left[1].control.send("second")
        theirs = await receiving
        assert ours == theirs
        assert isinstance(ours, Paired)
        ear = listen(right[1].control)
        assert [await ear.messages.get(), await ear.messages.get()] == ["first", "second"]


async def test_a_receiver_has_proved_itself_when_it_is_connected() -> None:
    gate = PairingGate(ROOM, CODE)
    ours, theirs = gate.begin(), begin_receiving(ROOM, None, known=lemon_otter)
    async with connected(ours, theirs) as (left, right):
        # Before the receiver has said anything over the channel.
        paired = await gate.pair(ours, *left)
        assert await theirs.run(*right) == paired
    # By the session, one more message goes each way.
    ours, theirs = gate.begin(), begin_receiving(ROOM, paired.session, known=lemon_apple)
    async with connected(ours, theirs) as (left, right):
        again, same = await asyncio.gather(gate.pair(ours, *left), theirs.run(*right))
        assert again == same != paired
    assert gate.tries_left == 3


@pytest.mark.parametrize("begins", [True, False])
async def test_a_sender_that_wants_no_words_pairs_also_before_it_is_connected(begins: bool) -> None:
    gate = PairingGate(ROOM, Code("open", 0, ""))
    ours, theirs = gate.begin(), begin_receiving(ROOM, None)
    async with connected(ours, theirs if begins else None) as (left, right):
        left[1].data.send(b"of the transfer")
        assert await theirs.run(*right) == await gate.pair(ours, *left)
        assert await listen(right[1].data).messages.get() == b"of the transfer"


async def test_what_follows_the_end_of_pairing_in_an_offer_is_passed_over() -> None:
    (hello,) = PairingGate(ROOM, Code("open", 0, "")).begin().first_messages()
    theirs = begin_receiving(ROOM, None)
    assert len(theirs.reply([hello, hello, "no message"], bytes(32), bytes(32))) == 1


async def test_a_wrong_word_that_comes_with_the_answer_is_a_try() -> None:
    gate = PairingGate(ROOM, CODE)
    ours, theirs = gate.begin(), begin_receiving(ROOM, None, known=lemon_apple)
    async with connected(ours, theirs) as (left, right):
        results = await asyncio.gather(owned(left, gate.pair(ours, *left)), owned(right, theirs.run(*right)))
        assert [type(result) for result in results] == [WrongWords, WrongWords]
    assert gate.tries_left == 2


@pytest.mark.parametrize("lies", [0, 1])
async def test_a_server_that_puts_what_both_say_first_into_descriptions_of_its_own_is_found_out(
    lies: int,
) -> None:
    """As each end sees: its own certificate, and in the place of the other's another one."""
    gate = PairingGate(ROOM, CODE)
    ours, theirs = gate.begin(), begin_receiving(ROOM, None, known=lemon_otter)
    reply = theirs.reply

    def lie(first: Sequence[str], *fingerprints: bytes) -> list[str]:
        return reply(first, *(bytes(32) if lies == n else each for n, each in enumerate(fingerprints)))

    theirs.reply = lie  # type: ignore[method-assign]
    async with connected(ours, theirs) as (left, right):
        results = await asyncio.gather(owned(left, gate.pair(ours, *left)), owned(right, theirs.run(*right)))
        assert {type(result) for result in results} == {ConnectionMismatch}


async def test_a_person_is_asked_once_both_are_connected() -> None:
    asked: list[WordsWanted] = []

    async def ask(wanted: WordsWanted) -> str:
        asked.append(wanted)
        return "lemon-otter"

    gate = PairingGate(ROOM, CODE)
    ours, theirs = gate.begin(), begin_receiving(ROOM, None, ask=ask)
    async with connected(ours, theirs) as (left, right):
        assert asked == []
        assert await asyncio.gather(gate.pair(ours, *left), theirs.run(*right))
        assert asked == [WordsWanted(2)]


async def test_a_session_replaces_the_words_on_the_next_connection() -> None:
    gate = PairingGate(ROOM, CODE)
    session = None
    for known in (lemon_otter, lemon_apple):
        async with connected() as (left, right):
            paired, _ = await asyncio.gather(receive(right, session, known), send(left, gate))
            session = paired.session
    assert gate.tries_left == 3


async def owned(end: End, pairing: Coroutine[None, None, Paired]) -> object:
    """What a pairing comes to, its connection closed if that is an error."""
    try:
        return await pairing
    except FlyxError as error:
        await end[0].close()
        return error


async def outcomes(
    left: End, right: End, known: KnownWords = lemon_otter, gate: PairingGate | None = None
) -> tuple[object, object]:
    """What the sender's end and the receiver's come to."""
    return await asyncio.gather(owned(left, send(left, gate)), owned(right, receive(right, known=known)))


async def test_wrong_words_are_told_to_both_and_counted() -> None:
    gate = PairingGate(ROOM, CODE)
    async with connected() as (left, right):
        results = await outcomes(left, right, lemon_apple, gate)
        assert [type(result) for result in results] == [WrongWords, WrongWords]
    assert gate.tries_left == 2


async def test_certificates_that_are_not_the_same_on_both_sides_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected() as (left, right):
        other = right[0].fingerprints()[0], bytes(32)
        monkeypatch.setattr(right[0], "fingerprints", lambda: other)
        results = await outcomes(left, right)
        assert [type(result) for result in results] == [ConnectionMismatch, ConnectionMismatch]


async def test_a_code_without_its_words_ends_it_for_both() -> None:
    def known(_: WordsWanted) -> str:
        raise InputError(reason="no words")

    async with connected() as (left, right):
        sender, receiver = await outcomes(left, right, known)
        assert isinstance(receiver, InputError)
        assert isinstance(sender, PairingFailed)
        assert "an incomplete code" in str(sender)


async def test_data_before_pairing_ends_it() -> None:
    async with connected() as (left, right):
        pairing = asyncio.create_task(owned(left, send(left)))
        ear = listen(right[1].control)
        right[1].data.send(b"x" * 1000)
        while "reject" not in str(await ear.messages.get()):
            pass
        await right[0].close()
        assert isinstance(await pairing, RemoteProtocolError)


@pytest.mark.parametrize("eager", [True, False])
async def test_data_that_overtakes_a_proof_waits_where_the_receiver_has_said_that_it_takes_it(
    eager: bool,
) -> None:
    async with connected() as (left, right):
        theirs = begin_receiving(ROOM, None, known=lemon_otter, eager=eager)
        receiving = asyncio.create_task(owned(right, theirs.run(*right)))
        await asyncio.sleep(0)
        left[1].data.send(b"of the transfer")
        if not eager:
            assert isinstance(await receiving, RemoteProtocolError)
            return
        paired = await send(left)
        assert EAGER in paired.features
        assert await receiving == paired
        assert await listen(right[1].data).messages.get() == b"of the transfer"


async def test_only_who_takes_whatever_is_offered_gets_some_of_it_unasked() -> None:
    async with connected() as (left, right):
        paired, _ = await asyncio.gather(send(left), receive(right, known=lemon_otter))
        assert EAGER not in paired.features


async def test_a_connection_that_closes_ends_it() -> None:
    async with connected() as (left, right):
        pairing = asyncio.create_task(owned(left, send(left)))
        await right[0].close()
        assert isinstance(await pairing, PeerUnreachable)


async def test_a_sender_that_is_stopped_says_so_while_the_receiver_thinks() -> None:
    asked = asyncio.Event()

    async def ask(_: WordsWanted) -> str:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with connected() as (left, right):
        sending = asyncio.create_task(send(left))
        receiving = asyncio.create_task(receive(right, ask=ask))
        await asked.wait()
        sending.cancel()
        with pytest.raises(SenderLeft):
            await receiving
        await right[0].close()
        with pytest.raises(asyncio.CancelledError):
            await sending


async def test_a_question_that_fails_ends_both_at_once_with_what_failed() -> None:
    async def ask(_: WordsWanted) -> str:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    async with connected() as (left, right), asyncio.timeout(15):
        theirs, ours = await asyncio.gather(owned(left, send(left)), owned(right, receive(right, ask=ask)))
    assert isinstance(ours, SystemFailure)
    assert isinstance(theirs, FlyxError)
    assert not isinstance(theirs, PairingTimedOut)


async def test_an_exchange_that_fails_ends_both_at_once_with_what_failed() -> None:
    drawn = 0

    def entropy(size: int) -> bytes:
        nonlocal drawn
        drawn += 1
        if drawn > 4:
            raise ZeroDivisionError("when there has to be another share")
        return bytes([drawn] * size)

    async with connected() as (left, right), asyncio.timeout(15):
        exchange = SenderExchange(
            *(ROOM, Greeting("test"), CODE, Tries(), {SESSION.id: SESSION}), entropy=entropy
        )
        ours, theirs = await asyncio.gather(
            owned(left, Pairing(exchange).run(*left)),
            owned(right, receive(right, SESSION, lemon_otter)),
        )
    assert isinstance(ours, LocalProtocolError)
    assert isinstance(theirs, FlyxError)
    assert not isinstance(theirs, PairingTimedOut)
