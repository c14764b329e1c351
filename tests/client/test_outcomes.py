"""Only a confirmed digest is success: all else leaves a receiver unserved, and says why.

Real servers and connections; what goes wrong is put in where the parts are joined.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import re
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flyx.client import events
from flyx.client.listing import Lists
from flyx.client.pairing import PairingGate
from flyx.client.receive import ReceiveOptions, receive
from flyx.client.send import SendOptions, SendSession, send
from flyx.client.signaling import Interrupted, Restored, Signaling
from flyx.errors import (
    FlyxError,
    LocalProtocolError,
    PeerUnreachable,
    RemoteProtocolError,
    StorageError,
    SystemFailure,
)
from flyx.pairing.exchange import Code
from flyx.rtc.description import judge
from flyx.rtc.peer import PeerConnection
from flyx.server.app import Server
from flyx.signaling.messages import Answer, AnswerData, Disconnect, Join, Message, Offer, OfferData, Role
from flyx.storage.writer import ExistingPolicy
from tests.client.test_send import CODE, Told, sending
from tests.server.peers import local, until

WORDS = ("lemon", "otter")


def receive_options(url: str, room_id: str, directory: Path) -> ReceiveOptions:
    return ReceiveOptions(url, room_id, WORDS, None, directory, ExistingPolicy.REFUSE, None)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server(local(stun_urls=())) as running:
        yield running


class Faulty(Told):
    """What a sender tells, where telling of an event fails the first time."""

    def __init__(self, kind: type[events.Event], error: BaseException) -> None:
        super().__init__()
        self._kind = kind
        self._error: BaseException | None = error

    def take(self, event: events.Event) -> None:
        if isinstance(event, self._kind) and self._error:
            error, self._error = self._error, None
            raise error
        self.queue.put_nowait(event)


@pytest.mark.parametrize("kind", [events.PeerPaired, events.FileFinished])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AssertionError("no way"), LocalProtocolError),
        (KeyError("missing"), LocalProtocolError),
        (RecursionError("deep"), LocalProtocolError),
        (TimeoutError("late"), SystemFailure),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), SystemFailure),
        (MemoryError(), SystemFailure),
        (asyncio.CancelledError(), FlyxError),
        (PeerUnreachable(reason="of the test"), PeerUnreachable),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_whatever_ends_the_task_of_a_receiver_leaves_it_unserved_and_the_sender_waiting(
    server: Server,
    tmp_path: Path,
    kind: type[events.Event],
    error: BaseException,
    told: type[FlyxError],
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    faulty = Faulty(kind, error)
    task = asyncio.create_task(send(SendOptions(server.url, [tmp_path / "file"], CODE), faulty.take))
    try:
        room_id = (await faulty.hear(events.RoomOpened)).room_id
        first = asyncio.create_task(
            receive(receive_options(server.url, room_id, tmp_path / "first"), lambda _: None)
        )
        ended = await faulty.hear(events.PeerEnded)
        assert ended.peer == 1
        assert isinstance(ended.error, told)
        if isinstance(error, asyncio.CancelledError):
            # A task that is cancelled there ends without a word.
            first.cancel()
        # Else it is told, and waits for no other connection.
        async with asyncio.timeout(20):
            await asyncio.gather(first, return_exceptions=True)
        assert not task.done()
        await receive(receive_options(server.url, room_id, tmp_path / "second"), lambda _: None)
        assert await faulty.hear(events.PeerEnded) == events.PeerEnded(2, None)
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (tmp_path / "second" / "file").read_bytes() == b"content"


async def test_what_fails_after_the_confirmation_takes_nothing_back(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    faulty = Faulty(events.TransferDone, KeyError("missing"))
    task = asyncio.create_task(send(SendOptions(server.url, [tmp_path / "file"], CODE), faulty.take))
    room_id = (await faulty.hear(events.RoomOpened)).room_id
    await receive(receive_options(server.url, room_id, tmp_path / "in"), lambda _: None)
    assert await faulty.hear(events.PeerEnded) == events.PeerEnded(1, None)
    await task
    assert (tmp_path / "in" / "file").read_bytes() == b"content"


@pytest.mark.parametrize("kind", [events.PeerPaired, events.PeerConnected, events.Progress])
@pytest.mark.parametrize(
    "error", [BrokenPipeError(), StorageError(action="write to", path="standard output", reason="full")]
)
async def test_a_sender_that_can_tell_nothing_more_ends_and_tells_its_receiver(
    server: Server, tmp_path: Path, kind: type[events.Event], error: Exception
) -> None:
    (tmp_path / "file").write_bytes(b"content" * 1_000_000)
    faulty = Faulty(kind, error)
    task = asyncio.create_task(send(SendOptions(server.url, [tmp_path / "file"], CODE), faulty.take))
    room_id = (await faulty.hear(events.RoomOpened)).room_id
    receiving = asyncio.create_task(
        receive(receive_options(server.url, room_id, tmp_path / "in"), lambda _: None)
    )
    async with asyncio.timeout(20):
        with pytest.raises(type(error)):
            await task
        with pytest.raises(FlyxError):
            await receiving


class Deaf(Signaling):
    """Signaling whose reading fails with something that nobody thought of."""

    async def receive(self) -> Message | Interrupted | Restored:
        raise ZeroDivisionError("in signaling")


async def test_a_sender_that_hears_no_more_of_its_room_says_so_and_does_not_wait(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with ThreadPoolExecutor(1) as disk:
        async with Deaf(server.url, None, Role.SENDER) as signaling:
            options = SendOptions(server.url, [tmp_path / "file"], CODE)
            lists = Lists(options.paths, options.links, disk)
            session = SendSession(options, lists, signaling, disk, lambda _: None)
            with pytest.raises(LocalProtocolError, match="ZeroDivisionError"):
                await asyncio.wait_for(session.run(), 20)


@asynccontextmanager
async def answering(url: str, room_id: str, change: str) -> AsyncIterator[None]:
    """A receiver that answers the first offer with a size of messages that it has made up."""
    async with Signaling(url, room_id, Role.RECEIVER) as signaling:
        while not isinstance(offer := await signaling.receive(), Offer):
            pass
        connection = PeerConnection(("control", "data"), [], lambda _: None)
        try:
            answer = await connection.answer(offer.data.sdp)
            changed = re.sub(r"a=max-message-size:\d+", change, answer)
            assert changed != answer
            signaling.post(Answer(data=AnswerData(sdp=changed)))
            yield
        finally:
            await connection.close()


@pytest.mark.parametrize("size", ["1", "60", "600", "-1", "x", "16383"])
async def test_an_answer_with_messages_too_small_is_refused_and_the_next_receiver_served(
    server: Server, tmp_path: Path, size: str
) -> None:
    async with sending(server.url, tmp_path) as (task, told, room_id):
        async with answering(server.url, room_id, f"a=max-message-size:{size}"):
            ended = await told.hear(events.PeerEnded)
            assert isinstance(ended.error, RemoteProtocolError)
            assert not task.done()
        await receive(receive_options(server.url, room_id, tmp_path / "in"), lambda _: None)
        await task


def connections() -> int:
    """How many connections of ours there are, in use or not."""
    gc.collect()
    return sum(isinstance(each, PeerConnection) for each in gc.get_objects())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
async def test_offers_without_end_leave_one_connection(server: Server, tmp_path: Path) -> None:
    """A lying server, or its sender, makes up one offer after another: each takes the place of the last."""
    offering = PeerConnection(("control", "data"), [], lambda _: None)
    others = connections()
    try:
        sdp = await offering.offer()
        async with Signaling(server.url, None, Role.SENDER) as sender:
            told = Told()
            options = receive_options(server.url, sender.joined.room_id, tmp_path)
            receiving = asyncio.create_task(receive(options, told.queue.put_nowait))
            while not isinstance(await sender.receive(), Join):
                pass

            async def answers(count: int) -> None:
                for _ in range(count):
                    sender.post(Offer(data=OfferData(sdp=sdp)))
                    while not isinstance(await sender.receive(), Answer):
                        pass

            try:
                await answers(1)
                before = descriptors()
                await answers(20)
                most = descriptors()
                for _ in range(100):
                    sender.post(Offer(data=OfferData(sdp=sdp)))
                await answers(1)
                await until(lambda: descriptors() <= before + 2)
                assert most <= before + 2
                assert connections() <= others + 2
            finally:
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)
    finally:
        await offering.close()


async def test_who_offers_again_and_again_has_one_guess_without_a_connection(
    server: Server, tmp_path: Path
) -> None:
    offering = PeerConnection(("control", "data"), [], lambda _: None)
    try:
        async with Signaling(server.url, None, Role.SENDER) as sender:
            room_id = sender.joined.room_id
            guess = PairingGate(room_id, Code("words", 2, "lemon-apple")).begin().first_messages()
            sdp = await offering.offer(guess)
            options = receive_options(server.url, room_id, tmp_path)
            receiving = asyncio.create_task(receive(options, Told().queue.put_nowait))
            proofs = []
            for _ in range(4):
                sender.post(Offer(data=OfferData(sdp=sdp)))
                while not isinstance(answer := await sender.receive(), Answer):
                    pass
                first = judge(answer.data.sdp, "answer", min_message_size=0).told.messages
                proofs.append([json.loads(message)["type"] for message in first])
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
    finally:
        await offering.close()
    assert proofs == [["hello", "pake", "confirm"], [], [], []]


async def test_a_receiver_that_stays_silent_ends_as_unserved(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyx.rtc.peer.CONNECT_TIMEOUT", 0.2)
    async with sending(server.url, tmp_path) as (task, told, room_id):
        async with Signaling(server.url, room_id, Role.RECEIVER) as silent:
            ended = await told.hear(events.PeerEnded)
            assert isinstance(ended.error, PeerUnreachable)
            assert not task.done()
            assert not isinstance(await silent.receive(), Disconnect)
