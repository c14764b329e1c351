"""Our association with other WebRTC stacks, over real sockets, each side in a process of its own.

    pytest e2e/test_interop.py          every stack that is installed, both roles, a few MB each way
    pytest e2e/test_interop.py -m soak  200 MB each way and more

Each side is a program of e2e/peers, told what to do. All that arrives is compared with all that was sent, by
digests; see e2e/peers/agent.py.
"""

from __future__ import annotations

import asyncio

import pytest

from e2e.peers.agent import Plan, describe_message, make_messages
from e2e.peers.session import (
    DEADLINE,
    POOL,
    Peer,
    connect,
    open_channels,
    opened,
    started,
)
from e2e.peers.stacks import OURS, SIMPLE_STACKS, STACKS, Stack

PROBED_SIZE = 1400
"""Bytes of an SCTP packet that fits Ethernet, and the buffers of all stacks: 1,460 for a datagram in pion."""

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
            if receiver.stack.delivers_interleaved:
                async with asyncio.TaskGroup() as group:
                    for label in ("first", "second"):
                        group.create_task(exchange(sender, receiver, label, plan))
            else:
                for label in ("first", "second"):
                    await exchange(sender, receiver, label, plan)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("we_offer", [True, False], ids=["we offer", "they offer"])
@pytest.mark.parametrize("name", STACKS)
async def test_200_mb_each_way_with(name: str, we_offer: bool, capsys: pytest.CaptureFixture[str]) -> None:
    rates = await run(STACKS[name](), name, we_offer=we_offer, size=200_000_000, within=240)
    with capsys.disabled():
        figures = ", ".join(f"{sender} sends at {rate:.1f} MB/s" for sender, rate in rates.items())
        print(f"\n{'flyx' if we_offer else name} offers: {figures}")  # noqa: T201
