"""How many round trips a transfer takes, counted on a virtual clock over a long path in memory.

All of it is real but the sockets, the disks and the signaling: ICE, DTLS, SCTP, pairing and transfer, as the
programs run them. Figures are round trips since the sender's offer has left. One that is added fails here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, cast

import pytest
from msgspec.structs import replace

from flyx.client import events
from flyx.client.driver import DriverContext
from flyx.client.pairing import PairingGate, begin_receiving
from flyx.client.receiving import ReceiveDriver
from flyx.client.serving import SendDriver
from flyx.pairing.exchange import Code
from flyx.rtc import peer
from flyx.rtc.description import Description, Told
from flyx.rtc.peer import PeerConnection
from flyx.rtc.seam import connection as seam
from flyx.transfer.digests import algorithms_of
from flyx.transfer.messages import EAGER
from flyx.transfer.receiver import Receiver
from flyx.transfer.sender import Sender
from tests.rtc.wires import Address, JumpingLoop, Wires
from tests.simulator import MemoryDestination, MemorySource, manifest_of

ROUND_TRIP = 0.2
ROOM, WORDS = "K7M2QX", "lemon-otter"
SLACK = 0.15
"""Of a round trip: timers of milliseconds, such as those of delayed SACKs."""


class Inline(Executor):
    """Disks that take no time."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*arguments, **options))
        except BaseException as error:
            future.set_exception(error)
        return future


class Source(MemorySource):
    """A source in memory, as a reader."""

    def close(self) -> None:
        pass


class Memory(MemoryDestination):
    """A destination in memory, as a sink."""

    keeps = outlives_connection = False

    def abandon(self) -> None:
        pass


class Ends:
    """A sender and a receiver, and what happened when, in round trips."""

    def __init__(self, wires: Wires, content: bytes, *, eager: bool) -> None:
        self._wires = wires
        self._ports = iter(range(1, 100))
        self._content = content
        self._eager = eager
        self.times: dict[str, float] = {}
        self.sender = PeerConnection(("control", "data"), [], lambda _: None, addresses=["10.0.0.1"])
        self.receiver = PeerConnection(("control", "data"), [], lambda _: None, addresses=["10.0.0.2"])

    async def open_port(self, loop: object, factory: Callable[[], Any], address: Address) -> None:
        """Take the place of the sockets."""
        self._wires.open(factory(), (address[0], next(self._ports)))

    def note(self, what: str) -> None:
        """Something happens, for the first time if not before."""
        self.times.setdefault(what, asyncio.get_running_loop().time() / ROUND_TRIP)

    async def run(self) -> None:
        try:
            await asyncio.gather(self._send(), self._receive_offer())
        finally:
            await self.sender.close()
            await self.receiver.close()

    async def _send(self) -> None:
        self._offer = asyncio.get_running_loop().create_future()
        self._answer = asyncio.get_running_loop().create_future()
        gate = PairingGate(ROOM, Code("words", 2, WORDS))
        pairing = gate.begin()
        offer = await self.sender.offer(pairing.first_messages())
        asyncio.get_running_loop().call_later(ROUND_TRIP / 2, self._offer.set_result, offer)
        await self.sender.accept_answer(await self._answer)
        channels = await self.sender.connected()
        self.note("sender connected")
        paired = await gate.pair(pairing, self.sender, channels)
        self.note("sender paired")
        files = {"file": self._content}
        machine = Sender(
            manifest_of(files),
            max_message_size=channels.max_message_size,
            now=time.monotonic(),
            eager=algorithms_of(paired.features)[0] if EAGER in paired.features else None,
        )
        machine.release()
        context = DriverContext(self.sender, channels, Inline(), 1, lambda _: None)
        await SendDriver(machine, context, cast(Any, Source(machine.manifest, files))).run()
        self.note("sender done")

    async def _receive_offer(self) -> None:
        await asyncio.sleep(0)
        pairing = begin_receiving(ROOM, None, known=lambda _: WORDS, eager=self._eager)
        answer = await self.receiver.answer(await self._offer, pairing.reply)
        asyncio.get_running_loop().call_later(ROUND_TRIP / 2, self._answer.set_result, answer)
        channels = await self.receiver.connected()
        self.note("receiver connected")
        paired = await pairing.run(self.receiver, channels)
        self.note("receiver paired")
        machine = Receiver(
            ask=False,
            now=time.monotonic(),
            algorithms=algorithms_of(paired.features),
            eager=EAGER in paired.features,
        )
        context = DriverContext(self.receiver, channels, Inline(), 1, self._on_event)
        await ReceiveDriver(machine, context, lambda _: cast(Any, Memory(set())), None).run()
        self.note("receiver done")
        # As programs do: the sender waits for that.
        await self.receiver.close()

    def _on_event(self, event: events.Event) -> None:
        match event:
            case events.Progress(bytes=size) if size:
                self.note("first verified byte")
            case events.FileFinished():
                self.note("file verified")


def count(size: int, monkeypatch: pytest.MonkeyPatch, *, eager: bool = True) -> dict[str, float]:
    """Transfer a file of this size, and return what happened when."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        loop = cast(JumpingLoop, runner.get_loop())
        monkeypatch.setattr(time, "monotonic", loop.time)

        async def scenario() -> dict[str, float]:
            content = bytes(range(250)) * (size // 250)
            ends = Ends(Wires(lambda *_: ROUND_TRIP / 2), content, eager=eager)
            monkeypatch.setattr(seam, "create_udp_endpoint", ends.open_port)
            await ends.run()
            return ends.times

        return runner.run(scenario())


def assert_counts(times: dict[str, float], expected: dict[str, float]) -> None:
    assert {name: round(times[name] * 2) / 2 for name in expected} == expected
    assert all(abs(times[name] - trips) < SLACK for name, trips in expected.items()), times


@pytest.mark.parametrize(("eager", "consent"), [(True, 0), (False, 1)])
def test_a_small_file_is_verified_three_round_trips_after_the_answer_and_one_more_is_consent(
    eager: bool, consent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {
        # Offer, check, its answer and ClientHello, ServerHello, Finished.
        "sender connected": 3.0,
        "receiver connected": 3.5,
        # The sender's share was in the offer, the receiver's share and proof in the answer.
        "sender paired": 3.0,
        "receiver paired": 3.5,
        # The manifest came with the sender's proof, and that with its Finished. The file came with them, if
        # the receiver had said that it takes what is offered.
        "file verified": 3.5 + consent,
        "receiver done": 4.5 + consent,
        # The receiver has closed.
        "sender done": 5.0 + consent,
    }
    assert_counts(count(1000, monkeypatch, eager=eager), expected)


def test_1_mb_is_verified_within_four_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The window doubles each time, from that of a path of this length; nothing else limits it."""
    times = count(1_000_000, monkeypatch)
    assert 6.5 < times["file verified"] < 7.5
    assert times["receiver done"] < times["file verified"] + 1 + SLACK
    assert times["sender done"] < times["receiver done"] + 0.5 + SLACK


@pytest.mark.parametrize("older", ["offer", "answer"])
@pytest.mark.parametrize("echoes", [False, True])
def test_a_peer_that_knows_nothing_of_it_connects_in_turn(
    older: str, echoes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As versions before: with nomination, INIT, COOKIE ECHO and DATA_CHANNEL_OPEN.

    Whoever gives this description; and libdatachannel answers with what it does not know of our offer.
    """
    extend, judge = peer.extend, peer.judge
    offered: list[str] = []

    def say(sdp: str, kind: str, told: Told) -> str:
        if kind == older:
            return sdp + "".join(offered) if echoes else sdp
        extended = extend(sdp, kind, told)
        offered.append(extended.removeprefix(sdp))
        return extended

    def hear(sdp: str, kind: str, *, min_message_size: int) -> Description:
        judged = judge(sdp, kind, min_message_size=min_message_size)
        return judged if kind == older else replace(judged, told=Told())

    monkeypatch.setattr(peer, "extend", say)
    monkeypatch.setattr(peer, "judge", hear)
    times = count(1000, monkeypatch)
    assert_counts(times, {"receiver connected": 6.5, "receiver done": 9.5})
