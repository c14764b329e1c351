"""What a later run finds of an earlier one, however that ended."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flyx.errors import NoSpace
from flyx.storage import durability, partial
from flyx.storage.writer import Destination, ExistingPolicy
from flyx.transfer.digests import DIGEST_SIZE, Algorithm
from flyx.transfer.disk import (
    BlocksKept,
    Changed,
    EntriesPlanned,
    FinishFile,
    FinishTree,
    Kept,
    Operation,
    OperationFailed,
    PlanEntries,
    RestartFile,
    TreePlanned,
)
from flyx.transfer.manifest import BLOCK_SIZE, Manifest
from tests.simulator import digests_of
from tests.storage.support import MTIME_US, Offer, failure, file_entry, mounted, names_in, saved_in, succeed
from tests.thoroughness import some

BIG = os.urandom(2 * BLOCK_SIZE + 100)
CONTENTS: dict[str, bytes | None] = {"d": None, "d/small": b"small", "d/big": BIG, "d/last": b"last"}
OFFER = Offer(CONTENTS)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    return out


def found(destination: Destination, offer: Offer = OFFER) -> dict[str, Kept | BlocksKept | Changed]:
    """Plan a transfer; return what there is of it, by path."""
    outcome = succeed(destination, offer.plan())[-1]
    assert isinstance(outcome, EntriesPlanned)
    return {offer.entries[one.file].path: one for one in outcome.found}


def rest(
    offer: Offer, there: dict[str, Kept | BlocksKept | Changed], algorithm: Algorithm | None = None
) -> list[Operation]:
    """What an honest sender still sends."""
    operations: list[Operation] = []
    for path, content in offer.contents.items():
        one = there.get(path)
        if content is None or isinstance(one, Kept):
            continue
        blocks = len(one.digests) // DIGEST_SIZE if isinstance(one, BlocksKept) else 0
        operations += [*offer.writes(path, algorithm)[blocks:], offer.finish(path)]
    return [*operations, FinishTree()]


def begin(out: Path, offer: Offer = OFFER, existing: ExistingPolicy = ExistingPolicy.REFUSE) -> None:
    """Receive the first file and two blocks of the next, and stop."""
    with Destination(out, existing) as destination:
        first = [*offer.writes("d/small"), offer.finish("d/small"), *offer.writes("d/big")[:2]]
        succeed(destination, [*offer.plan(), *first])


def complete(out: Path, offer: Offer = OFFER, existing: ExistingPolicy = ExistingPolicy.REFUSE) -> None:
    with Destination(out, existing) as destination:
        succeed(destination, rest(offer, found(destination, offer)))


def contents_of(directory: Path) -> dict[str, bytes | None]:
    return {
        path: None if (directory / path).is_dir() else (directory / path).read_bytes()
        for path in names_in(directory)
    }


def only_part(out: Path) -> Path:
    (part,) = out.glob(".flyx/*/*.part")
    return part


def test_a_later_run_finds_saved_files_and_verified_blocks(out: Path) -> None:
    begin(out)
    with Destination(out) as destination:
        there = found(destination)
        small = Algorithm.SHA256.digest(b"small")
        assert there == {
            "d/small": Kept(1, str(out / "d" / "small"), Algorithm.SHA256.digest(small)),
            "d/big": BlocksKept(2, digests_of(BIG[: 2 * BLOCK_SIZE], Algorithm.SHA256)),
        }
        succeed(destination, rest(OFFER, there))
    assert contents_of(out) == CONTENTS


NEW = Algorithm.BLAKE3, Algorithm.SHA256
OLD = (Algorithm.SHA256,)


def found_by(
    destination: Destination, offer: Offer
) -> tuple[TreePlanned, dict[str, Kept | BlocksKept | Changed]]:
    """Plan a transfer; return what that came to, and what there is of it, by path."""
    planned, entries = succeed(destination, offer.plan())
    assert isinstance(planned, TreePlanned)
    assert isinstance(entries, EntriesPlanned)
    return planned, {offer.entries[one.file].path: one for one in entries.found}


@pytest.mark.parametrize("later", [NEW, OLD])
@pytest.mark.parametrize("first", [NEW, OLD])
def test_what_is_here_goes_on_whatever_it_was_hashed_with(
    first: tuple[Algorithm, ...], later: tuple[Algorithm, ...], out: Path
) -> None:
    begin(out, Offer(CONTENTS, algorithms=first))
    offer = Offer(CONTENTS, algorithms=later)
    # The second run writes one block, and the third believes what the journal says since then.
    for blocks in (2, 3):
        with Destination(out) as destination:
            planned, there = found_by(destination, offer)
            # Digests are made anew only if the sender does not know those that there are.
            algorithm = first[0] if first[0] in later else later[0]
            assert planned.algorithm is algorithm
            assert there == {
                "d/small": Kept(1, str(out / "d" / "small"), algorithm.digest(algorithm.digest(b"small"))),
                "d/big": BlocksKept(2, digests_of(BIG[: blocks * BLOCK_SIZE], algorithm)),
            }
            operations = rest(offer, there, algorithm)
            succeed(destination, operations[:1] if blocks == 2 else operations)
    assert contents_of(out) == CONTENTS


def test_what_was_changed_since_is_not_hashed_anew(out: Path) -> None:
    begin(out, Offer(CONTENTS, algorithms=NEW))
    with only_part(out).open("r+b") as part:
        part.write(b"other")
    times = (out / "d" / "small").stat()
    (out / "d" / "small").write_bytes(b"smell")
    os.utime(out / "d" / "small", ns=(times.st_atime_ns, times.st_mtime_ns))
    offer = Offer(CONTENTS, algorithms=OLD)
    with Destination(out, ExistingPolicy.OVERWRITE) as destination:
        planned, there = found_by(destination, offer)
        assert not planned.fresh
        assert there == {}
        succeed(destination, rest(offer, there))
    assert contents_of(out) == CONTENTS


def test_what_is_not_offered_any_more_has_no_place_in_a_journal_of_other_digests(out: Path) -> None:
    begin(out, Offer(CONTENTS, algorithms=NEW))
    offer = Offer({"d": None, "d/last": b"last", "d/more": BIG}, algorithms=OLD)
    with Destination(out) as destination:
        assert found(destination, offer) == {}
        succeed(destination, [*offer.writes("d/last"), offer.finish("d/last"), *offer.writes("d/more")[:1]])
    with Destination(out) as destination:
        there = found(destination, offer)
        assert there["d/more"] == BlocksKept(2, Algorithm.SHA256.digest(BIG[:BLOCK_SIZE]))
        succeed(destination, rest(offer, there))
    assert (out / "d" / "more").read_bytes() == BIG


def test_resuming_reads_one_block_however_many_there_are(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(out)
    read: list[int] = []
    preadv = os.preadv

    def counted(handle: int, buffers: list[memoryview], offset: int) -> int:
        read.append(sum(map(len, buffers)))
        return preadv(handle, buffers, offset)

    monkeypatch.setattr(os, "preadv", counted)
    with Destination(out) as destination:
        assert "d/big" in found(destination)
    assert read == [BLOCK_SIZE]


def test_a_run_that_is_stopped_again_and_again_goes_on_each_time(out: Path) -> None:
    offer = Offer({"f": os.urandom(6 * BLOCK_SIZE)})
    for blocks in range(1, 6):
        with Destination(out) as destination:
            there = found(destination, offer).get("f")
            held = len(there.digests) // DIGEST_SIZE if isinstance(there, BlocksKept) else 0
            assert held == blocks - 1
            succeed(destination, offer.writes("f")[held : held + 1])
    complete(out, offer)
    assert contents_of(out) == offer.contents


def test_the_modes_and_times_of_directories_made_before_are_still_set(out: Path) -> None:
    begin(out)
    complete(out)
    assert (out / "d").stat().st_mtime_ns == MTIME_US * 1000


def test_another_transfer_finds_nothing_and_is_told_of_the_first(out: Path) -> None:
    begin(out)
    other = Offer({"e": BIG})
    with Destination(out) as destination:
        planned, entries = succeed(destination, other.plan())
        assert isinstance(planned, TreePlanned)
        assert [one.root for one in planned.unfinished] == ["d"]
        assert entries == EntriesPlanned(1)
        succeed(destination, rest(other, {}))
    complete(out)
    assert contents_of(out) == CONTENTS | {"e": BIG}


def test_a_transfer_under_way_is_not_taken_from_it(out: Path) -> None:
    with Destination(out) as first:
        succeed(first, [*OFFER.plan(), *OFFER.writes("d/big")[:1]])
        with Destination(out) as second:
            assert found(second) == {}
        succeed(first, [*OFFER.writes("d/big")[1:], *OFFER.files()[:2], OFFER.finish("d/big")])


def test_two_that_resume_at_once_do_not_share(out: Path) -> None:
    begin(out)
    with Destination(out) as first, Destination(out) as second:
        assert "d/big" in found(first)
        planned = second.apply(OFFER.plan())
        # Another process has the journal: for this one, the file that is there is somebody else's.
        assert isinstance(planned[-1], OperationFailed)


@pytest.mark.parametrize("size", [len(BIG), len(BIG) + 5])
def test_a_file_that_changed_begins_anew_and_the_others_go_on(out: Path, size: int) -> None:
    begin(out)
    changed = Offer(CONTENTS | {"d/big": bytes(size)})
    changed.entries[2] = file_entry("d/big", size, mtime_us=MTIME_US + 1)
    changed.manifest = Manifest(changed.entries)
    with Destination(out) as destination:
        there = found(destination, changed)
        assert isinstance(there["d/small"], Kept)
        assert there["d/big"] == Changed(2)
        succeed(destination, rest(changed, there))
    assert contents_of(out) == changed.contents


def test_a_file_left_out_and_one_added_disturb_nothing(out: Path) -> None:
    begin(out)
    other = Offer({"d": None, "d/new": b"new", "d/big": BIG})
    complete(out, other)
    assert contents_of(out) == {"d": None, "d/small": b"small", "d/new": b"new", "d/big": BIG}


def test_a_saved_file_that_the_person_changed_is_refused_and_not_taken_for_ours(out: Path) -> None:
    begin(out)
    (out / "d" / "small").write_bytes(b"SMALL")
    with Destination(out) as destination:
        assert "already exists" in str(failure(destination.apply(OFFER.plan())))
    assert (out / "d" / "small").read_bytes() == b"SMALL"
    # Nothing is lost by that.
    (out / "d" / "small").unlink()
    with Destination(out) as destination:
        assert set(found(destination)) == {"d/big"}


def test_with_overwrite_only_what_is_not_ours_is_replaced(out: Path) -> None:
    (out / "d").mkdir()
    (out / "d" / "last").write_bytes(b"old")
    begin(out, existing=ExistingPolicy.OVERWRITE)
    inode = (out / "d" / "small").stat().st_ino
    complete(out, existing=ExistingPolicy.OVERWRITE)
    assert contents_of(out) == CONTENTS
    assert (out / "d" / "small").stat().st_ino == inode


@pytest.mark.parametrize("there_before", [True, False])
def test_with_rename_a_tree_goes_on_under_the_name_it_had(out: Path, there_before: bool) -> None:
    if there_before:
        (out / "d").mkdir()
    begin(out, existing=ExistingPolicy.RENAME)
    complete(out, existing=ExistingPolicy.RENAME)
    name = "d (1)" if there_before else "d"
    assert contents_of(out / name) == {path[2:]: c for path, c in CONTENTS.items() if path != "d"}
    assert names_in(out) == {path.replace("d", name, 1) for path in CONTENTS} | (
        {"d"} if there_before else set()
    )


def test_with_rename_a_file_goes_on_under_the_name_it_got_at_the_last_moment(out: Path) -> None:
    offer = Offer({"f": b"new", "g": b"g"})
    with Destination(out, ExistingPolicy.RENAME) as destination:
        succeed(destination, [*offer.plan(), *offer.writes("f")])
        (out / "f").write_bytes(b"mine")
        succeed(destination, [offer.finish("f")])
    complete(out, offer, ExistingPolicy.RENAME)
    assert contents_of(out) == {"f": b"mine", "f (1)": b"new", "g": b"g"}


def longer(part: Path) -> None:
    with part.open("ab") as file:
        file.write(b"not verified")


def shorter(part: Path) -> None:
    os.truncate(part, BLOCK_SIZE)


def damaged(part: Path) -> None:
    with part.open("r+b") as file:
        file.seek(2 * BLOCK_SIZE - 1)
        file.write(bytes([BIG[2 * BLOCK_SIZE - 1] ^ 1]))


def a_copy(part: Path) -> None:
    part.rename(part.with_suffix(".old"))
    part.write_bytes(BIG[: 2 * BLOCK_SIZE])


def another_file(part: Path) -> None:
    part.rename(part.with_suffix(".old"))
    part.write_bytes(bytes(BLOCK_SIZE) + BIG[BLOCK_SIZE : 2 * BLOCK_SIZE])


def gone(part: Path) -> None:
    part.unlink()


def a_link(part: Path) -> None:
    part.rename(part.parents[2] / "elsewhere")
    part.symlink_to(part.parents[2] / "elsewhere")


def two_names(part: Path) -> None:
    os.link(part, part.parents[2] / "elsewhere")


@pytest.mark.parametrize(
    ("change", "held"),
    [
        (longer, 2),
        (shorter, 0),
        (damaged, 0),
        (a_copy, 2),
        (another_file, 0),
        (gone, 0),
        (a_link, 0),
        (two_names, 0),
    ],
)
def test_a_partial_file_that_is_not_as_it_was_left_is_not_believed(
    out: Path, change: Callable[[Path], None], held: int
) -> None:
    begin(out)
    change(only_part(out))
    with Destination(out) as destination:
        there = found(destination)
        one = there.get("d/big")
        assert (len(one.digests) // DIGEST_SIZE if isinstance(one, BlocksKept) else 0) == held
        succeed(destination, rest(OFFER, there))
    assert {p: c for p, c in contents_of(out).items() if p != "elsewhere"} == CONTENTS


@pytest.mark.parametrize("mode", [0o777, 0o711])
def test_a_directory_that_others_may_get_into_is_not_taken_up(out: Path, mode: int) -> None:
    begin(out)
    only_part(out).parent.chmod(mode)
    (out / "d" / "small").unlink()
    with Destination(out) as destination:
        assert found(destination) == {}


def test_what_was_begun_and_never_recorded_is_removed(out: Path) -> None:
    begin(out)
    (only_part(out).parent / "77.part").touch()
    with Destination(out) as destination:
        found(destination)
        succeed(destination, OFFER.writes("d/big")[2:])
        assert only_part(out).name != "77.part"


def test_a_sender_that_begins_anew_is_obeyed(out: Path) -> None:
    begin(out)
    with Destination(out) as destination:
        there = found(destination)
        succeed(destination, [RestartFile(2), *rest(OFFER, {k: v for k, v in there.items() if k != "d/big"})])
    assert contents_of(out) == CONTENTS


def test_a_file_held_whole_needs_only_its_end(out: Path) -> None:
    with Destination(out) as destination:
        succeed(destination, [*OFFER.plan(), *OFFER.writes("d/big")])
    with Destination(out) as destination:
        held = found(destination)["d/big"]
        assert isinstance(held, BlocksKept)
        assert len(held.digests) == 3 * DIGEST_SIZE
        succeed(destination, [FinishFile(2)])
    assert (out / "d" / "big").read_bytes() == BIG


def test_only_the_missing_bytes_need_space(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(out)
    monkeypatch.setattr("flyx.storage.plan.free_space", lambda _: len(BIG) - 2 * BLOCK_SIZE + 4)
    complete(out)
    assert contents_of(out) == CONTENTS


def test_a_disk_filled_to_the_last_byte_before_the_first_checkpoint_keeps_every_block(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    offer = Offer({"f": os.urandom(4 * BLOCK_SIZE)})
    with mounted(disk, "size=6m"):
        with Destination(disk / "out") as destination:
            succeed(destination, [*offer.plan(), *offer.writes("f")[:2]])
            with (disk / "filler").open("wb") as filler:
                os.posix_fallocate(filler.fileno(), 0, shutil.disk_usage(disk).free)
            assert isinstance(failure(destination.apply(offer.writes("f")[2:3])), NoSpace)
        (disk / "filler").unlink()
        with Destination(disk / "out") as destination:
            there = found(destination, offer)
            held = there["f"]
            assert isinstance(held, BlocksKept)
            assert len(held.digests) == 2 * DIGEST_SIZE
            succeed(destination, rest(offer, there))
        assert (disk / "out" / "f").read_bytes() == offer.contents["f"]


def test_a_transfer_may_use_all_the_space_that_there_is(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    offer = Offer({"f": os.urandom(4 * BLOCK_SIZE)})
    # What remains is less than the reserve of the journal.
    with mounted(disk, f"size={4 * BLOCK_SIZE + partial.RESERVE // 2}"):
        with Destination(disk / "out") as destination:
            succeed(destination, offer.everything())
        assert names_in(disk / "out") == {"f"}
        assert (disk / "out" / "f").read_bytes() == offer.contents["f"]


def test_an_unlockable_filesystem_receives_and_does_not_resume(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    begin(out)
    (out / "d" / "small").unlink()
    complete(out)
    assert {path: (out / path).read_bytes() for path in CONTENTS if path != "d"} == {
        path: content for path, content in CONTENTS.items() if path != "d"
    }


# Crashes.


class Crash(BaseException):
    """The process is killed."""


class Disk:
    """Counts the calls that change the disk, crashes at one of them, and remembers what was made durable."""

    WRITES = (
        "posix_fallocate",
        "pwrite",
        "fsync",
        "ftruncate",
        "rename",
        "link",
        "unlink",
        "mkdir",
        "rmdir",
        "utime",
    )

    def __init__(self, monkeypatch: pytest.MonkeyPatch, crash_at: int) -> None:
        self.calls = 0
        self._crash_at = crash_at
        # Content of each inode when it was last made durable.
        self.durable: dict[int, bytes] = {}
        for name in self.WRITES:
            monkeypatch.setattr(os, name, self._counted(name, getattr(os, name)))

    def _counted(self, name: str, call: Callable[..., object]) -> Callable[..., object]:
        def counted(*args: object, **kwargs: object) -> object:
            self.calls += 1
            if self.calls == self._crash_at:
                if name == "pwrite":
                    handle, data, offset = args
                    assert isinstance(data, bytes | memoryview)
                    call(handle, data[: len(data) // 2], offset)
                raise Crash
            if name == "fsync":
                # What it would do is remembered; to do it would take most of the test's time.
                return self._remember(args[0])
            return call(*args, **kwargs)

        return counted

    def _remember(self, handle: object) -> None:
        status = os.fstat(int(str(handle)))
        if not os.path.isdir(f"/dev/fd/{handle}"):
            self.durable[status.st_ino] = Path(f"/dev/fd/{handle}").read_bytes()

    def lose_power(self, out: Path) -> None:
        """What was never made durable reads as zeros; of the journal, half of it is there."""
        for path in out.rglob("*"):
            if path.is_file():
                status, content = path.stat(), path.read_bytes()
                durable = self.durable.get(status.st_ino, b"")
                lost = content[len(durable) :]
                kept = lost[: len(lost) // 2] if path.name == "journal" else bytes(len(lost))
                with path.open("r+b") as file:
                    file.write(durable + kept)
                    file.truncate()
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextmanager
def killed() -> Iterator[None]:
    """What the kernel does after a crash: it closes what was open, and so releases the locks."""
    before = set(os.listdir("/dev/fd"))
    try:
        yield
    except Crash:
        for handle in set(os.listdir("/dev/fd")) - before:
            try:
                os.close(int(handle))
            except OSError:
                pass


@pytest.mark.parametrize("power", [True, False], ids=["power stays", "power cut"])
@pytest.mark.parametrize("earlier", [False, True], ids=["first run", "second run"])
def test_a_crash_at_any_write_loses_no_more_than_a_checkpoint_and_believes_nothing_false(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool, power: bool
) -> None:
    monkeypatch.setattr(partial, "CHECKPOINT_INTERVAL", 0.0)
    monkeypatch.setattr(durability, "_syncfs", None)
    for crash_at in some(range(1, 1000)):
        out = tmp_path / str(crash_at)
        out.mkdir()
        if earlier:
            begin(out)
        with monkeypatch.context() as patched:
            disk = Disk(patched, crash_at)
            if earlier:
                for part in out.rglob("*"):
                    if part.is_file():
                        disk.durable[part.stat().st_ino] = part.read_bytes()
            with killed():
                destination = Destination(out)
                succeed(destination, rest(OFFER, found(destination)))
                destination.abandon()
        if disk.calls < crash_at:
            break
        if not power:
            disk.lose_power(out)
        check_recovery(out)
    assert crash_at > 20


def check_recovery(out: Path) -> None:
    """Whatever is found is true, so the transfer can be completed from there; nobody looks at it again."""
    for path in saved_in(out):
        assert (None if (out / path).is_dir() else (out / path).read_bytes()) == CONTENTS[path]
    if saved_in(out) == set(CONTENTS) and not any(out.glob(".flyx/*/journal")):
        # It was about to end.
        return
    with Destination(out) as destination:
        there = found(destination)
        succeed(destination, rest(OFFER, there))
    assert contents_of(out) == CONTENTS


def test_entries_planned_in_pieces_finds_the_same(out: Path) -> None:
    begin(out)
    with Destination(out) as destination:
        plan = OFFER.plan()[0]
        pieces = [PlanEntries(at, [entry]) for at, entry in enumerate(OFFER.entries)]
        outcomes = succeed(destination, [plan, *pieces])
        kinds = [
            type(one)
            for outcome in outcomes[1:]
            if isinstance(outcome, EntriesPlanned)
            for one in outcome.found
        ]
        assert kinds == [Kept, BlocksKept]
