"""Captures packets of another stack for tests/sctp/data, from a real session with it.

    python -m e2e.peers.capture STACK VERSION

STACK is one of stacks.py, VERSION what the file is to tell of it. Channels of all kinds are opened,
used and closed while packets get lost, then both sides idle until the peer has tested the path. Of the
packets recorded, those stay that set the association up, and a few of each kind after that.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from e2e.peers.agent import Plan
from e2e.peers.lossy import LOSS_VARIABLE
from e2e.peers.session import connect, open_channels, started
from e2e.peers.stacks import OURS, STACKS
from flyx.errors import RemoteProtocolError
from flyx.rtc.trace import VARIABLE as TRACE_VARIABLE
from flyx.rtc.trace import Direction
from flyx.sctp.chunks import ChunkType
from flyx.sctp.packet import split_chunks_untrusted
from tests.pcapng import read

DATA = Path(__file__).resolve().parents[2] / "tests" / "sctp" / "data"

LOSS = 0.15

IDLE = 45.0
"""Seconds; HB.Interval is 30 (RFC 9260 §16)."""

OF_A_KIND = 2
"""Packets kept with the same chunks, flags and direction."""

MESSAGES: Plan = [("text", 0, 1), ("binary", 0, 1), ("text", 5, 6), ("binary", 100, 12), ("binary", 3000, 3)]


async def session(name: str, path: Path) -> None:
    """Have both sides do everything once."""
    environment = {TRACE_VARIABLE: str(path), LOSS_VARIABLE: str(LOSS)}
    ours_recorded = dataclasses.replace(OURS, environment=environment)
    async with started(ours_recorded, "flyx") as ours, started(STACKS[name](), name) as theirs:
        await connect(theirs, ours)
        labels = await open_channels(ours, theirs)
        for label in labels:
            for peer in (ours, theirs):
                peer.tell("send", label=label, messages=MESSAGES, close=False)
                await peer.event("sent", label=label)
        await asyncio.sleep(IDLE)
        for label in labels:
            theirs.tell("close", label=label)
        for label in labels:
            for peer in (ours, theirs):
                await peer.event("closed", label=label)
        await theirs.quit()
        await ours.event("closed", label="first")


def selected(path: Path) -> list[tuple[str, str]]:
    """Return direction and hexadecimal of the packets worth keeping, in order."""
    seen: Counter[object] = Counter()
    packets: list[tuple[str, str]] = []
    established = False
    for packet in read(path):
        direction = "<" if packet.direction is Direction.INBOUND else ">"
        text = packet.data.hex()
        try:
            chunks = [
                (kind, flags, (any(value[8:10]), any(value[10:12])) if kind == ChunkType.SACK else None)
                for kind, flags, value in split_chunks_untrusted(packet.data)
            ]
        except RemoteProtocolError as error:
            raise SystemExit(f"{text}: {error}") from error
        kinds = {kind for kind, _, _ in chunks}
        # Our own packets matter only as far as the set-up goes.
        if not established:
            packets.append((direction, text))
        elif direction == "<":
            sign = tuple(chunks) if len(chunks) < 3 else (len(chunks) > 2, frozenset(kinds))
            seen[sign] += 1
            if seen[sign] <= OF_A_KIND:
                packets.append((direction, text))
        established |= ChunkType.COOKIE_ACK in kinds
    return packets


def write(name: str, version: str, path: Path) -> None:
    """Make a file of what was recorded."""
    document = {"stack": name, "version": version, "packets": selected(path)}
    DATA.mkdir(exist_ok=True)
    lines = json.dumps(document, indent=1).replace("\n   ", " ").replace('"\n  ]', '"]')
    (DATA / f"{name}.json").write_text(lines + "\n")


async def main() -> None:
    name, version = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "packets")
        await session(name, path)
        write(name, version, path)


if __name__ == "__main__":
    asyncio.run(main())
