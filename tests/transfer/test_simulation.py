"""Whole transfers between the two machines, on a virtual clock."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyx.errors import (
    Declined,
    DestinationExists,
    FlyxError,
    RemoteProtocolError,
    TransferInterrupted,
    TransferRefused,
)
from flyx.transfer.manifest import BLOCK_SIZE
from flyx.transfer.messages import MIN_MESSAGE_SIZE
from flyx.transfer.receiver import WINDOW
from flyx.transfer.receiver_events import FileReceived, ManifestReceived, Received
from flyx.transfer.sender_events import Delivered, FileConfirmed
from flyx.transfer.session import (
    GONE_LIMIT,
    LATE,
    LONG_STANDSTILL,
    SILENCE_LIMIT,
    EntryLeftOut,
    Failed,
    RoundTrip,
)
from tests.simulator import Conditions, Simulation
from tests.thoroughness import share

TREE: dict[str, bytes | None] = {
    "top.bin": random.Random(1).randbytes(3 * BLOCK_SIZE + 17),
    "photos": None,
    "photos/a.jpg": b"a" * 4096,
    "photos/empty": b"",
    "photos/nothing here": None,
    "photos/b.jpg": random.Random(2).randbytes(BLOCK_SIZE),
    "last.txt": b"x",
}


def completed(simulation: Simulation) -> Received:
    event = simulation.receiver_events[-1]
    assert isinstance(event, Received), simulation.seed
    return event


def failures(simulation: Simulation) -> tuple[FlyxError, FlyxError]:
    ends = simulation.sender_events[-1], simulation.receiver_events[-1]
    assert isinstance(ends[0], Failed)
    assert isinstance(ends[1], Failed)
    return ends[0].error, ends[1].error


@pytest.mark.parametrize("seed", range(share(30)))
def test_every_byte_arrives_and_both_ends_agree_on_the_digest(seed: int) -> None:
    simulation = Simulation(
        TREE, seed=seed, conditions=Conditions(max_message_size=MIN_MESSAGE_SIZE + 4096 * (seed % 16))
    )
    simulation.run()
    assert simulation.destination.files == TREE
    assert simulation.destination.finished
    delivered = simulation.sender_events[-1]
    assert isinstance(delivered, Delivered)
    received = completed(simulation)
    assert (delivered.files, delivered.bytes, delivered.digest) == (
        received.files,
        received.bytes,
        received.digest,
    )


@given(
    sizes=st.lists(st.integers(0, 3 * BLOCK_SIZE), min_size=1, max_size=8),
    seed=st.integers(0, 1 << 30),
    message_size=st.integers(MIN_MESSAGE_SIZE, 65536),
)
@settings(max_examples=share(20))
def test_any_mix_of_sizes_arrives(sizes: list[int], seed: int, message_size: int) -> None:
    chance = random.Random(seed)
    files: dict[str, bytes | None] = {f"{i}": chance.randbytes(size) for i, size in enumerate(sizes)}
    simulation = Simulation(files, seed=seed, conditions=Conditions(max_message_size=message_size))
    simulation.run()
    assert simulation.destination.files == files


@pytest.mark.parametrize("message_size", [1 << 20, 4 << 20, 5 << 20, 1 << 30, 1 << 62])
def test_a_peer_that_accepts_messages_of_any_length_gets_them(message_size: int) -> None:
    # More than is read ahead.
    files: dict[str, bytes | None] = {"big": bytes(9 * BLOCK_SIZE)}
    simulation = Simulation(files, seed=14, conditions=Conditions(max_message_size=message_size))
    simulation.run()
    assert simulation.destination.files == files


# Parts of the greatest length, of what JSON escapes, of four bytes each, and of any text.
LONG_PARTS = st.one_of(
    st.sampled_from(['"' * 255, "\U0001f600" * 63, "a" * 255, "\u0390" * 127]),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40),
)
LONG_PATHS = st.lists(LONG_PARTS, min_size=1, max_size=11).map("/".join)


@given(
    paths=st.lists(LONG_PATHS, min_size=1, max_size=30, unique=True),
    seed=st.integers(0, 1 << 30),
    message_size=st.one_of(
        st.integers(MIN_MESSAGE_SIZE, MIN_MESSAGE_SIZE + 2000), st.integers(MIN_MESSAGE_SIZE, 1 << 30)
    ),
)
@settings(max_examples=share(40))
def test_names_of_any_length_arrive_in_messages_that_the_peer_accepts(
    paths: list[str], seed: int, message_size: int
) -> None:
    chance = random.Random(seed)
    files: dict[str, bytes | None] = {
        path: chance.randbytes(chance.choice([0, 1, 1000, 40_000])) for path in paths
    }
    # The simulation checks the size of each message, and that there is an end.
    simulation = Simulation(files, seed=seed, conditions=Conditions(max_message_size=message_size))
    simulation.run()
    assert simulation.destination.files == files


def test_data_under_way_never_exceeds_the_receivers_credit() -> None:
    content = bytes(40 * BLOCK_SIZE)
    slow_disk = Conditions(disk_delay=0.5, max_message_size=65536)
    simulation = Simulation({"big": content}, seed=3, conditions=slow_disk)
    simulation.run()
    assert completed(simulation).bytes == len(content)
    assert 0 < simulation.most_data_in_flight <= WINDOW


def test_ten_thousand_small_files_arrive_in_few_messages() -> None:
    files: dict[str, bytes | None] = {f"d/{i:05}": bytes([i % 251]) * 40 for i in range(10_000)}
    simulation = Simulation(files, seed=4, conditions=Conditions(max_message_size=65536))
    simulation.run()
    assert simulation.destination.files == files
    # 40 bytes and three headers each: 164 bytes a file.
    assert simulation.data_sent < 10_000 * 170


def test_entries_are_accepted_before_the_manifest_is_complete() -> None:
    files: dict[str, bytes | None] = {f"d/{i:05}": b"x" for i in range(5_000)}
    simulation = Simulation(files, seed=5, conditions=Conditions(rate=100_000))
    simulation.run()
    events = simulation.receiver_events
    first_file = next(i for i, event in enumerate(events) if isinstance(event, FileReceived))
    whole = next(i for i, event in enumerate(events) if isinstance(event, ManifestReceived))
    assert first_file < whole


def test_nothing_is_accepted_early_where_a_root_exists() -> None:
    files: dict[str, bytes | None] = {f"d/{i:05}": b"x" for i in range(5_000)}
    simulation = Simulation(files, seed=6, existing={"d"}, conditions=Conditions(rate=100_000))
    simulation.run()
    events = simulation.receiver_events
    first_file = next(i for i, event in enumerate(events) if isinstance(event, FileReceived))
    whole = next(i for i, event in enumerate(events) if isinstance(event, ManifestReceived))
    assert whole < first_file


def test_an_existing_destination_ends_the_transfer_before_any_byte() -> None:
    simulation = Simulation(TREE, seed=7, existing={"photos/b.jpg", "photos"})
    simulation.run()
    sender_error, receiver_error = failures(simulation)
    assert isinstance(receiver_error, DestinationExists)
    assert isinstance(sender_error, TransferRefused)
    assert not simulation.destination.files
    # The sender learns that, but no path of the receiver's machine.
    assert "b.jpg" not in str(sender_error)


@pytest.mark.parametrize("seed", range(share(5)))
def test_a_person_who_accepts_gets_everything(seed: int) -> None:
    simulation = Simulation(TREE, seed=seed, conditions=Conditions(answer=True, answer_delay=90.0))
    simulation.run()
    assert completed(simulation)
    assert simulation.destination.files == TREE
    assert simulation.now > 1090.0


def test_a_person_who_declines_gets_nothing_and_the_sender_is_told() -> None:
    simulation = Simulation(TREE, seed=8, conditions=Conditions(answer=False))
    simulation.run()
    sender_error, receiver_error = failures(simulation)
    assert isinstance(receiver_error, Declined)
    assert isinstance(sender_error, TransferRefused)
    assert not simulation.destination.files
    assert simulation.data_sent == 0


@pytest.mark.parametrize("code", ["file_changed", "file_vanished", "file_unreadable"])
@pytest.mark.parametrize("offset", [0, BLOCK_SIZE, 3 * BLOCK_SIZE])
def test_a_file_that_cannot_be_read_is_lost_alone(code: str, offset: int) -> None:
    simulation = Simulation(TREE, seed=9, faults={"top.bin": (offset, code)})
    simulation.run()
    assert completed(simulation).files == 4
    assert simulation.destination.files == {k: v for k, v in TREE.items() if k != "top.bin"}
    assert EntryLeftOut(0, code) in simulation.sender_events
    assert EntryLeftOut(0, code) in simulation.receiver_events


def test_an_empty_file_that_vanished_is_lost() -> None:
    simulation = Simulation(TREE, seed=10, faults={"photos/empty": (0, "file_vanished")})
    simulation.run()
    assert completed(simulation).files == 4
    assert "photos/empty" not in simulation.destination.files


@pytest.mark.parametrize("seed", range(share(40)))
def test_a_cut_path_ends_both_sides_and_delivers_nothing_false(seed: int) -> None:
    cut_at = random.Random(seed).uniform(0, 3)
    simulation = Simulation(TREE, seed=seed, conditions=Conditions(cut_at=cut_at))
    simulation.run()
    for path, content in simulation.destination.files.items():
        assert TREE[path] == content
    if isinstance(simulation.sender_events[-1], Delivered):
        assert isinstance(simulation.receiver_events[-1], Received)
        assert simulation.destination.files == TREE
    else:
        assert simulation.now <= 1000.0 + cut_at + SILENCE_LIMIT + 5.0


@pytest.mark.parametrize("seed", range(share(40)))
def test_closed_channels_end_both_sides_at_once(seed: int) -> None:
    closed_at = random.Random(seed).uniform(0, 3)
    simulation = Simulation(TREE, seed=seed, conditions=Conditions(closed_at=closed_at))
    simulation.run()
    assert simulation.now <= 1000.0 + closed_at + 1e-6
    ends = simulation.sender_events[-1], simulation.receiver_events[-1]
    if isinstance(ends[0], Delivered):
        assert simulation.destination.files == TREE
    else:
        assert isinstance(ends[0], Failed)
        assert isinstance(ends[0].error, TransferInterrupted)


def test_only_a_file_that_was_saved_is_confirmed() -> None:
    simulation = Simulation(TREE, seed=11)
    simulation.run()
    confirmed = {e.file for e in simulation.sender_events if isinstance(e, FileConfirmed)}
    files = {
        i for i, entry in enumerate(simulation.manifest.entries) if entry.path in simulation.destination.files
    }
    assert confirmed == {i for i in files if TREE[simulation.manifest.entries[i].path] is not None}


def test_both_ends_measure_the_round_trip() -> None:
    simulation = Simulation(TREE, seed=12, conditions=Conditions(network_delay=0.2))
    simulation.run()
    for events in (simulation.sender_events, simulation.receiver_events):
        times = [event.seconds for event in events if isinstance(event, RoundTrip)]
        assert times
        assert all(0 < seconds < 5 for seconds in times)


def test_a_peer_that_the_server_calls_gone_is_given_up_soon_unless_it_speaks() -> None:
    silent = Simulation(TREE, seed=13, conditions=Conditions(cut_at=1.0, answer=True, answer_delay=500.0))
    silent._at(2.0, lambda: silent.receiver.peer_gone(silent.now))
    silent._at(2.0, lambda: silent.sender.peer_gone(silent.now))
    silent.run()
    assert silent.now <= 1002.0 + GONE_LIMIT + 1e-6

    alive = Simulation(TREE, seed=13, conditions=Conditions(answer=True, answer_delay=60.0))
    alive._at(2.0, lambda: alive.receiver.peer_gone(alive.now))
    alive._at(2.0, lambda: alive.sender.peer_gone(alive.now))
    alive.run()
    assert completed(alive)


@pytest.mark.parametrize("end", ["sender", "receiver"])
@pytest.mark.parametrize("seed", range(share(10)))
def test_an_end_that_stands_still_for_a_while_loses_nothing(seed: int, end: str) -> None:
    chance = random.Random(seed)
    still = end, chance.uniform(0, 1), chance.uniform(LATE, LONG_STANDSTILL - 1.0)
    simulation = Simulation(TREE, seed=seed, conditions=Conditions(still=still))
    simulation.run()
    assert completed(simulation)


@pytest.mark.parametrize("end", ["sender", "receiver"])
def test_an_end_that_stands_still_for_long_says_so_and_the_other_that_it_heard_nothing(end: str) -> None:
    # More than can be on its way.
    files: dict[str, bytes | None] = {"a": bytes(4 * WINDOW)}
    simulation = Simulation(files, seed=14, conditions=Conditions(still=(end, 0.1, 90.0)))
    simulation.run()
    told = {"sender": simulation.sender_events[-1], "receiver": simulation.receiver_events[-1]}
    why = {}
    for name, event in told.items():
        assert isinstance(event, Failed)
        why[name] = str(event.error)
    assert "this computer slept, or this program was stopped, for " in why.pop(end)
    assert f"nothing was heard from the {end} for 20 s" in why.popitem()[1]


@pytest.mark.parametrize("answer", [None, True])
def test_a_disk_that_takes_minutes_is_no_silence(answer: bool | None) -> None:
    slow = Conditions(disk_delay=3 * SILENCE_LIMIT, answer=answer)
    simulation = Simulation({"a": b"content"}, seed=15, conditions=slow)
    simulation.run()
    assert completed(simulation)
    assert simulation.now > 1000.0 + SILENCE_LIMIT


@pytest.mark.parametrize("seed", range(share(4)))
def test_a_receiver_whose_confirmation_the_sender_rejects_has_not_succeeded(seed: int) -> None:
    simulation = Simulation({"a": b"content"}, seed=seed)
    hear = simulation.sender.receive_control

    def reject(text: str | bytes, now: float) -> None:
        if '"complete"' in str(text):
            simulation.sender.cancel(RemoteProtocolError(reason="other bytes than those sent"))
        else:
            hear(text, now)

    simulation.sender.receive_control = reject  # type: ignore[method-assign]
    simulation.run()
    assert not [event for event in simulation.receiver_events if isinstance(event, Received)]
    assert isinstance(simulation.receiver_events[-1], Failed)
