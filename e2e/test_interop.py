"""Our association with other WebRTC stacks, over real sockets, each side in a process of its own.

    pytest e2e/test_interop.py          every stack that is installed, both roles, a few MB each way
    pytest e2e/test_interop.py -m soak  200 MB each way and more

Each side is a program of e2e/peers, told what to do. All that arrives is compared with all that was sent, by
digests; see e2e/peers/agent.py.
"""

from __future__ import annotations

import asyncio
import atexit
import base64
import contextlib
import functools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from e2e.peers.agent import LINE_LIMIT, describe_message, make_messages
from e2e.processes import need
from flyx.rtc.sctp_transport import STOCK, STOCK_VARIABLE

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "e2e" / "peers"

GOPATH = Path("/usr/share/gocode")
"""Where Debian has Go packages."""

DEADLINE = 60.0
"""Seconds for anything but bulk."""

MAX_MESSAGE_SIZE = 262144

PROBED_SIZE = 1400
"""Bytes of an SCTP packet that fits Ethernet, and the buffers of all stacks: 1,460 for a datagram in pion."""

POOL = random.Random("interop").randbytes(MAX_MESSAGE_SIZE + 65537)

Plan = list[tuple[str, int, int]]
"""Kind, size (of a text: characters) and count of messages; see make_messages()."""

BOUNDARIES = [0, 1, 2, 3, 4, 5, 1023, 1100, 1130, 1140, 1150, 1160, 1171, 1172, 1173, 1200, 2345]
"""Sizes around those of padding and of the first fragment."""

LARGE = [16384, 65535, 65536, 65537, 131072, 262143, 262144]


def edges(largest: int) -> Plan:
    """Return one message of each size at least; many small ones at the end, which share packets."""
    plan: Plan = [("text", 0, 1), ("binary", 0, 1)]
    plan += [(kind, size, 1) for size in BOUNDARIES for kind in ("text", "binary")]
    for size in LARGE:
        if size <= largest:
            plan += [("binary", size, 1), ("text", size // 2, 1)]
    return [*plan, ("text", 0, 2), ("binary", 0, 2), ("binary", 1, 500), ("binary", 1200, 200)]


LOSSY: Plan = [("binary", 1000, 50), ("text", 3000, 20), ("binary", 30000, 20), ("binary", 0, 1)]

LOSSY_CHANNELS = {"retransmits", "lifetime"}


@dataclass(frozen=True)
class Stack:
    """A peer to talk to, and what it cannot do."""

    command: list[str]
    environment: dict[str, str]
    tells_parameters: bool = True
    """Whether it knows how a channel works that the other side has opened."""
    max_message_size: int = MAX_MESSAGE_SIZE
    """Bytes of the largest message that it sends and takes."""
    delivers_before_closing: bool = True
    """Whether the application gets what was acknowledged before the channel was closed by the other side."""
    lifetime: int = 500
    """Milliseconds after which it gives up a message of its channel `lifetime`."""


OURS = Stack([sys.executable, "-m", "e2e.peers.aiortc_peer"], {})


def aiortc() -> Stack:
    """Return stock aiortc."""
    return Stack(OURS.command, {STOCK_VARIABLE: STOCK})


DCSCTP_LIFETIME = 60_000
"""So long that no message expires before it is sent.

The SCTP of libwebrtc (dcsctp) stops for good, on all its channels, when the lifetime of a message ends after
some of its fragments were sent and acknowledged, and nothing else is in flight: neither the FORWARD TSN comes
nor anything else. Our SACKs acknowledge a whole burst at once, so it gets there often: in 11 of 12 runs that
sent 16 MB beside messages with lifetimes of 20 and 50 ms.
"""


def libwebrtc() -> Stack:
    """Return libwebrtc, what Chromium is made with, but of another version."""
    need("the PyPI package wrtc", find_spec("webrtc") is not None)
    command = [sys.executable, "-m", "e2e.peers.libwebrtc_peer"]
    return Stack(command, {}, lifetime=DCSCTP_LIFETIME)


def node_stack(program: str, **limits: Any) -> Stack:
    """Return a stack whose peer runs in Node."""
    node = shutil.which("node")
    need("node", node is not None, in_ci=False)
    need("`npm ci --prefix e2e/peers`", (PEERS / "node_modules").exists(), in_ci=False)
    return Stack([str(node), str(PEERS / program)], {}, **limits)


def libdatachannel() -> Stack:
    """Return libdatachannel, which has usrsctp.

    node-datachannel drops the messages that it has not given to JavaScript yet when the other side closes the
    channel, though SCTP has acknowledged all of them (its issue 375).
    """
    return node_stack("libdatachannel_peer.js", tells_parameters=False, delivers_before_closing=False)


def werift() -> Stack:
    """Return werift, all of which is TypeScript.

    It announces lossy channels as ordered in any case, and stops when many channels come and go at once.
    """
    return node_stack("werift_peer.js", tells_parameters=False, max_message_size=65536)


def wrtc() -> Stack:
    """Return libwebrtc in Node, by way of npm's @roamhq/wrtc.

    Of what comes before its program listens to a channel it loses the order, or all.
    """
    return node_stack("wrtc_peer.js")


def chromium() -> Stack:
    """Return Chromium."""
    need("the Debian package chromium", shutil.which("chromium") is not None)
    need("the PyPI package playwright", find_spec("playwright") is not None)
    command = [sys.executable, "-m", "e2e.peers.chromium_peer"]
    return Stack(command, {}, lifetime=DCSCTP_LIFETIME)


@functools.cache
def built_pion() -> Path:
    """Build the peer on pion from Debian's packages, once."""
    path = Path(tempfile.mkdtemp(prefix="flyx-pion-"), "src", "pion")
    atexit.register(shutil.rmtree, path.parent.parent, ignore_errors=True)
    # Where GOPATH has it, with a go.mod, Go finds the packages of version 3 without their modules.
    shutil.copytree(PEERS / "pion", path)
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": f"{path.parent.parent}:{GOPATH}"}
    subprocess.run(["go", "build", "-o", "pion"], cwd=path, env=environment, check=True)
    return path / "pion"


def pion() -> Stack:
    """Return pion, which takes no messages of more than 65,535 bytes."""
    need("the Debian package golang-go", shutil.which("go") is not None)
    source = GOPATH / "src/github.com/pion/webrtc"
    need("the Debian package golang-github-pion-webrtc.v3-dev", source.exists())
    return Stack([str(built_pion())], {}, max_message_size=65535)


STACKS = {stack.__name__: stack for stack in (aiortc, libwebrtc, libdatachannel, chromium, pion)}

SIMPLE_STACKS = {stack.__name__: stack for stack in (werift, wrtc)}
"""Those that are good for the channels of a transfer, not for all that there is."""


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


async def exchange(
    sender: Peer, receiver: Peer, label: str, plan: Plan, *, ordered: bool = True, within: float = DEADLINE
) -> float:
    """Send messages one way, reliably; return the rate in MB/s."""
    expected = [describe_message(message) for message in make_messages(POOL, plan)]
    before = len((await receiver.report(label))["messages"])
    receiver.tell("expect", label=label, count=before + len(expected))
    sender.tell("send", label=label, messages=plan, close=False)
    await receiver.event("received", within, label=label)
    await sender.event("sent", label=label)
    report = await receiver.report(label)
    messages = report["messages"][before:]
    if not ordered:
        messages.sort()
        expected.sort()
    assert messages == expected, (sender.name, label)
    return float(report["size"]) / 1e6 / float(report["seconds"] or 1)


async def send_and_close(sender: Peer, receiver: Peer, label: str, plan: Plan, *, ordered: bool) -> int:
    """Send messages of which some may be lost, and close; return how many have come."""
    expected = [describe_message(message) for message in make_messages(POOL, plan)]
    if receiver.stack.delivers_before_closing:
        sender.tell("send", label=label, messages=plan, close=True)
    else:
        receiver.tell("expect", label=label, count=1)
        sender.tell("send", label=label, messages=plan, close=False)
        await receiver.event("received", label=label)
        await sender.event("sent", label=label)
        sender.tell("close", label=label)
    await receiver.event("closed", label=label)
    await sender.event("closed", label=label)
    messages = (await receiver.report(label))["messages"]
    if ordered:
        remaining = iter(expected)
        # `in` takes from the iterator all up to the message, so the order matters.
        assert all(message in remaining for message in messages), (sender.name, label)
    else:
        for message in messages:
            assert message in expected, (sender.name, label, message)
            expected.remove(message)
    return len(messages)


async def converse(offerer: Peer, answerer: Peer) -> None:
    """Everything but bulk, on several channels at once."""
    peers = (offerer, answerer)
    pairs = [(offerer, answerer), (answerer, offerer)]
    plan = edges(min(peer.stack.max_message_size for peer in peers))
    await open_channels(offerer, answerer)
    async with asyncio.TaskGroup() as group:
        lossy = {}
        for creator, other in pairs:
            for sender, receiver in pairs:
                for name in ("ordered", "unordered"):
                    label = f"{creator.name} {name}"
                    group.create_task(exchange(sender, receiver, label, plan, ordered=name == "ordered"))
            for name in LOSSY_CHANNELS:
                label = f"{creator.name} {name}"
                sending = send_and_close(creator, other, label, LOSSY, ordered=name == "lifetime")
                lossy[label] = group.create_task(sending)
    for label, task in lossy.items():
        assert task.result() > 0, label
    # Each side closes one of its own channels and one of the other's.
    for closer, other in pairs:
        for label in (f"{closer.name} ordered", f"{other.name} unordered"):
            closer.tell("close", label=label)
    for peer in peers:
        for label in (f"{other.name} {name}" for other in peers for name in ("ordered", "unordered")):
            await peer.event("closed", label=label)
    # The streams are used again.
    for creator, other in pairs:
        for number in range(6):
            label = f"{creator.name} again {number}"
            creator.tell("create", label=label, init={})
            await opened(creator, other, label)
            await exchange(creator, other, label, [("text", 10, 3)])
            await exchange(other, creator, label, [("binary", 0, 1), ("binary", 5000, 3)])
            (creator if number % 2 else other).tell("close", label=label)
            for peer in peers:
                await peer.event("closed", label=label)


async def run(stack: Stack, stack_name: str, *, we_offer: bool, size: int, within: float) -> dict[str, float]:
    """Connect our side to a stack and do everything; return the rates."""
    rates = {}
    largest = stack.max_message_size
    async with started(OURS, "flyx") as ours, started(stack, stack_name) as theirs:
        offerer, answerer = (ours, theirs) if we_offer else (theirs, ours)
        await connect(offerer, answerer)
        await converse(offerer, answerer)
        for sender, receiver in ((ours, theirs), (theirs, ours)):
            label = f"bulk from {sender.name}"
            sender.tell("create", label=label, init={"ordered": False})
            await opened(sender, receiver, label, {"ordered": False})
            plan = [("binary", min(65536, largest), size // 65536)]
            rates[sender.name] = await exchange(sender, receiver, label, plan, ordered=False, within=within)
        async with asyncio.TaskGroup() as group:
            for sender, receiver in ((ours, theirs), (theirs, ours)):
                plan = [("binary", largest, size // largest // 4), *edges(largest)]
                group.create_task(exchange(sender, receiver, "first", plan, within=within))
        # A peer that leaves says so; some stacks tell an error before the end of the channel.
        await offerer.quit()
        await answerer.event("closed", label="first")
        await answerer.quit()
    return rates


@pytest.mark.parametrize("we_offer", [True, False], ids=["we offer", "they offer"])
@pytest.mark.parametrize("name", STACKS)
async def test_messages_and_channels_with(name: str, we_offer: bool) -> None:
    await run(STACKS[name](), name, we_offer=we_offer, size=6 << 20, within=DEADLINE)


@pytest.mark.parametrize("name", [*STACKS, *SIMPLE_STACKS])
async def test_packets_as_large_as_ethernet_s_are_found_to_pass_to(name: str) -> None:
    stack = (STACKS | SIMPLE_STACKS)[name]()
    async with started(OURS, "flyx") as ours, started(stack, name) as theirs:
        await connect(ours, theirs)
        async with asyncio.timeout(DEADLINE):
            while (await ours.report("first"))["max_packet_size"] < PROBED_SIZE:  # noqa: ASYNC110  # it asks
                await asyncio.sleep(0.1)
        await exchange(theirs, ours, "first", [("text", 1, 1)])
        await exchange(ours, theirs, "first", [("binary", 16384, 20)])


@pytest.mark.parametrize("we_offer", [True, False], ids=["we offer", "they offer"])
@pytest.mark.parametrize("name", SIMPLE_STACKS)
async def test_two_ordered_channels_with(name: str, we_offer: bool) -> None:
    async with started(OURS, "flyx") as ours, started(SIMPLE_STACKS[name](), name) as theirs:
        offerer, answerer = (ours, theirs) if we_offer else (theirs, ours)
        await connect(offerer, answerer)
        offerer.tell("create", label="second", init={})
        await opened(offerer, answerer, "second")
        largest = theirs.stack.max_message_size
        plan = [("text", 1, 20), ("binary", 1000, 200), ("binary", 16384, 100), ("binary", largest, 10)]
        for label in ("first", "second"):
            # A word of each, so that the other one knows that its program listens.
            for sender, receiver in ((theirs, ours), (ours, theirs)):
                await exchange(sender, receiver, label, [("text", 1, 1)])
        for sender, receiver in ((ours, theirs), (theirs, ours)):
            async with asyncio.TaskGroup() as group:
                for label in ("first", "second"):
                    group.create_task(exchange(sender, receiver, label, plan))


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("we_offer", [True, False], ids=["we offer", "they offer"])
@pytest.mark.parametrize("name", STACKS)
async def test_200_mb_each_way_with(name: str, we_offer: bool, capsys: pytest.CaptureFixture[str]) -> None:
    rates = await run(STACKS[name](), name, we_offer=we_offer, size=200_000_000, within=240)
    with capsys.disabled():
        figures = ", ".join(f"{sender} sends at {rate:.1f} MB/s" for sender, rate in rates.items())
        print(f"\n{'flyx' if we_offer else name} offers: {figures}")  # noqa: T201
