"""Sessions of two peers, each in a process of its own, that are told what to do; see agent.py."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from e2e.peers.agent import LINE_LIMIT
from e2e.peers.stacks import MAX_MESSAGE_SIZE, Stack

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 60.0
"""Seconds for anything but bulk."""

POOL = random.Random("interop").randbytes(MAX_MESSAGE_SIZE + 65537)


class Peer:
    """A running peer."""

    def __init__(self, stack: Stack, name: str, process: asyncio.subprocess.Process) -> None:
        self.stack, self.name = stack, name
        self._process = process
        self._events: list[dict[str, Any]] = []
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            async with self._news:
                self._events.append(json.loads(line))
                self._news.notify_all()
        async with self._news:
            self._events.append({"event": "end"})
            self._news.notify_all()

    def tell(self, command: str, **fields: Any) -> None:
        """Give it a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **fields}).encode() + b"\n")

    async def event(self, name: str, within: float = DEADLINE, **fields: Any) -> dict[str, Any]:
        """Wait for an event with these fields, and take it."""
        wanted = {"event": name, **fields}
        try:
            async with asyncio.timeout(within), self._news:
                while True:
                    for event in self._events:
                        bad = {"error", "end"} if name == "closed" else {"error", "channel-error", "end"}
                        assert event["event"] not in bad, f"{self.name}: {event}, waiting for {wanted}"
                        if wanted.items() <= event.items():
                            self._events.remove(event)
                            return event
                    await self._news.wait()
        except TimeoutError:
            events = [str(event)[:200] for event in self._events]
            raise AssertionError(f"{self.name}: no {wanted}; there are {events}") from None

    async def description(self) -> str:
        """Wait for its SDP."""
        return str((await self.event("description"))["sdp"])

    async def report(self, label: str) -> dict[str, Any]:
        """Ask what has come on a channel."""
        self.tell("report", label=label)
        return await self.event("report", label=label)

    async def quit(self) -> None:
        """Have it close its connection and end."""
        self.tell("quit")
        await asyncio.wait_for(self._process.wait(), DEADLINE)
        await self._reading

    async def kill(self) -> None:
        """End it if it runs."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        await self._reading


@contextlib.asynccontextmanager
async def started(stack: Stack, name: str) -> AsyncIterator[Peer]:
    """Start a peer; end it with the block."""
    process = await asyncio.create_subprocess_exec(
        *stack.command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, **stack.environment},
        limit=LINE_LIMIT,
    )
    peer = Peer(stack, name, process)
    try:
        peer.tell("pool", bytes=base64.b64encode(POOL).decode())
        yield peer
    finally:
        await peer.kill()


async def connect(offerer: Peer, answerer: Peer) -> None:
    """Connect the two by a channel `first` of the offerer."""
    offerer.tell("create", label="first", init={})
    offerer.tell("offer")
    answerer.tell("answer", sdp=await offerer.description())
    offerer.tell("accept", sdp=await answerer.description())
    await opened(offerer, answerer, "first")


async def opened(creator: Peer, other: Peer, label: str, init: dict[str, Any] | None = None) -> None:
    """Wait until a channel is open on both sides, and see that both know how it works."""
    expected = {"ordered": True, "maxRetransmits": None, "maxPacketLifeTime": None, "protocol": ""}
    expected |= init or {}
    for peer in (creator, other):
        event = await peer.event("open", label=label)
        if peer is creator or peer.stack.tells_parameters:
            assert {name: event[name] for name in expected} == expected, (peer.name, label)


def channels_of(creator: Peer) -> dict[str, dict[str, Any]]:
    """Return a channel of each kind for a side to open: labels, and how each of them works."""
    kinds: dict[str, dict[str, Any]] = {
        "ordered": {"ordered": True, "protocol": "bytes"},
        "unordered": {"ordered": False},
        "retransmits": {"ordered": False, "maxRetransmits": 0},
        "lifetime": {"ordered": True, "maxPacketLifeTime": creator.stack.lifetime},
    }
    return {f"{creator.name} {kind}": init for kind, init in kinds.items()}


async def open_channels(first: Peer, second: Peer) -> list[str]:
    """Open a channel of each kind from each side, all at once; return their labels."""
    for peer in (first, second):
        for label, init in channels_of(peer).items():
            peer.tell("create", label=label, init=init)
    for creator, other in ((first, second), (second, first)):
        for label, init in channels_of(creator).items():
            await opened(creator, other, label, init)
    return [*channels_of(first), *channels_of(second)]
