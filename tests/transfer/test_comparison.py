"""Files that may be at the receiver already: both sides hash them, and only those that differ are sent."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyx.errors import DestinationExists
from flyx.transfer import left_out, messages
from flyx.transfer.comparison import Comparison
from flyx.transfer.digests import Algorithm
from flyx.transfer.disk import (
    HashFiles,
    OperationFailed,
    PlanDropped,
    PlanEntries,
    PlanTree,
    SettleFiles,
)
from flyx.transfer.manifest import BLOCK_SIZE
from flyx.transfer.receiver import Receiver
from flyx.transfer.receiver_events import Comparing, ManifestReceived, Received
from flyx.transfer.sender import Comparing as SenderComparing
from flyx.transfer.sender_events import Delivered
from flyx.transfer.session import SILENCE_LIMIT, EntryLeftOut, Failed
from tests.simulator import Conditions, Content, MemoryDestination, Simulation, digests_of, manifest_of
from tests.thoroughness import share

LARGE = random.Random(1).randbytes(2 * BLOCK_SIZE + 17)
TREE: dict[str, Content] = {
    "d": None,
    "d/large": LARGE,
    "d/small": b"small",
    "d/empty": b"",
    "d/other": b"other",
    "new": b"new",
}


def destination_with(here: dict[str, bytes]) -> MemoryDestination:
    destination = MemoryDestination(set())
    destination.here = here
    return destination


def simulate(
    here: dict[str, bytes], files: Mapping[str, Content] = TREE, seed: int = 1, answer: bool | None = None
) -> Simulation:
    simulation = Simulation(
        files, seed=seed, destination=destination_with(here), conditions=Conditions(answer=answer)
    )
    simulation.run()
    return simulation


def sent_of(simulation: Simulation) -> set[str]:
    """The files that were sent, after a transfer that both ends call complete."""
    assert isinstance(simulation.receiver_events[-1], Received), simulation.receiver_events[-1]
    assert isinstance(simulation.sender_events[-1], Delivered)
    return {path for path, content in simulation.destination.files.items() if content is not None}


def left_out_of(events: list[object]) -> list[tuple[int, str]]:
    return [(event.index, event.code) for event in events if isinstance(event, EntryLeftOut)]


@pytest.mark.parametrize("answer", [None, True])
def test_only_files_that_differ_are_sent(answer: bool | None) -> None:
    here = {"d/large": LARGE, "d/small": b"smell", "d/other": b"another size"}
    simulation = simulate(here, answer=answer)
    assert sent_of(simulation) == {"d/small", "d/empty", "d/other", "new"}
    for events in (simulation.sender_events, simulation.receiver_events):
        assert left_out_of([*events]) == [(1, left_out.ALREADY_HERE)]
    (known,) = [event for event in simulation.receiver_events if isinstance(event, ManifestReceived)]
    assert (known.here_files, known.here_bytes) == (1, len(LARGE))
    assert simulation.bytes_compared == len(LARGE) + 5


def test_both_ends_tell_that_they_compare() -> None:
    simulation = simulate({"d/large": LARGE, "d/small": b"smell"})
    assert [e for e in simulation.receiver_events if isinstance(e, Comparing)] == [
        Comparing(2, len(LARGE) + 5)
    ]
    assert [e for e in simulation.sender_events if isinstance(e, SenderComparing)] == [SenderComparing()]


def test_nothing_is_compared_where_nothing_can_be_the_same() -> None:
    simulation = simulate({"d/small": b"another size"})
    assert len(sent_of(simulation)) == 5
    assert simulation.bytes_compared == simulation.destination.hashed == 0
    assert not [event for event in simulation.sender_events if isinstance(event, SenderComparing)]


def test_a_last_block_that_differs_is_a_difference() -> None:
    simulation = simulate({"d/large": LARGE[:-1] + bytes([LARGE[-1] ^ 1])})
    assert "d/large" in sent_of(simulation)


def test_what_the_receiver_cannot_read_is_sent() -> None:
    destination = destination_with({"d/large": LARGE, "d/small": b"small"})
    destination.unreadable = {"d/large"}
    simulation = Simulation(TREE, seed=2, destination=destination)
    simulation.run()
    assert sent_of(simulation) == {"d/large", "d/empty", "d/other", "new"}


@pytest.mark.parametrize("at", [0, BLOCK_SIZE, 2 * BLOCK_SIZE])
def test_what_the_sender_cannot_read_is_no_match_and_those_after_it_are_compared(at: int) -> None:
    destination = destination_with({"d/large": LARGE, "d/small": b"small", "d/other": b"0ther"})
    destination.unreadable = {"d/large"}
    faults = {"d/large": (at, left_out.UNREADABLE)}
    simulation = Simulation(TREE, seed=3, destination=destination, faults=faults)
    simulation.run()
    assert sent_of(simulation) == {"d/empty", "d/other", "new"}
    told = [(1, left_out.UNREADABLE), (2, left_out.ALREADY_HERE)]
    assert sorted(left_out_of([*simulation.sender_events])) == told


def test_many_files_are_compared_in_few_messages() -> None:
    files: dict[str, Content] = {f"d/{n:05}": b"%d" % n for n in range(6_000)}
    here = {path: content for path, content in files.items() if isinstance(content, bytes)}
    here["d/03000"] = b"3OOO"
    simulation = simulate(here, files)
    assert sent_of(simulation) == {"d/03000"}
    assert simulation.arrived < 600


CONTENTS = st.sampled_from([b"", b"a", b"b", b"longer", bytes(BLOCK_SIZE), bytes(BLOCK_SIZE) + b"x", LARGE])
FATES = st.sampled_from(["here", "here", "differs", "missing", "lost", "unreadable", "unwanted"])


@given(st.lists(st.tuples(CONTENTS, FATES), min_size=1, max_size=12), st.integers(0, 1 << 30), st.booleans())
@settings(max_examples=share(100))
def test_whatever_is_here_the_result_is_what_was_offered(
    rows: list[tuple[bytes, str]], seed: int, again: bool
) -> None:
    files: dict[str, Content] = {f"d/{n}": content for n, (content, _) in enumerate(rows)}
    fates = {f"d/{n}": fate for n, (_, fate) in enumerate(rows)}
    destination = MemoryDestination(set())
    for path, content in files.items():
        assert isinstance(content, bytes)
        if fates[path] in ("here", "unreadable", "unwanted"):
            destination.here[path] = content
        elif fates[path] in ("differs", "lost"):
            destination.here[path] = bytes(byte ^ 1 for byte in content)
    destination.unreadable = {path for path, fate in fates.items() if fate == "unreadable"}
    destination.unwanted = {path: left_out.NOT_WANTED for path, fate in fates.items() if fate == "unwanted"}
    faults = {path: (0, left_out.VANISHED) for path, fate in fates.items() if fate == "lost"}
    if again:
        first = Simulation(files, seed=seed, destination=destination, faults=faults, holes=True)
        first.cut_after = seed % 40
        first.run()
        unwanted, destination = destination.unwanted, destination.again()
        destination.unwanted = unwanted
    simulation = Simulation(files, seed=seed, destination=destination, faults=faults, holes=True)
    simulation.run()
    sent = sent_of(simulation)
    missing = set()
    for path, content in files.items():
        if fates[path] in ("lost", "unwanted"):
            missing.add(path)
        elif fates[path] == "here" and content:
            # Unless it was received over the first connection, it is not sent.
            assert path not in sent or again
        else:
            assert destination.files[path] == content
    assert not sent & missing


@pytest.mark.parametrize("seed", range(share(20)))
def test_what_was_found_out_over_a_connection_that_was_lost_is_not_hashed_again(seed: int) -> None:
    here = {"d/large": LARGE, "d/small": b"small", "d/other": b"0ther"}
    whole = simulate(here, seed=seed)
    first = Simulation(TREE, seed=seed, destination=destination_with(here))
    first.cut_after = random.Random(seed).randrange(whole.arrived)
    first.run()
    # Who comes back lets nothing be sent ahead, which is read as what is compared is.
    later = Simulation(
        TREE,
        seed=seed,
        destination=first.destination.again(),
        compared=first.receiver.compared,
        eager=False,
    )
    later.run()
    assert isinstance(later.receiver_events[-1], Received)
    assert {path for path in later.destination.files if TREE[path] is not None} == {
        *("d/empty", "d/other", "new")
    }
    if first.receiver.accepted:
        assert later.destination.hashed == later.bytes_compared == 0


def test_what_was_found_out_about_another_manifest_does_not_count() -> None:
    earlier = simulate({"d/small": b"small"})
    assert Comparison(earlier.manifest.id, earlier.receiver.compared).undecided([1, 2]) == [1]
    assert Comparison("f" * 64, earlier.receiver.compared).undecided([1, 2]) == [1, 2]


def test_a_comparison_that_takes_minutes_is_no_silence() -> None:
    simulation = Simulation(
        TREE,
        seed=5,
        destination=destination_with({"d/large": LARGE}),
        conditions=Conditions(disk_delay=3 * SILENCE_LIMIT),
    )
    simulation.run()
    assert "d/large" not in sent_of(simulation)
    assert simulation.now > 1000.0 + SILENCE_LIMIT


@pytest.mark.parametrize("seed", range(share(20)))
def test_a_path_cut_while_files_are_compared_ends_both_sides(seed: int) -> None:
    conditions = Conditions(cut_at=random.Random(seed).uniform(0, 0.6))
    simulation = Simulation(
        TREE,
        seed=seed,
        destination=destination_with({"d/large": LARGE, "d/small": b"small"}),
        conditions=conditions,
    )
    simulation.run()
    for events in (simulation.sender_events, simulation.receiver_events):
        assert isinstance(events[-1], Failed | Delivered | Received)
    assert not {"d/large", "d/small"} & simulation.destination.files.keys()


def digest_of(content: bytes) -> str:
    return Algorithm.SHA256.digest(digests_of(content)).hex()


def heard(receiver: Receiver, *told: messages.ControlMessage) -> None:
    for message in told:
        receiver.receive_control(messages.serialize_control(message), 0.0)


def test_the_answer_about_files_that_differ_needs_no_second_comparison() -> None:
    destination = destination_with({"d/small": b"small", "d/other": b"0ther"})
    receiver = Receiver(ask=False, now=0.0)
    heard(receiver, *messages.manifest_messages(manifest_of(TREE)))
    receiver.operations_done(destination.apply(receiver.next_operations()), 0.0)
    asked = list(map(messages.parse_control_untrusted, iter(receiver.next_control, None)))
    assert asked == [messages.Compare(files=[2, 4])]
    heard(receiver, messages.Digests(files=[(2, digest_of(b"small")), (4, digest_of(b"other"))]))
    assert receiver.next_operations() == [HashFiles([2, 4])]
    receiver.operations_done(destination.apply([HashFiles([2, 4])]), 0.0)
    assert receiver.next_operations() == [SettleFiles(frozenset({2}))]
    # The disk would have refused it, and the person wants it replaced.
    receiver.operations_done([PlanDropped()], 0.0)
    planned = receiver.next_operations()
    assert [type(operation) for operation in planned] == [PlanTree, PlanEntries]
    receiver.operations_done(destination.apply(planned), 0.0)
    assert receiver.next_operations() == [SettleFiles(frozenset({2}))]
    receiver.operations_done(destination.apply([SettleFiles(frozenset({2}))]), 0.0)
    told = list(map(messages.parse_control_untrusted, iter(receiver.next_control, None)))
    assert told[:2] == [
        messages.LeftOut(entries=[(2, left_out.ALREADY_HERE)]),
        messages.Accept(below=len(TREE)),
    ]


def test_a_disk_that_refuses_after_a_comparison_ends_the_transfer() -> None:
    destination = destination_with({"d/small": b"smell"})
    receiver = Receiver(ask=False, now=0.0)
    heard(receiver, *messages.manifest_messages(manifest_of(TREE)))
    receiver.operations_done(destination.apply(receiver.next_operations()), 0.0)
    receiver.operations_done(destination.apply(receiver.next_operations()), 0.0)
    heard(receiver, messages.Digests(files=[(2, None)]))
    assert receiver.next_operations() == [SettleFiles(frozenset())]
    receiver.operations_done([OperationFailed(DestinationExists(path="d/small", others=""))], 0.0)
    assert receiver.ended
