"""One entry never stops the others: what either side leaves out, both know in the end; the rest is there."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from flyx.transfer import left_out, messages
from flyx.transfer.disk import OperationFailed, PlanDropped
from flyx.transfer.manifest import BLOCK_SIZE
from flyx.transfer.receiver import Receiver
from flyx.transfer.receiver_events import ManifestReceived, Received
from flyx.transfer.sender_events import Delivered
from flyx.transfer.session import EntryLeftOut, Failed
from tests.simulator import Conditions, Content, Link, MemoryDestination, Simulation, manifest_of
from tests.thoroughness import share

KINDS = st.sampled_from(["file", "large", "holes", "empty", "directory", "symbolic", "hard"])
FATES = st.sampled_from(["saved", "saved", "saved", "unwanted", "refused", "lost"])
CONTENT: dict[str, Content] = {
    "file": b"content",
    "large": bytes(range(256)) * 8_000,
    "holes": bytes(BLOCK_SIZE) + b"x" * BLOCK_SIZE + bytes(BLOCK_SIZE + 5),
    "empty": b"",
    "directory": None,
    "symbolic": Link("elsewhere"),
}


@given(
    st.lists(st.tuples(KINDS, FATES), min_size=1, max_size=12),
    st.integers(0, 1 << 30),
    st.sampled_from([None, True]),
    st.booleans(),
)
@settings(max_examples=share(150))
def test_what_is_left_out_is_known_on_both_sides_and_all_else_arrives(
    rows: list[tuple[str, str]], seed: int, answer: bool | None, again: bool
) -> None:
    files: dict[str, Content] = {}
    fates: dict[str, str] = {}
    for n, (kind, fate) in enumerate(rows):
        hard = next((path for path, content in files.items() if isinstance(content, bytes)), None)
        if kind == "hard" and hard is None:
            kind = "file"
        path = f"{n} {kind}"
        files[path] = Link(hard or "", hard=True) if kind == "hard" else CONTENT[kind]
        is_file = isinstance(files[path], bytes)
        fates[path] = "saved" if fate == "lost" and not is_file else fate
    destination = MemoryDestination(set())
    destination.unwanted = {path: left_out.NOT_HERE for path, fate in fates.items() if fate == "unwanted"}
    destination.refused = {path: left_out.IN_THE_WAY for path, fate in fates.items() if fate == "refused"}
    lost = {path: (0, left_out.VANISHED) for path, fate in fates.items() if fate == "lost"}
    if again:
        # Something of it is there from an earlier try.
        first = Simulation(files, seed=seed, destination=destination, faults=lost, holes=True)
        first.cut_after = 12
        first.run()
        unwanted, refused = destination.unwanted, destination.refused
        destination = destination.again()
        destination.unwanted, destination.refused = unwanted, refused
    conditions = Conditions(answer=answer)
    simulation = Simulation(
        files, seed=seed, destination=destination, conditions=conditions, faults=lost, holes=True
    )
    simulation.run()

    expected = {path: content for path, content in files.items() if fates[path] == "saved"}
    missing = {path for path in files if fates[path] != "saved"}
    for path, content in list(expected.items()):
        if isinstance(content, Link) and content.hard and content.target in missing:
            del expected[path]
            missing.add(path)
    assert destination.files == expected
    entries = simulation.manifest.entries
    for events in (simulation.sender_events, simulation.receiver_events):
        told = [event for event in events if isinstance(event, EntryLeftOut)]
        assert len(told) == len(missing)
        assert {entries.path(event.index) for event in told} == missing
    (received,) = [event for event in simulation.receiver_events if isinstance(event, Received)]
    (delivered,) = [event for event in simulation.sender_events if isinstance(event, Delivered)]
    contents = [content for content in expected.values() if isinstance(content, bytes)]
    assert (received.files, received.bytes) == (len(contents), sum(map(len, contents)))
    assert (delivered.files, delivered.bytes) == (received.files, received.bytes)
    assert delivered.digest == received.digest


def test_holes_are_not_sent() -> None:
    files: dict[str, Content] = {"sparse": bytes(40 * BLOCK_SIZE) + b"end"}
    simulation = Simulation(files, seed=1, holes=True)
    simulation.run()
    assert simulation.destination.files == files
    assert simulation.data_sent < 5_000


def test_what_the_sender_leaves_out_is_told_with_the_manifest() -> None:
    simulation = Simulation({"a": b"x"}, seed=1)
    absent = left_out.LeftOut((("d/secret", left_out.UNREADABLE), ("d/fifo", left_out.SPECIAL)), 1, 1)
    simulation.manifest.left_out = absent
    simulation.run()
    (told,) = [event for event in simulation.receiver_events if isinstance(event, ManifestReceived)]
    assert told.manifest.left_out == absent


def test_what_was_left_out_before_the_person_answered_does_not_count() -> None:
    """It stayed out of what was renamed."""
    files: dict[str, Content] = {f"d/{n}": b"x" for n in range(3)}
    start, roots, piece, end = messages.manifest_messages(manifest_of(files))
    assert isinstance(piece, messages.ManifestPiece)
    first = structs.replace(piece, entries=piece.entries[:2])
    rest = structs.replace(piece, first=2, entries=piece.entries[2:])
    receiver = Receiver(ask=False, now=0.0)
    before = MemoryDestination({"d", "d/2"})
    before.unwanted = {"d/0": left_out.ALREADY_HERE}
    hear(receiver, start, roots, first)
    receiver.operations_done(before.apply(receiver.next_operations()), 0.0)
    hear(receiver, rest, end)
    outcomes = before.apply(receiver.next_operations())
    assert isinstance(outcomes[-1], OperationFailed)
    receiver.operations_done([PlanDropped()], 0.0)
    receiver.operations_done(MemoryDestination(set()).apply(receiver.next_operations()), 0.0)
    told = list(iter(receiver.next_event, None))
    assert [event.here_files for event in told if isinstance(event, ManifestReceived)] == [0]
    assert not [event for event in told if isinstance(event, EntryLeftOut | Failed)]
    assert messages.serialize_control(messages.Accept(below=3)) in iter(receiver.next_control, None)


def hear(receiver: Receiver, *told: messages.ControlMessage) -> None:
    for message in told:
        receiver.receive_control(messages.serialize_control(message), 0.0)
