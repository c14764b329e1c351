"""A transfer that is cut and goes on over a new connection: two new machines, the same disks."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flyx.errors import FlyxError, RemoteProtocolError
from flyx.transfer import messages
from flyx.transfer.digests import DIGEST_SIZE, Algorithm, TransferDigest
from flyx.transfer.disk import BlocksKept, Kept, PlanEntries, PlanTree
from flyx.transfer.frames import FRAME_HEADER, FrameKind
from flyx.transfer.manifest import BLOCK_SIZE, block_count
from flyx.transfer.messages import DIGESTS_PER_MESSAGE, MAX_CONTROL_SIZE
from flyx.transfer.receiver import Receiver
from flyx.transfer.receiver_events import FileReceived, ManifestReceived
from flyx.transfer.sender import Sender
from flyx.transfer.sender_events import Delivered, FileConfirmed, Resumed
from flyx.transfer.session import EntryLeftOut, Failed
from tests.simulator import (
    Conditions,
    MemoryDestination,
    MemorySource,
    Simulation,
    deliver,
    digests_of,
    manifest_of,
)
from tests.thoroughness import share, some

NOW = 50.0
TREE: dict[str, bytes | None] = {
    "big": random.Random(1).randbytes(3 * BLOCK_SIZE + 17),
    "d": None,
    "d/empty": b"",
    "d/exact": random.Random(2).randbytes(BLOCK_SIZE),
    "d/small": b"small",
    "last": random.Random(3).randbytes(BLOCK_SIZE + 1),
}
TOTAL = sum(len(content) for content in TREE.values() if content is not None)
QUICK = Conditions(network_delay=0.001, disk_delay=0.0001, max_message_size=65536)


def simulate(destination: MemoryDestination | None, *, seed: int = 0, **options: object) -> Simulation:
    return Simulation(TREE, seed=seed, conditions=QUICK, destination=destination, **options)  # type: ignore[arg-type]


def cut(after: int, destination: MemoryDestination | None = None, *, seed: int = 0) -> Simulation:
    """Run until so many messages have arrived."""
    simulation = simulate(destination, seed=seed)
    simulation.cut_after = after
    simulation.run()
    return simulation


MESSAGES = cut(10_000).arrived


@pytest.mark.parametrize("after", some(range(MESSAGES)))
def test_a_transfer_cut_at_any_message_goes_on_where_it_was(after: int) -> None:
    whole = deliver(simulate(None))[0]
    first = cut(after, seed=after)
    later = simulate(first.destination.again(), seed=after)
    assert deliver(later)[0] == whole
    assert later.destination.files == TREE
    # Nothing that was verified is sent again.
    assert first.destination.written + later.destination.written == TOTAL


@given(st.lists(st.integers(0, MESSAGES), max_size=8), st.integers(0, 1 << 30))
@settings(max_examples=share(25))
def test_any_number_of_cuts_delivers_the_same(cuts: list[int], seed: int) -> None:
    destination, written = MemoryDestination(set()), 0
    for after in cuts:
        simulation = cut(after, destination, seed=seed)
        written += simulation.destination.written
        destination = simulation.destination.again()
    simulation = simulate(destination, seed=seed)
    delivered, received = deliver(simulation)
    assert (delivered.files, delivered.bytes) == (received.files, received.bytes) == (5, TOTAL)
    assert simulation.destination.files == TREE
    assert written + simulation.destination.written == TOTAL


def half_way() -> MemoryDestination:
    """What a run has left that saved four files and one block of the next."""
    destination = MemoryDestination(set())
    for entry in manifest_of(TREE).entries:
        content = TREE[entry.path]
        if entry.path == "last":
            assert content is not None
            destination._parts["last"] = entry, bytearray(content[:BLOCK_SIZE])
        elif content is not None:
            destination._saved[entry.path] = entry
            destination.files[entry.path] = content
    return destination


def test_both_ends_tell_what_was_there() -> None:
    simulation = simulate(half_way())
    deliver(simulation)
    there = TOTAL - 1
    assert Resumed(4, there) in simulation.sender_events
    known = next(e for e in simulation.receiver_events if isinstance(e, ManifestReceived))
    assert (known.kept_files, known.found_bytes, known.changed) == (4, there, ())
    confirmed = [e.file for e in simulation.sender_events if isinstance(e, FileConfirmed)]
    received = [e.file for e in simulation.receiver_events if isinstance(e, FileReceived)]
    assert sorted(confirmed) == sorted(received) == [0, 2, 3, 4, 5]


def test_of_what_is_there_the_sender_reads_one_block() -> None:
    simulation = simulate(half_way())
    deliver(simulation)
    assert simulation.bytes_read == BLOCK_SIZE + 1


def test_a_file_held_whole_is_not_sent() -> None:
    destination = MemoryDestination(set())
    entry = manifest_of(TREE).entries[0]
    content = TREE["big"]
    assert content is not None
    destination._parts["big"] = entry, bytearray(content)
    simulation = simulate(destination)
    deliver(simulation)
    assert simulation.destination.files == TREE
    assert simulation.destination.written == TOTAL - len(content)
    assert simulation.bytes_read == TOTAL - len(content) + 17


def test_a_part_that_is_not_the_senders_is_dropped() -> None:
    destination = MemoryDestination(set())
    entry = manifest_of(TREE).entries[0]
    destination._parts["big"] = entry, bytearray(2 * BLOCK_SIZE)
    simulation = simulate(destination)
    deliver(simulation)
    assert simulation.destination.files == TREE
    assert simulation.destination.written == TOTAL


def test_a_part_with_a_false_beginning_is_noticed_by_nobody_but_its_owner() -> None:
    # The price of not reading it again (flyx/transfer/sender.py): the digest confirmed is that of the
    # receiver's own blocks, so what it kept is what it gets.
    destination = MemoryDestination(set())
    entry, content = manifest_of(TREE).entries[0], TREE["big"]
    assert content is not None
    destination._parts["big"] = entry, bytearray(BLOCK_SIZE) + content[BLOCK_SIZE : 2 * BLOCK_SIZE]
    deliver(simulate(destination))


def test_a_changed_file_begins_anew() -> None:
    destination = MemoryDestination(set())
    other = manifest_of({"big": b"shorter"}).entries[0]
    destination._parts["big"] = other, bytearray(b"short")
    simulation = simulate(destination)
    deliver(simulation)
    assert simulation.destination.files == TREE
    known = next(e for e in simulation.receiver_events if isinstance(e, ManifestReceived))
    assert known.changed == (0,)


def test_a_file_that_is_lost_while_it_goes_on_is_lost_alone() -> None:
    destination = MemoryDestination(set())
    entry, content = manifest_of(TREE).entries[0], TREE["big"]
    assert content is not None
    for held, fault in ((1, 0), (2, 2 * BLOCK_SIZE + 1), (4, 0)):
        destination = MemoryDestination(set())
        destination._parts["big"] = entry, bytearray(content[: held * BLOCK_SIZE])
        simulation = simulate(destination, faults={"big": (fault, "file_changed")})
        deliver(simulation)
        assert EntryLeftOut(0, "file_changed") in simulation.sender_events
        assert EntryLeftOut(0, "file_changed") in simulation.receiver_events
        assert simulation.destination.files == {k: v for k, v in TREE.items() if k != "big"}


def test_what_was_accepted_is_not_asked_again() -> None:
    manifest_id = manifest_of(TREE).id
    asked = Conditions(answer=False)
    simulation = Simulation(TREE, seed=1, conditions=asked, accepted=manifest_id)
    deliver(simulation)
    assert simulation.destination.files == TREE


def test_the_disk_is_asked_for_nothing_but_plans_before_the_person_has_accepted() -> None:
    receiver = Receiver(ask=True, now=NOW)
    for message in messages.manifest_messages(manifest_of(TREE)):
        receiver.receive_control(messages.serialize_control(message), NOW)
    operations = receiver.next_operations()
    assert {type(operation) for operation in operations} == {PlanTree, PlanEntries}
    receiver.operations_done(half_way().apply(operations), NOW)
    assert receiver.next_operations() == []
    receiver.answer(False)
    assert receiver.next_operations() == []
    assert receiver.ended


def test_something_else_than_what_was_accepted_is_refused() -> None:
    simulation = Simulation(TREE, seed=1, accepted="ab" * 32)
    simulation.run()
    end = simulation.receiver_events[-1]
    assert isinstance(end, Failed)
    assert isinstance(end.error, RemoteProtocolError)
    assert simulation.destination.files == {}


# What is told of it.


def test_pieces_are_small_enough_and_in_order() -> None:
    digests = bytes(DIGEST_SIZE * (2 * DIGESTS_PER_MESSAGE + 1))
    found = [
        *(Kept(i, "p", bytes(DIGEST_SIZE)) for i in range(DIGESTS_PER_MESSAGE + 2)),
        BlocksKept(DIGESTS_PER_MESSAGE + 5, digests),
    ]
    last = Kept(DIGESTS_PER_MESSAGE + 6, "p", bytes(DIGEST_SIZE))
    told = list(messages.accept_messages(999, [*found, last], []))
    assert [type(message).__name__ for message in told] == [*["Kept"] * 2, *["Have"] * 3, "Kept", "Accept"]
    for message in told:
        assert len(messages.serialize_control(message)) < MAX_CONTROL_SIZE
        assert messages.parse_control_untrusted(messages.serialize_control(message)) == message


# A receiver that lies.

A_DIGEST = "ab" * 32
TOLD: dict[str, list[messages.ControlMessage]] = {
    "kept that is no file": [messages.Kept(files=[(1, A_DIGEST)])],
    "kept beyond the end": [messages.Kept(files=[(6, A_DIGEST)])],
    "kept twice": [messages.Kept(files=[(0, A_DIGEST), (0, A_DIGEST)])],
    "kept backwards": [messages.Kept(files=[(3, A_DIGEST), (2, A_DIGEST)])],
    "blocks of a directory": [messages.Have(file=1, first=0, sha256=[A_DIGEST])],
    "blocks beyond the end": [messages.Have(file=6, first=0, sha256=[A_DIGEST])],
    "blocks not from the first": [messages.Have(file=0, first=1, sha256=[A_DIGEST])],
    "more blocks than there are": [messages.Have(file=0, first=0, sha256=[A_DIGEST] * 5)],
    "a block of an empty file": [messages.Have(file=2, first=0, sha256=[A_DIGEST])],
    "the same blocks twice": [messages.Have(file=0, first=0, sha256=[A_DIGEST])] * 2,
    "a gap between blocks": [
        messages.Have(file=0, first=0, sha256=[A_DIGEST]),
        messages.Have(file=0, first=2, sha256=[A_DIGEST]),
    ],
    "blocks of an earlier file": [
        messages.Have(file=3, first=0, sha256=[A_DIGEST]),
        messages.Have(file=0, first=0, sha256=[A_DIGEST]),
    ],
    "blocks of a kept file": [
        messages.Kept(files=[(0, A_DIGEST)]),
        messages.Have(file=0, first=0, sha256=[A_DIGEST]),
    ],
    "a file kept after its blocks": [
        messages.Have(file=0, first=0, sha256=[A_DIGEST]),
        messages.Kept(files=[(0, A_DIGEST)]),
    ],
    "kept after it was accepted": [messages.Accept(below=3), messages.Kept(files=[(2, A_DIGEST)])],
    "accepted below what was told": [messages.Kept(files=[(3, A_DIGEST)]), messages.Accept(below=2)],
    "more verified than it told of": [
        messages.Kept(files=[(4, A_DIGEST)]),
        messages.Accept(below=6),
        messages.Credit(bytes=1, written=6),
    ],
    "kept and then saved": [
        messages.Kept(files=[(4, A_DIGEST)]),
        messages.Accept(below=6),
        messages.Saved(files=[4]),
    ],
}


def tell(machine: Sender | Receiver, told: list[messages.ControlMessage]) -> None:
    for message in told:
        machine.receive_control(messages.serialize_control(message), NOW)


def failure_of(machine: Sender | Receiver) -> FlyxError:
    events = []
    while (event := machine.next_event()) is not None:
        events.append(event)
    assert isinstance(events[-1], Failed), events
    return events[-1].error


@pytest.mark.parametrize("lie", TOLD)
def test_a_claim_that_cannot_be_true_ends_the_transfer(lie: str) -> None:
    sender = Sender(manifest_of(TREE), max_message_size=16384, now=NOW)
    sender.release()
    tell(sender, TOLD[lie])
    assert isinstance(failure_of(sender), RemoteProtocolError)


def test_a_false_digest_of_a_kept_file_changes_only_what_its_owner_confirms() -> None:
    manifest = manifest_of({"a": b"a"})
    sender = Sender(manifest, max_message_size=16384, now=NOW)
    sender.release()
    told = TransferDigest(Algorithm.SHA256)
    told.keep(0, bytes.fromhex(A_DIGEST))
    complete = messages.Complete(files=1, bytes=1, sha256=told.value().hex())
    tell(sender, [messages.Kept(files=[(0, A_DIGEST)]), messages.Accept(below=1), complete])
    assert sender.ended
    assert sender.next_reads() == []


def test_claims_of_every_block_cost_the_sender_no_more_than_their_digests() -> None:
    manifest = manifest_of({"big": bytes(4 * BLOCK_SIZE)})
    sender = Sender(manifest, max_message_size=16384, now=NOW)
    sender.release()
    tell(sender, [messages.Have(file=0, first=0, sha256=[A_DIGEST] * 4), messages.Accept(below=1)])
    source = MemorySource(manifest, {"big": bytes(4 * BLOCK_SIZE)})
    (check,) = sender.next_reads()
    assert (check.offset, check.length) == (3 * BLOCK_SIZE, BLOCK_SIZE)
    sender.blocks_read(source.read([check]), NOW)
    # It was false, so everything comes.
    assert [request.offset for request in sender.next_reads()] == [0]


# A sender that lies.


def resuming_receiver() -> tuple[Receiver, MemoryDestination]:
    """A receiver that has two blocks of `big`, and `d/small`."""
    manifest = manifest_of(TREE)
    destination = MemoryDestination(set())
    content = TREE["big"]
    assert content is not None
    destination._parts["big"] = manifest.entries[0], bytearray(content[: 2 * BLOCK_SIZE])
    destination._saved["d/small"] = manifest.entries[4]
    destination.files["d/small"] = b"small"
    receiver = Receiver(ask=False, now=NOW)
    tell(receiver, list(messages.manifest_messages(manifest)))
    while operations := receiver.next_operations():
        receiver.operations_done(destination.apply(operations), NOW)
    return receiver, destination


def data(kind: FrameKind, file: int, offset: int, payload: bytes) -> bytes:
    return FRAME_HEADER.pack(kind, file, len(payload), offset) + payload


@pytest.mark.parametrize(
    "frames",
    [
        [data(FrameKind.DATA, 0, BLOCK_SIZE, bytes(BLOCK_SIZE))],
        [data(FrameKind.DATA, 0, 3 * BLOCK_SIZE, bytes(17))],
        [data(FrameKind.FILE_END, 0, 2 * BLOCK_SIZE, bytes(32))],
        [data(FrameKind.DATA, 4, 0, b"small")],
        [
            data(FrameKind.DATA, 0, 2 * BLOCK_SIZE, bytes(BLOCK_SIZE)),
            data(FrameKind.DATA, 0, 0, bytes(BLOCK_SIZE)),
        ],
    ],
    ids=["in the middle", "after a gap", "an early end", "of a kept file", "anew too late"],
)
def test_data_that_does_not_fit_what_is_here_ends_the_transfer(frames: list[bytes]) -> None:
    receiver, destination = resuming_receiver()
    for frame in frames:
        receiver.receive_data(frame, NOW)
    assert isinstance(failure_of(receiver), RemoteProtocolError)
    assert destination.files == {"d/small": b"small"}


# Any order of things.


class Reconnections(RuleBasedStateMachine):
    """Cuts at any message, senders restarted with other content, parts that went bad; in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes | None] = {
            "a": bytes(2 * BLOCK_SIZE + 1),
            "b": b"b",
            "c": bytes(BLOCK_SIZE),
        }
        self.destination = MemoryDestination(set())
        self.seed = 0
        self.complete = False

    @rule(after=st.integers(0, 30))
    def is_cut(self, after: int) -> None:
        self._run(after)

    @rule()
    def goes_on(self) -> None:
        self._run(None)
        assert self.complete

    @rule(path=st.sampled_from("abc"), content=st.integers(1, 255), size=st.integers(0, 2 * BLOCK_SIZE + 5))
    @precondition(lambda self: not self.complete)
    def changes_at_the_sender(self, path: str, content: int, size: int) -> None:
        if path not in self.destination.files:
            # A saved file of the same name would be in the way.
            if self.files[path] is None or len(self.files[path] or b"") != size:
                self.files[path] = bytes([content]) * size

    @rule(path=st.sampled_from("abc"))
    def loses_its_part(self, path: str) -> None:
        self.destination._parts.pop(path, None)

    def _run(self, after: int | None) -> None:
        self.seed += 1
        simulation = Simulation(self.files, seed=self.seed, conditions=QUICK, destination=self.destination)
        simulation.cut_after = after
        simulation.run()
        if after is None:
            assert isinstance(simulation.sender_events[-1], Delivered), simulation.sender_events[-1]
        self.complete = simulation.destination.finished
        self.destination = simulation.destination.again()

    @invariant()
    def what_is_saved_is_whole(self) -> None:
        for path, content in self.destination.files.items():
            assert content == self.files[path]

    @invariant()
    def what_is_held_is_a_beginning(self) -> None:
        for path, (entry, part) in self.destination._parts.items():
            content = self.files[path]
            assert content is not None
            if entry == manifest_of({path: content}).entries[0]:
                assert content.startswith(bytes(part))


TestReconnections = Reconnections.TestCase
TestReconnections.settings = settings(max_examples=share(20), stateful_step_count=12)


def test_the_digest_of_a_transfer_does_not_depend_on_what_was_kept() -> None:
    digests = [Algorithm.SHA256.digest(bytes([i])) for i in range(6)]
    whole = TransferDigest(Algorithm.SHA256)
    for file, digest in enumerate(digests):
        whole.add(file, digest)
    for kept in range(1 << 6):
        parts = TransferDigest(Algorithm.SHA256)
        for file, digest in enumerate(digests):
            if kept >> file & 1:
                parts.keep(file, digest)
        for file, digest in enumerate(digests):
            if not kept >> file & 1:
                parts.add(file, digest)
        assert parts.value() == whole.value()


def test_blocks_are_counted_from_the_size() -> None:
    assert [block_count(size) for size in (0, 1, BLOCK_SIZE, BLOCK_SIZE + 1)] == [0, 1, 1, 2]
    assert len(digests_of(bytes(BLOCK_SIZE + 1))) == 2 * DIGEST_SIZE
