"""The way to the other side: a connection to a waiting sender, as `flyx receive` makes it, and nothing more.

The sender needs to do nothing but wait, in whatever release of flyx it runs. It is asked for no files and
given no words: no try is used up, no receiver counted, and its code stays good.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing, suppress

from flyx.client.doctor.finding import Finding, FindingState, milliseconds
from flyx.client.link import Link
from flyx.client.local import find_rooms
from flyx.client.signaling import Signaling
from flyx.errors import FlyxError, PeerUnreachable
from flyx.rtc.attempts import Attempts, PairState
from flyx.rtc.channel import Channels
from flyx.signaling.messages import Disconnect, IceCandidate, Offer

OFFER_TIMEOUT = 10.0
"""Seconds for the sender to offer a connection: it may be connecting to others."""

SETTLE_TIMEOUT = 2.0
"""Seconds for the other pairs once one has worked."""

PART_TIMEOUT = 1.0
"""Seconds for the sender to say its last word once we have left the room."""

FAREWELL = "it only tried the connection (flyx doctor)"

_NO_CONNECTION = "a transfer between the two would fail as well"


async def check_peer(server: str, room_id: str, *, local: bool = False) -> Sequence[Finding]:
    """Connect to the sender in a room and leave; return the findings of peer and of each kind of pair.

    Args:
        server: where the room is.
        room_id: normalised.
        local: look for it on the local network as well.

    Raises:
        SignalingError: there is no such room, or no way to it.
    """
    async with AsyncExitStack() as links:
        # Closed first: the sender would take a connection that closes for one that is lost.
        async with aclosing(find_rooms(room_id, server, lambda _: None, local=local, hold=0.0)) as rooms:
            async for room in rooms:
                room.signaling.farewell = FAREWELL
                link = Link(room.signaling, None)
                links.push_async_callback(link.close)
                return await _visit(room.signaling, link, links)
    raise AssertionError("without a room there is an error")


async def _visit(signaling: Signaling, link: Link, links: AsyncExitStack) -> Sequence[Finding]:
    begun = time.monotonic()
    listening = asyncio.create_task(_listen(signaling, link))
    try:
        links.push_async_callback(_until_parted, await _connect(link))
    except FlyxError as error:
        failed = Finding("peer", FindingState.FAILING, str(error), _NO_CONNECTION, error.hint or "")
        return [failed, *_pairs(link.connection.attempts(), usable=False)]
    else:
        seconds = time.monotonic() - begun
        await _settle(link)
        return [_connected(link, seconds), *_pairs(link.connection.attempts(), usable=True)]
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def _until_parted(channels: Channels) -> None:
    """Wait for the last message of the sender, to whom the server says that we have left."""
    ear = _Ear()
    channels.control.listen(ear)
    # What came before was the beginning of pairing.
    ear.heard.clear()
    # One that has lost the server says nothing.
    with suppress(TimeoutError):
        async with asyncio.timeout(0.0 if channels.control.closed else PART_TIMEOUT):
            await ear.heard.wait()


class _Ear:
    """Waits for a message, or the end of a channel; a flyx.rtc.peer.ChannelListener."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()

    def message_received(self, message: bytes | str) -> None:
        self.heard.set()

    def channel_writable(self) -> None:
        """We send nothing."""

    def channel_closed(self) -> None:
        self.heard.set()


async def _listen(signaling: Signaling, link: Link) -> None:
    """Pass on what the sender says about the connection."""
    try:
        while True:
            match await signaling.receive():
                case Offer() | IceCandidate() as message:
                    link.take(message)
                case Disconnect(data=data) if not data.away:
                    raise PeerUnreachable(reason="the sender left")
                case _:
                    pass
    except FlyxError as error:
        link.give_up(error)


async def _connect(link: Link) -> Channels:
    try:
        async with asyncio.timeout(OFFER_TIMEOUT):
            await link.offered.wait()
    except TimeoutError:
        raise PeerUnreachable(reason=f"the sender has offered none within {OFFER_TIMEOUT:g} s") from None
    return await link.connection.connected()


async def _settle(link: Link) -> None:
    """Let the pairs that are being checked come to their ends."""
    end = time.monotonic() + SETTLE_TIMEOUT
    while time.monotonic() < end:
        if not any(pair.state is PairState.IN_PROGRESS for pair in link.connection.attempts().pairs):
            return
        await asyncio.sleep(0.1)


def _connected(link: Link, seconds: float) -> Finding:
    path = link.connection.path()
    assert path is not None
    figures = {"local": path.local, "remote": path.remote, "seconds": round(seconds, 6)}
    took = milliseconds(seconds)
    if path.tunnelled or "relay" in (path.local, path.remote):
        way = "the signaling server" if path.tunnelled else "a relay"
        words = f"connected through {way} in {took} ({path.local} to {path.remote})"
        meaning = "transfers work, as fast as that lets them"
        return Finding(
            "peer", FindingState.WARNING, words, meaning, "see the NAT of both sides for why", figures
        )
    words = f"connected directly in {took} ({path.local} to {path.remote})"
    return Finding("peer", FindingState.OK, words, "transfers take the shortest way", figures=figures)


_RESULTS = {
    PairState.FROZEN: "not tried",
    PairState.WAITING: "not tried",
    PairState.IN_PROGRESS: "no answer yet",
    PairState.SUCCEEDED: "works",
    PairState.FAILED: "no answer",
}


def _pairs(attempts: Attempts, *, usable: bool) -> list[Finding]:
    """Return a finding for each kind of pair and result; addresses are for --debug."""
    kinds = Counter(
        (p.local_type, p.remote_type, None if p.tunnelled else p.family, _RESULTS[p.state])
        for p in attempts.pairs
    )
    findings = []
    for (local, remote, family, result), count in kinds.items():
        times = f" ({count} pairs)" if count > 1 else ""
        state = FindingState.OK if result == "works" or usable else FindingState.WARNING
        figures = {"local": local, "remote": remote, "family": family, "result": result, "count": count}
        way = f"{local} to {remote}, IPv{family}" if family else "through the signaling server"
        words = f"{way}: {result}{times}"
        findings.append(Finding("pair", state, words, figures=figures))
    return findings
