"""Data that comes before anything is accepted, as a receiver lets it that takes whatever is offered."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyx.errors import FlyxError, RemoteProtocolError, TransferRefused
from flyx.transfer import messages
from flyx.transfer.digests import Algorithm
from flyx.transfer.frames import FRAME_HEADER, FrameKind
from flyx.transfer.manifest import BLOCK_SIZE
from flyx.transfer.messages import EAGER_CREDIT
from flyx.transfer.receiver import Receiver
from flyx.transfer.sender import Sender
from flyx.transfer.sender_events import FileConfirmed, Resumed
from flyx.transfer.session import EntryLeftOut, Failed
from tests.simulator import (
    FASTEST,
    Conditions,
    MemoryDestination,
    MemorySource,
    MemoryStream,
    Simulation,
    StreamDestination,
    deliver,
    manifest_of,
)
from tests.thoroughness import share
from tests.transfer.test_hostile_peers import control, file_frames, frame

NOW = 50.0
TREE: dict[str, bytes | None] = {
    "big": (random.Random(1).randbytes(50_000) * 50)[: 2 * BLOCK_SIZE + 17],
    "d": None,
    "d/empty": b"",
    "d/small": b"small",
    "last": random.Random(3).randbytes(5000),
}
SMALL: dict[str, bytes | None] = {"a": b"a" * 5000, "b": b"b" * 10}
SIZE = sum(len(content) for content in TREE.values() if content)
LONG_PATH = Conditions(network_delay=1.0, disk_delay=0.001, max_message_size=65_536)


class Watched(MemoryDestination):
    """Notes how much data had come when all was planned."""

    arrived = 0

    def watch(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def _apply(self, operation: Any) -> Any:
        if type(operation).__name__.startswith("Plan"):
            self.arrived = self._simulation.receiver.data_received
        return super()._apply(operation)


# Whole transfers.


@pytest.mark.parametrize("eager", [False, True])
def test_data_does_not_wait_for_what_accepts_it_if_that_is_told_beforehand(eager: bool) -> None:
    slow_disk = Conditions(network_delay=0.01, disk_delay=5.0, max_message_size=65_536)
    destination = Watched(set())
    simulation = Simulation(TREE, seed=1, conditions=slow_disk, destination=destination, eager=eager)
    destination.watch(simulation)
    deliver(simulation)
    assert destination.files == TREE
    assert (0 < destination.arrived <= EAGER_CREDIT) is eager
    # Nothing was sent twice.
    assert simulation.data_sent < SIZE + 10_000


def found_whole(destination: MemoryDestination) -> None:
    entry = manifest_of(TREE).entries[0]
    destination._saved["big"] = entry
    destination.files["big"] = TREE["big"]


def found_in_part(destination: MemoryDestination) -> None:
    content = TREE["big"]
    assert content
    destination._parts["big"] = manifest_of(TREE).entries[0], bytearray(content[:BLOCK_SIZE])


def found_another(destination: MemoryDestination) -> None:
    destination._parts["big"] = manifest_of(TREE).entries[0], bytearray(2 * BLOCK_SIZE)


def found_the_last(destination: MemoryDestination) -> None:
    destination._saved["last"] = manifest_of(TREE).entries[4]
    destination.files["last"] = TREE["last"]


def unwanted(destination: MemoryDestination) -> None:
    destination.unwanted = {"big": "not_wanted"}


def an_unwanted_directory(destination: MemoryDestination) -> None:
    destination.unwanted = {"d": "not_wanted", "d/empty": "above_left_out", "d/small": "above_left_out"}


def compared_and_the_same(destination: MemoryDestination) -> None:
    content = TREE["big"]
    assert content
    destination.here = {"big": content}


def compared_and_another(destination: MemoryDestination) -> None:
    destination.here = {"big": bytes(2 * BLOCK_SIZE + 17)}


def found_by_another_algorithm(destination: MemoryDestination) -> None:
    found_in_part(destination)
    destination.algorithm = Algorithm.SHA256


def found_nothing_but_another_algorithm(destination: MemoryDestination) -> None:
    destination._saved["another"] = manifest_of({"another": b""}).entries[0]
    destination.algorithm = Algorithm.SHA256


WORLDS = [
    *(found_whole, found_in_part, found_another, found_the_last, unwanted, an_unwanted_directory),
    *(compared_and_the_same, compared_and_another, found_by_another_algorithm),
    found_nothing_but_another_algorithm,
]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("seed", range(share(4)))
def test_what_turns_out_not_to_be_needed_is_dropped_and_all_else_is_as_without(world: Any, seed: int) -> None:
    ends = []
    for eager in (False, True):
        destination = MemoryDestination(set())
        destination.algorithm = Algorithm.BLAKE3
        world(destination)
        conditions = LONG_PATH if seed % 2 else Conditions(max_message_size=65_536)
        simulation = Simulation(
            TREE, seed=seed, conditions=conditions, destination=destination, eager=eager, packs=seed % 2 == 0
        )
        result = deliver(simulation)
        told = [e for e in simulation.sender_events if isinstance(e, Resumed | EntryLeftOut | FileConfirmed)]
        told += [e for e in simulation.receiver_events if isinstance(e, EntryLeftOut)]
        counts = destination.written, simulation.sender.spared_bytes
        ends.append((result, destination.files, told, counts, simulation.data_sent))
    *without, sent = ends[0]
    *early, sent_early = ends[1]
    assert early == without
    assert sent < sent_early <= sent + EAGER_CREDIT + FRAME_HEADER.size


@given(
    sizes=st.lists(st.integers(0, 300_000), min_size=1, max_size=12),
    there=st.lists(st.sampled_from(["", "saved", "part", "unwanted", "here", "refused"]), max_size=12),
    faults=st.sets(st.integers(0, 11), max_size=2),
    algorithms=st.sampled_from([FASTEST, FASTEST[1:]]),
    seed=st.integers(0, 1 << 30),
)
@settings(max_examples=share(60))
def test_what_arrives_is_the_same_as_without(
    sizes: list[int],
    there: list[str],
    faults: set[int],
    algorithms: tuple[Algorithm, ...],
    seed: int,
) -> None:
    chance = random.Random(seed)
    files: dict[str, bytes | None] = {f"{n:02}": chance.randbytes(size) for n, size in enumerate(sizes)}
    conditions = Conditions(
        network_delay=chance.choice([0.001, 0.3]),
        disk_delay=chance.choice([0.001, 0.3]),
        max_message_size=chance.choice([16_384, 262_144]),
    )
    ends = []
    for eager in (False, True):
        destination = MemoryDestination(set())
        destination.algorithm = random.Random(seed).choice(FASTEST)
        for (path, content), how in zip(files.items(), there, strict=False):
            assert content is not None
            entry = manifest_of(files).entries[list(files).index(path)]
            match how:
                case "saved":
                    destination._saved[path], destination.files[path] = entry, content
                case "part":
                    destination._parts[path] = entry, bytearray(content[: len(content) // BLOCK_SIZE])
                case "unwanted":
                    destination.unwanted[path] = "not_wanted"
                case "here":
                    destination.here[path] = content if len(content) % 2 else bytes(len(content))
                case "refused":
                    destination.refused[path] = "destination_exists"
        simulation = Simulation(
            files,
            seed=seed,
            conditions=conditions,
            destination=destination,
            faults={f"{n:02}": (0, "file_changed") for n in faults},
            algorithms=algorithms,
            eager=eager,
        )
        ends.append((deliver(simulation), destination.files, destination.written))
    assert ends[0] == ends[1]


def test_a_refusal_after_data_has_come_writes_nothing() -> None:
    receiver, destination = eager_receiver()
    destination.existing = {"b"}
    receiver.receive_data(b"".join(A + B), NOW)
    offer(receiver, destination)
    (refusal,) = said(receiver)
    assert isinstance(refusal, messages.Cancel)
    assert not destination.written
    assert not destination.files
    sender, _ = eager_sender()
    control(sender, refusal)
    assert isinstance(error_of(sender), TransferRefused)


def test_of_a_manifest_in_pieces_nothing_is_sent_before_it_is_accepted() -> None:
    files: dict[str, bytes | None] = {f"d/{i:05}": b"x" * 100 for i in range(1000)}
    simulation = Simulation(files, seed=3, eager=True)
    deliver(simulation)
    assert simulation.destination.files == files
    assert not simulation.bytes_compared


def test_of_a_stream_nothing_is_sent_before_it_is_accepted() -> None:
    """One that its program has not written yet would be waited for, whatever the receiver has to say."""
    stream = MemoryStream([b"a" * 1000, b"b"])
    simulation = Simulation({}, seed=4, stream=stream, destination=StreamDestination(), eager=True)
    deliver(simulation)
    assert simulation.destination.files == {"stream": stream.content}
    assert not simulation.bytes_compared


@pytest.mark.parametrize("offset", [0, BLOCK_SIZE])
@pytest.mark.parametrize("kept", [False, True])
def test_a_file_that_cannot_be_read_is_lost_only_if_the_receiver_wants_it(offset: int, kept: bool) -> None:
    destination = MemoryDestination(set())
    destination.algorithm = Algorithm.BLAKE3
    if kept:
        found_whole(destination)
    faults = {"big": (offset, "file_changed")}
    simulation = Simulation(TREE, seed=5, destination=destination, faults=faults, eager=True)
    deliver(simulation)
    lost = EntryLeftOut(0, "file_changed")
    assert [e for e in simulation.sender_events if isinstance(e, EntryLeftOut)] == ([] if kept else [lost])
    assert simulation.destination.files == {k: v for k, v in TREE.items() if kept or k != "big"}


# A receiver, whatever its sender does.

A, B = file_frames(0, b"a" * 5000), file_frames(1, b"b" * 10)
ANEW = frame(FrameKind.ANEW, 0, 0, b"")


def eager_receiver() -> tuple[Receiver, MemoryDestination]:
    return Receiver(ask=False, now=NOW, eager=True), MemoryDestination(set())


def offer(receiver: Receiver, destination: MemoryDestination) -> None:
    """Tell all of the manifest, and have it planned."""
    control(receiver, *messages.manifest_messages(manifest_of(SMALL)))
    work(receiver, destination)


def work(receiver: Receiver, destination: MemoryDestination) -> None:
    while operations := receiver.next_operations():
        receiver.operations_done(destination.apply(operations), NOW)


def said(machine: Receiver | Sender) -> list[messages.ControlMessage]:
    told = iter(machine.next_control, None)
    return [messages.parse_control_untrusted(text) for text in told if text is not None]


def error_of(machine: Receiver | Sender) -> FlyxError:
    (failed,) = (event for event in iter(machine.next_event, None) if isinstance(event, Failed))
    return failed.error


def test_data_may_overtake_the_manifest() -> None:
    receiver, destination = eager_receiver()
    for part in A + B:
        receiver.receive_data(part, NOW)
    offer(receiver, destination)
    control(receiver, messages.Done())
    assert receiver.ended
    assert destination.files == SMALL


def test_nothing_reaches_the_disk_before_all_is_planned() -> None:
    receiver, destination = eager_receiver()
    control(receiver, *messages.manifest_messages(manifest_of(SMALL)))
    receiver.receive_data(b"".join(A + B), NOW)
    planning = receiver.next_operations()
    assert {type(operation).__name__ for operation in planning} == {"PlanTree", "PlanEntries"}
    assert receiver.bytes_buffered == 0
    receiver.operations_done(destination.apply(planning), NOW)
    assert "WriteBlock" in {type(operation).__name__ for operation in receiver.next_operations()}


@pytest.mark.parametrize("eager", [False, True])
def test_no_more_comes_than_there_is_leave_for(eager: bool) -> None:
    receiver = Receiver(ask=False, now=NOW, eager=eager)
    room = EAGER_CREDIT - FRAME_HEADER.size
    if eager:
        receiver.receive_data(frame(FrameKind.DATA, 0, 0, bytes(room)), NOW)
        assert not receiver.ended
    receiver.receive_data(ANEW, NOW)
    assert isinstance(error_of(receiver), RemoteProtocolError)


@pytest.mark.parametrize("data", [b"", "text", b"\x00", frame(77, 0, 0, b"")])
def test_what_is_no_data_ends_the_transfer_at_once_and_fills_no_memory(data: bytes | str) -> None:
    receiver, _ = eager_receiver()
    receiver.receive_data(data, NOW)
    assert isinstance(error_of(receiver), RemoteProtocolError)


@pytest.mark.parametrize(
    "parts", [B, [*A[:2], *B], [ANEW], [A[0], ANEW], [frame(FrameKind.DATA, 2, 0, b"x")]]
)
def test_data_that_does_not_fit_the_manifest_ends_the_transfer_when_that_is_known(parts: list[bytes]) -> None:
    receiver, destination = eager_receiver()
    for part in parts:
        receiver.receive_data(part, NOW)
    assert not receiver.ended
    offer(receiver, destination)
    assert isinstance(error_of(receiver), RemoteProtocolError)
    assert not destination.files


def going_without() -> tuple[Receiver, MemoryDestination]:
    """A receiver that has heard of a's beginning, and goes without it."""
    receiver, destination = eager_receiver()
    destination.unwanted = {"a": "not_wanted"}
    receiver.receive_data(A[0], NOW)
    offer(receiver, destination)
    (accept,) = (told for told in said(receiver) if isinstance(told, messages.Accept))
    assert accept.anew
    return receiver, destination


def test_what_was_under_way_is_dropped_until_the_sender_begins_anew() -> None:
    receiver, destination = going_without()
    receiver.receive_data(A[1] + A[2] + B[0], NOW)
    receiver.receive_data(ANEW + b"".join(B), NOW)
    work(receiver, destination)
    control(receiver, messages.Done())
    assert receiver.ended
    assert destination.files == {"b": SMALL["b"]}


def test_a_sender_that_does_not_begin_anew_is_heard_no_longer_than_there_was_leave() -> None:
    receiver, _ = going_without()
    for _ in range(EAGER_CREDIT // len(A[0])):
        receiver.receive_data(A[0], NOW)
    assert isinstance(error_of(receiver), RemoteProtocolError)


@pytest.mark.parametrize("parts", [[ANEW, ANEW], [ANEW, *A], [ANEW, B[0], ANEW, *B]])
def test_a_sender_begins_anew_once_and_with_what_is_accepted(parts: list[bytes]) -> None:
    receiver, destination = going_without()
    receiver.receive_data(b"".join(parts), NOW)
    work(receiver, destination)
    assert isinstance(error_of(receiver), RemoteProtocolError)


def test_a_receiver_that_accepts_less_than_all_has_it_begun_anew() -> None:
    receiver, destination = eager_receiver()
    manifest = manifest_of({f"{n:03}": b"x" for n in range(300)})
    told = list(messages.manifest_messages(manifest))
    control(receiver, *told[:-2])
    work(receiver, destination)
    (accept,) = (one for one in said(receiver) if isinstance(one, messages.Accept))
    assert accept.below < 300
    assert accept.anew


# A sender, whatever its receiver does.


def offering(
    eager: Algorithm | None = Algorithm.SHA256, files: dict[str, bytes | None] = SMALL
) -> tuple[Sender, MemorySource]:
    """A sender that has told all of its manifest."""
    manifest = manifest_of(files)
    sender = Sender(manifest, max_message_size=65_536, now=NOW, eager=eager)
    sender.release()
    assert sender.next_reads() == []
    said(sender)
    return sender, MemorySource(manifest, files)


def eager_sender() -> tuple[Sender, MemorySource]:
    """A sender that has offered SMALL, and sent all of it."""
    sender, source = offering()
    assert read(sender, source) == b"".join(A + B)
    return sender, source


def read(sender: Sender, source: MemorySource) -> bytes:
    """Have blocks read, and return what is sent."""
    while requests := sender.next_reads():
        sender.blocks_read(source.read(requests), NOW)
    return b"".join(data for data in iter(sender.next_data, None) if data is not None)


DIGEST = "0" * 64


@pytest.mark.parametrize(
    "lies",
    [
        [messages.Saved(files=[0])],
        [messages.Credit(bytes=EAGER_CREDIT, written=5000)],
        [messages.Credit(bytes=1 << 40, written=0)],
        [messages.Complete(files=2, bytes=5010, sha256=DIGEST)],
        [messages.Accept(below=2, rate=1000)],
        [messages.Accept(below=2), messages.Accept(below=2, anew=True)],
        [messages.Kept(files=[(0, DIGEST)]), messages.Accept(below=2)],
        [messages.Have(file=0, first=0, sha256=[DIGEST]), messages.Accept(below=2)],
        [messages.LeftOut(entries=[(0, "not_wanted")]), messages.Accept(below=2)],
        [messages.HashWith(algorithm=Algorithm.BLAKE3), messages.Accept(below=2)],
        [messages.Accept(below=2, anew=True), messages.Saved(files=[0])],
        [messages.Accept(below=2, anew=True), messages.Credit(bytes=EAGER_CREDIT, written=5000)],
        [messages.Accept(below=1), messages.Saved(files=[1])],
    ],
)
def test_what_left_early_is_no_more_than_the_receiver_accepts(lies: list[messages.ControlMessage]) -> None:
    sender, _ = eager_sender()
    control(sender, *lies)
    assert isinstance(error_of(sender), RemoteProtocolError)


def test_a_receiver_that_gave_no_leave_cannot_have_it_begun_anew() -> None:
    sender, source = offering(eager=None)
    assert read(sender, source) == b""
    control(sender, messages.Accept(below=2, anew=True))
    assert isinstance(error_of(sender), RemoteProtocolError)


def test_what_is_read_when_the_receiver_has_it_begun_anew_is_of_no_use() -> None:
    sender, source = offering()
    requests = sender.next_reads()
    assert [request.file for request in requests] == [0, 1]
    control(sender, messages.LeftOut(entries=[(0, "not_wanted")]), messages.Accept(below=2, anew=True))
    control(sender, messages.Credit(bytes=1 << 20, written=0))
    sender.blocks_read(source.read(requests), NOW)
    assert read(sender, source) == ANEW + b"".join(B)


def test_what_is_read_when_the_receiver_begins_to_compare_is_no_answer() -> None:
    sender, source = offering()
    requests = sender.next_reads()
    control(sender, messages.HashWith(algorithm=Algorithm.BLAKE3), messages.Compare(files=[1]))
    sender.blocks_read(source.read(requests), NOW)
    assert read(sender, source) == b""
    (told,) = said(sender)
    digest = Algorithm.BLAKE3.digest(Algorithm.BLAKE3.digest(b"b" * 10))
    assert told == messages.Digests(files=[(1, digest.hex())])


def test_what_is_packed_when_the_receiver_begins_to_compare_stays() -> None:
    sender, source = offering()
    sender.blocks_read(source.read(sender.next_reads()), NOW)
    control(sender, messages.Compare(files=[1]))
    assert sender.next_data() is None
    assert read(sender, source) == b""
    control(sender, messages.Accept(below=2, anew=True), messages.Credit(bytes=1 << 20, written=0))
    assert read(sender, source) == ANEW + b"".join(A + B)


def test_after_data_that_left_early_no_more_leaves_than_is_accepted() -> None:
    sender, source = eager_sender()
    control(sender, messages.Accept(below=1, anew=True), messages.Credit(bytes=1 << 20, written=0))
    assert read(sender, source) == ANEW + b"".join(A)


def test_a_file_that_left_early_cannot_be_saved_before_it_is_sent_again() -> None:
    files: dict[str, bytes | None] = {"a": b"a" * BLOCK_SIZE, "b": b"b" * 10}
    sender, source = offering(files=files)
    source.packs = True
    sender.blocks_read(source.read(sender.next_reads()), NOW)
    assert [request.file for request in sender.next_reads()] == [1]
    control(sender, messages.Accept(below=2, anew=True), messages.Saved(files=[0]))
    assert isinstance(error_of(sender), RemoteProtocolError)


def test_no_more_is_read_than_may_leave_early() -> None:
    files: dict[str, bytes | None] = {"big": bytes(20 * BLOCK_SIZE)}
    sender, source = offering(files=files)
    sent = read(sender, source)
    assert EAGER_CREDIT - 65_536 < len(sent) <= EAGER_CREDIT
    assert sender.ready_bytes <= BLOCK_SIZE
