"""Blocks that travel compressed: frames, and whole transfers, cut and gone on with."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyx.storage.packing import BlockPacker
from flyx.transfer.frames import SHORTEST_DATA, FrameKind, FramePacker, parse_frames_untrusted
from flyx.transfer.manifest import BLOCK_SIZE
from flyx.transfer.messages import MIN_MESSAGE_SIZE
from flyx.transfer.receiver import WINDOW
from flyx.transfer.sender_events import Delivered
from tests.simulator import Conditions, Content, MemoryDestination, Simulation, deliver
from tests.thoroughness import share, some


def text(size: int, seed: int = 1) -> bytes:
    """Words in any order: half of it is left when it is compressed."""
    chance = random.Random(seed)
    words = [bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(100)]
    return b" ".join(chance.choices(words, k=size // 8 + 1))[:size]


RANDOM = random.Random(2).randbytes(2 * BLOCK_SIZE + 17)
MIXED: dict[str, Content] = {
    "text": text(3 * BLOCK_SIZE + 1000),
    "random": RANDOM,
    "d": None,
    "d/both": text(BLOCK_SIZE, 3) + RANDOM[:BLOCK_SIZE] + text(BLOCK_SIZE // 2, 4),
    "d/empty": b"",
    "d/small": b"small",
    "d/zeros": bytes(2 * BLOCK_SIZE),
    "d/hole": text(BLOCK_SIZE, 5) + bytes(BLOCK_SIZE) + text(99, 6),
}
TOTAL = sum(len(content) for content in MIXED.values() if isinstance(content, bytes))
QUICK = Conditions(network_delay=0.001, disk_delay=0.0001, max_message_size=65536)


def simulate(
    destination: MemoryDestination | None = None, *, seed: int = 0, packs: bool = True
) -> Simulation:
    return Simulation(MIXED, seed=seed, conditions=QUICK, destination=destination, packs=packs)


def deliver_mixed(simulation: Simulation) -> Delivered:
    delivered, _ = deliver(simulation)
    assert simulation.destination.files == MIXED
    return delivered


@given(st.integers(1, BLOCK_SIZE - 1), st.integers(0, 20_000), st.integers(MIN_MESSAGE_SIZE, 1 << 20))
@settings(max_examples=share(50))
def test_a_compressed_block_is_packed_into_parts_of_one_offset_none_of_them_splinters(
    size: int, before: int, message_size: int
) -> None:
    packed = random.Random(size).randbytes(size)
    packer = FramePacker(message_size)
    packer.add(FrameKind.DATA, 0, 0, bytes(before))
    packer.add(FrameKind.PACKED, 1, 3 * BLOCK_SIZE, packed)
    packer.add(FrameKind.BLOCK_END, 1, 3 * BLOCK_SIZE, bytes(32))
    packer.flush()
    frames = [frame for message in packer.messages for frame in parse_frames_untrusted(message)]
    assert all(len(message) <= message_size for message in packer.messages)
    parts = [frame for frame in frames if frame.kind is FrameKind.PACKED]
    assert frames[-1].kind is FrameKind.BLOCK_END
    assert {(part.file, part.offset) for part in parts} == {(1, 3 * BLOCK_SIZE)}
    assert all(len(part.payload) >= SHORTEST_DATA for part in parts[:-1])
    assert b"".join(part.payload for part in parts) == packed


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("seed", range(share(10)))
def test_what_is_compressed_arrives_as_it_was_with_the_same_digest_and_fewer_bytes(
    seed: int, holes: bool
) -> None:
    conditions = Conditions(max_message_size=MIN_MESSAGE_SIZE + 4096 * (seed % 16))
    plain = Simulation(MIXED, seed=seed, conditions=conditions, holes=holes)
    packed = Simulation(MIXED, seed=seed, conditions=conditions, holes=holes, packs=True)
    assert deliver_mixed(packed) == deliver_mixed(plain)
    spared = packed.sender.spared_bytes
    # The headers of parts that need not be sent are spared as well.
    assert spared <= plain.data_sent - packed.data_sent < 1.01 * spared
    assert plain.sender.spared_bytes == 0
    assert spared > 2 * BLOCK_SIZE


@given(
    blocks=st.lists(st.sampled_from(["text", "random", "zeros"]), min_size=1, max_size=6),
    end=st.integers(1, BLOCK_SIZE),
    seed=st.integers(0, 1 << 30),
    message_size=st.integers(MIN_MESSAGE_SIZE, 65536),
)
@settings(max_examples=share(15))
def test_any_mix_of_blocks_arrives(blocks: list[str], end: int, seed: int, message_size: int) -> None:
    kinds = {"text": text(BLOCK_SIZE), "random": RANDOM[:BLOCK_SIZE], "zeros": bytes(BLOCK_SIZE)}
    files: dict[str, Content] = {"a": b"".join(kinds[kind] for kind in blocks)[:-end], "b": text(end)}
    conditions = Conditions(max_message_size=message_size)
    simulation = Simulation(files, seed=seed, conditions=conditions, packs=True)
    simulation.run()
    assert simulation.destination.files == files


def cut(after: int, destination: MemoryDestination | None = None, *, packs: bool = True) -> Simulation:
    """Run until so many messages have arrived."""
    simulation = simulate(destination, seed=after, packs=packs)
    simulation.cut_after = after
    simulation.run()
    return simulation


MESSAGES = cut(10_000).arrived


@pytest.mark.parametrize("after", some(range(MESSAGES)))
def test_a_compressed_transfer_cut_at_any_message_goes_on_where_it_was_compressed_or_not(after: int) -> None:
    first = cut(after, packs=after % 3 != 0)
    later = simulate(first.destination.again(), seed=after, packs=after % 2 == 0)
    deliver_mixed(later)
    # Nothing that was verified is sent again.
    assert first.destination.written + later.destination.written == TOTAL


def test_compressed_data_under_way_never_exceeds_the_receivers_credit() -> None:
    files: dict[str, Content] = {"big": b"".join(text(BLOCK_SIZE, seed) for seed in range(3)) * 30}
    slow_disk = Conditions(disk_delay=0.5, max_message_size=65536)
    simulation = Simulation(files, seed=3, conditions=slow_disk, packs=True)
    simulation.run()
    assert simulation.destination.files == files
    assert 0 < simulation.most_data_in_flight <= WINDOW
    assert BlockPacker().pack(text(BLOCK_SIZE))
