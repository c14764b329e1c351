"""A sync that failed: nothing written before it is believed again because a later one succeeds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyx.errors import StorageError
from flyx.storage import durability, partial
from flyx.storage.writer import Destination, ExistingPolicy
from flyx.transfer.disk import EntriesPlanned, FinishTree, Held, Kept, Operation, OperationFailed
from flyx.transfer.manifest import BLOCK_SIZE, DIGEST_SIZE
from tests.effort import share, some
from tests.storage.failing_disk import FailingDisk
from tests.storage.support import Offer, failure, saved_in, succeed

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
            blocks = len(one.digests) // DIGEST_SIZE if isinstance(one, Held) else 0
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
        assert [type(one) for one in outcome.found] == [Held, Kept]
    (part,) = tmp_path.glob(".flyx/*/*.part")
    status = (tmp_path / "g").stat()
    (tmp_path / "g").write_bytes(b"x")
    os.utime(tmp_path / "g", ns=(status.st_atime_ns, status.st_mtime_ns))
    with part.open("r+b") as file:
        file.write(b"damaged")
    with Destination(tmp_path, ExistingPolicy.OVERWRITE) as destination:
        assert succeed(destination, offer.plan())[-1] == EntriesPlanned(2)
