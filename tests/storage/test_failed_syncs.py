"""A sync that failed: nothing written before it is believed again because a later one succeeds."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyx.errors import LocalProtocolError, StorageError
from flyx.storage import durability, partial
from flyx.storage.writer import Destination, ExistingPolicy
from flyx.transfer.digests import DIGEST_SIZE
from flyx.transfer.disk import BlocksKept, EntriesPlanned, FinishTree, Kept, Operation, OperationFailed
from flyx.transfer.manifest import BLOCK_SIZE
from tests.storage.failing_disk import FailingDisk
from tests.storage.support import Offer, failure, saved_in, succeed
from tests.thoroughness import share, some

CONTENTS: dict[str, bytes | None] = {
    "d": None,
    "d/small": b"small",
    "d/big": os.urandom(2 * BLOCK_SIZE + 100),
    "d/e": None,
    "d/e/middle": os.urandom(BLOCK_SIZE),
    "last": b"last",
}
OFFER = Offer(CONTENTS)


@pytest.fixture(params=[1, 100], ids=["syncfs", "fsync"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups made durable at once, and one by one; after every block a checkpoint."""
    monkeypatch.setattr(durability, "_FEW", request.param)
    monkeypatch.setattr(partial, "CHECKPOINT_INTERVAL", 0.0)


def receive(
    out: Path, existing: ExistingPolicy = ExistingPolicy.REFUSE, batch: int = 100, stop: int = 100
) -> OperationFailed | None:
    """Receive what an honest sender sends, so many operations at a time; return why it ended early."""
    with Destination(out, existing) as destination:
        planned = destination.apply(OFFER.plan())[-1]
        if isinstance(planned, OperationFailed):
            return planned
        assert isinstance(planned, EntriesPlanned)
        operations = [*rest(planned), FinishTree()]
        for at in range(0, min(len(operations), stop), batch):
            last = destination.apply(operations[at : at + batch])[-1]
            if isinstance(last, OperationFailed):
                return last
    return None


def rest(planned: EntriesPlanned) -> list[Operation]:
    there = {OFFER.entries[one.file].path: one for one in planned.found}
    operations: list[Operation] = []
    for path, content in CONTENTS.items():
        one = there.get(path)
        if content is not None and not isinstance(one, Kept):
            blocks = len(one.digests) // DIGEST_SIZE if isinstance(one, BlocksKept) else 0
            operations += [*OFFER.writes(path)[blocks:], OFFER.finish(path)]
    return operations


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("existing", list(ExistingPolicy))
@pytest.mark.parametrize(("batch", "forgets"), [(100, False), (1, True)], ids=["in cache", "not in cache"])
@pytest.mark.parametrize("earlier", [False, True], ids=["first run", "second run"])
def test_what_is_delivered_is_on_the_disk_whichever_sync_fails(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    existing: ExistingPolicy,
    batch: int,
    forgets: bool,
    earlier: bool,
) -> None:
    disk = FailingDisk(monkeypatch)
    for failing in some(range(1000)):
        out = tmp_path / str(failing)
        out.mkdir()
        if earlier:
            receive(out, existing, 1, stop=4)
        disk.failing, disk.syncs = {failing}, 0
        failed = receive(out, existing, batch)
        if failed is None and disk.syncs <= failing:
            break
        assert failed is None or isinstance(failed.error, StorageError)
        if forgets:
            disk.forget_cache(out)
        if failed:
            # What is under its name is good, now and after the cache is gone.
            files = {path: CONTENTS[path] for path in saved_in(out) if CONTENTS[path] is not None}
            assert {path: (out / path).read_bytes() for path in files} == files
            assert receive(out, existing, batch) is None
        assert disk.lost(out, CONTENTS) == []
        assert saved_in(out) == set(CONTENTS)
    assert failing > 5


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=share(40))
@given(st.lists(st.tuples(st.sets(st.integers(0, 30)), st.integers(1, 12), st.booleans()), max_size=5))
@pytest.mark.usefixtures("few")
def test_runs_that_fail_again_and_again_deliver_what_is_on_the_disk(
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[set[int], int, bool]]
) -> None:
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patched:
        disk = FailingDisk(patched)
        for failing, stop, forgets in [*runs, (set(), 100, False)]:
            disk.failing, disk.syncs = failing, 0
            receive(out, batch=3, stop=stop)
            if forgets:
                disk.forget_cache(out)
        assert disk.lost(out, CONTENTS) == []


def test_after_a_failed_sync_none_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial, "CHECKPOINT_INTERVAL", 0.0)
    disk = FailingDisk(monkeypatch)
    for failing in range(3):
        disk.failing, disk.syncs = {failing}, 0
        with Destination(tmp_path / str(failing)) as destination:
            assert isinstance(failure(destination.apply(OFFER.everything())), StorageError)
        assert disk.syncs == failing + 1


LARGE = Offer({"d": None, "d/f": os.urandom(7 * BLOCK_SIZE), "d/g": os.urandom(3 * BLOCK_SIZE)})


@pytest.fixture
def doubted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a run whose last sync failed has left a file and four blocks of another."""
    with monkeypatch.context() as patched:
        patched.setattr(partial, "CHECKPOINT_INTERVAL", 0.0)
        with Destination(tmp_path) as destination:
            succeed(destination, [*LARGE.plan(), *LARGE.writes("d/g"), LARGE.finish("d/g")])
            succeed(destination, LARGE.writes("d/f")[:5])
            FailingDisk(patched).failing = {0}
            assert isinstance(failure(destination.apply(LARGE.writes("d/f")[5:6])), StorageError)
    return tmp_path


class Reads:
    """Counts what is read of files, and acts when it comes to one of the reads."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, at: int = 0, act: Callable[[], None] | None = None
    ) -> None:
        self.count = 0
        preadv = os.preadv

        def counted(handle: int, buffers: list[memoryview], offset: int) -> int:
            self.count += 1
            if act and self.count == at:
                act()
            return preadv(handle, buffers, offset)

        monkeypatch.setattr(os, "preadv", counted)


def found(destination: Destination, offer: Offer = LARGE) -> list[tuple[str, int]]:
    """What there is of an offer: the kind of each, and its blocks if it is not complete."""
    planned = succeed(destination, offer.plan())[-1]
    assert isinstance(planned, EntriesPlanned)
    return [
        (type(one).__name__, len(one.digests) // DIGEST_SIZE if isinstance(one, BlocksKept) else 0)
        for one in planned.found
    ]


LOCK = threading.Lock


class AnnouncedLock:
    """A lock that sets an event when somebody has to wait for it."""

    def __init__(self, waited_for: threading.Event) -> None:
        self._waited_for = waited_for
        self._lock = LOCK()

    def acquire(self, blocking: bool = True) -> bool:
        if self._lock.acquire(blocking=False):
            return True
        if blocking:
            self._waited_for.set()
            self._lock.acquire()
        return blocking

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


@pytest.mark.parametrize("read", [1, 3, 4, 6])
def test_a_transfer_that_gives_up_waits_for_one_block_of_what_is_read_back(
    doubted: Path, monkeypatch: pytest.MonkeyPatch, read: int
) -> None:
    """Four blocks of one file, three of the other; what was not read is neither believed nor given up."""
    waited_for = threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr(threading, "Lock", lambda: AnnouncedLock(waited_for))
        destination = Destination(doubted)
    stopper = threading.Thread(target=destination.abandon)

    def give_up() -> None:
        stopper.start()
        assert waited_for.wait(60)

    with monkeypatch.context() as patched:
        reads = Reads(patched, read, give_up)
        assert isinstance(failure(destination.apply(LARGE.plan())), LocalProtocolError)
        assert reads.count == read
    stopper.join()
    assert destination.keeps
    with Destination(doubted) as destination:
        assert found(destination) == [("BlocksKept", 4), ("Kept", 0)]


def go_on(out: Path, offer: Offer = LARGE) -> tuple[list[tuple[str, int]], int]:
    """Find what there is, accept, receive a block; return what was there, and how many blocks were read."""
    with pytest.MonkeyPatch.context() as patched, Destination(out, ExistingPolicy.OVERWRITE) as destination:
        reads = Reads(patched)
        there = found(destination, offer)
        count = reads.count
        succeed(destination, offer.writes("d/f")[dict(there).get("BlocksKept", 0) :][:1])
    return there, count


def test_a_journal_of_which_all_was_read_back_is_doubted_no_more(doubted: Path) -> None:
    assert go_on(doubted) == ([("BlocksKept", 4), ("Kept", 0)], 7)
    assert go_on(doubted) == ([("BlocksKept", 5), ("Kept", 0)], 1)


def test_a_journal_of_which_only_a_part_was_read_back_stays_doubted(doubted: Path) -> None:
    without = Offer({path: content for path, content in LARGE.contents.items() if path != "d/g"})
    assert go_on(doubted, without) == ([("BlocksKept", 4)], 4)
    assert go_on(doubted) == ([("BlocksKept", 5), ("Kept", 0)], 8)
    assert go_on(doubted) == ([("BlocksKept", 6), ("Kept", 0)], 1)


@pytest.mark.parametrize("pattern", ["d/g", ".flyx/*/*.part"])
def test_what_was_not_as_it_should_be_is_not_believed_when_the_journal_is(
    doubted: Path, pattern: str
) -> None:
    (path,) = doubted.glob(pattern)
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"damaged")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    if pattern == "d/g":
        assert go_on(doubted) == ([("BlocksKept", 4)], 7)
        assert go_on(doubted) == ([("BlocksKept", 5)], 1)
    else:
        assert go_on(doubted) == ([("Kept", 0)], 4)
        assert go_on(doubted) == ([("BlocksKept", 1), ("Kept", 0)], 1)


def test_a_later_run_reads_back_all_that_it_believes_after_a_failed_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what a checkpoint vouches for: that disk has lied before."""
    monkeypatch.setattr(partial, "CHECKPOINT_INTERVAL", 0.0)
    offer = Offer({"f": os.urandom(5 * BLOCK_SIZE), "g": b"g"})
    with Destination(tmp_path) as destination:
        succeed(destination, [*offer.plan(), *offer.writes("g"), offer.finish("g"), *offer.writes("f")[:4]])
        disk = FailingDisk(monkeypatch)
        disk.failing = {0}
        assert isinstance(failure(destination.apply(offer.writes("f")[4:])), StorageError)
    monkeypatch.undo()
    with Destination(tmp_path) as destination:
        outcome = succeed(destination, offer.plan())[-1]
        assert isinstance(outcome, EntriesPlanned)
        assert [type(one) for one in outcome.found] == [BlocksKept, Kept]
    (part,) = tmp_path.glob(".flyx/*/*.part")
    status = (tmp_path / "g").stat()
    (tmp_path / "g").write_bytes(b"x")
    os.utime(tmp_path / "g", ns=(status.st_atime_ns, status.st_mtime_ns))
    with part.open("r+b") as file:
        file.write(b"damaged")
    with Destination(tmp_path, ExistingPolicy.OVERWRITE) as destination:
        assert succeed(destination, offer.plan())[-1] == EntriesPlanned(2)
