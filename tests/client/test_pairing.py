"""Pairing over real connections on this machine: what it is bound to, whose the channels are afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

import pytest

from flyx.client.pairing import AskWords, Pairing, PairingGate
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
from flyx.pairing.keys import PairingSession, Role
from flyx.pairing.tries import Tries
from flyx.rtc.peer import Channels, PeerConnection
from tests.rtc.test_peer import LABELS, listen

ROOM = "K7M2QX"
CODE = Code("words", 2, "lemon-otter")
SESSION = PairingSession("5e" * 16, b"k" * 32)


End = tuple[PeerConnection, Channels]


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[End, End]]:
    """The sender's connection and the receiver's, with their channels."""
    ends = [PeerConnection(LABELS, [], lambda _: None) for _ in range(2)]
    try:
        await ends[0].accept_answer(await ends[1].answer(await ends[0].offer()))
        channels = [await end.connected() for end in ends]
        yield (ends[0], channels[0]), (ends[1], channels[1])
    finally:
        for end in ends:
            await end.close()


async def lemon_otter(_: WordsWanted) -> str:
    return "lemon-otter"


async def lemon_apple(_: WordsWanted) -> str:
    return "lemon-apple"


async def test_both_ends_see_the_same_certificates() -> None:
    async with connected() as (left, right):
        bindings = [
            Pairing(*end).binding(ROOM, role) for end, role in ((left, Role.SENDER), (right, Role.RECEIVER))
        ]
        assert bindings[0] == bindings[1]
        fingerprints = set(bindings[0].fingerprints.values())
        assert len(fingerprints) == 2
        assert {len(fingerprint) for fingerprint in fingerprints} == {32}
        # Those of the descriptions, since nobody is in between here.
        for pc in (left[0], right[0]):
            ours = pc.fingerprints()[0].hex(":").upper()
            assert ours in pc._pc.localDescription.sdp


async def test_two_ends_pair_and_leave_the_channels_to_the_transfer() -> None:
    async with connected() as (left, right):
        sending = asyncio.create_task(PairingGate(ROOM, CODE).pair(Pairing(*left)))
        receiving = asyncio.create_task(Pairing(*right).receive(ROOM, None, lemon_otter, has_words=True))
        ours = await sending
        # At once, before the receiver has had its turn of the loop.
        left[1].control.send("first")
        left[1].control.send("second")
        theirs = await receiving
        assert ours == theirs
        assert isinstance(ours, Paired)
        ear = listen(right[1].control)
        assert [await ear.messages.get(), await ear.messages.get()] == ["first", "second"]


async def test_a_session_replaces_the_words_on_the_next_connection() -> None:
    gate = PairingGate(ROOM, CODE)
    session = None
    for ask in (lemon_otter, lemon_apple):
        async with connected() as (left, right):
            paired, _ = await asyncio.gather(
                Pairing(*right).receive(ROOM, session, ask, has_words=True), gate.pair(Pairing(*left))
            )
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
    left: End, right: End, ask: AskWords = lemon_otter, gate: PairingGate | None = None
) -> tuple[object, object]:
    """What the sender's end and the receiver's come to."""
    sending = owned(left, (gate or PairingGate(ROOM, CODE)).pair(Pairing(*left)))
    receiving = owned(right, Pairing(*right).receive(ROOM, None, ask, has_words=True))
    return await asyncio.gather(sending, receiving)


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


async def test_a_person_without_words_ends_it_for_both() -> None:
    async def ask(_: WordsWanted) -> str:
        raise InputError(reason="no words")

    async with connected() as (left, right):
        sender, receiver = await outcomes(left, right, ask)
        assert isinstance(receiver, InputError)
        assert isinstance(sender, PairingFailed)
        assert "an incomplete code" in str(sender)


async def test_data_before_pairing_ends_it() -> None:
    async with connected() as (left, right):
        pairing = asyncio.create_task(owned(left, PairingGate(ROOM, CODE).pair(Pairing(*left))))
        ear = listen(right[1].control)
        right[1].data.send(b"x" * 1000)
        while "reject" not in str(await ear.messages.get()):
            pass
        await right[0].close()
        assert isinstance(await pairing, RemoteProtocolError)


async def test_a_connection_that_closes_ends_it() -> None:
    async with connected() as (left, right):
        pairing = asyncio.create_task(owned(left, PairingGate(ROOM, CODE).pair(Pairing(*left))))
        await right[0].close()
        assert isinstance(await pairing, PeerUnreachable)


async def test_a_sender_that_is_stopped_says_so_while_the_receiver_thinks() -> None:
    asked = asyncio.Event()

    async def ask(_: WordsWanted) -> str:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with connected() as (left, right):
        sending = asyncio.create_task(PairingGate(ROOM, CODE).pair(Pairing(*left)))
        receiving = asyncio.create_task(Pairing(*right).receive(ROOM, None, ask, has_words=False))
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
        theirs, ours = await outcomes(left, right, ask)
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
        pairing = Pairing(*left)
        binding = pairing.binding(ROOM, Role.SENDER)
        exchange = SenderExchange(
            *(binding, Greeting("test"), CODE, Tries(), {SESSION.id: SESSION}),
            entropy=entropy,
            now=time.monotonic(),
        )
        ours, theirs = await asyncio.gather(
            owned(left, pairing.run(exchange, None)),
            owned(right, Pairing(*right).receive(ROOM, SESSION, lemon_otter, has_words=True)),
        )
    assert isinstance(ours, LocalProtocolError)
    assert isinstance(theirs, FlyxError)
    assert not isinstance(theirs, PairingTimedOut)
