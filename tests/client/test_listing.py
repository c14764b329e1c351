"""The lists of a sender, made anew while it waits: real files, real threads."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from flyx.client import events, listing
from flyx.client.listing import Lists
from flyx.errors import InputError
from flyx.storage import scan as scanning
from flyx.storage.exclusions import Exclusions
from flyx.storage.links import Links
from flyx.transfer.patterns import Patterns


@pytest.fixture
def disk() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as disk:
        yield disk


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_bytes(b"content")
    return tree


@pytest.fixture
def stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each list is too old at once."""
    monkeypatch.setattr(listing, "FRESH", 0.0)


class Told(list[events.Event]):
    def of(self, kind: type[events.Event]) -> list[events.Event]:
        return [event for event in self if isinstance(event, kind)]


@pytest.fixture
def told() -> Told:
    return Told()


async def test_a_list_made_a_moment_ago_is_good_enough(
    tree: Path, disk: ThreadPoolExecutor, told: Told
) -> None:
    with closing(Lists([tree], Links.KEEP, disk)) as lists:
        first = await lists.current(told.append)
        (tree / "new").touch()
        assert await lists.current(told.append) is first
    assert len(told.of(events.ManifestKnown)) == 1


@pytest.mark.usefixtures("stale")
async def test_what_is_new_is_in_the_next_list_and_told(
    tree: Path, disk: ThreadPoolExecutor, told: Told
) -> None:
    with closing(Lists([tree], Links.KEEP, disk)) as lists:
        first = await lists.current(told.append)
        (tree / "new").touch()
        second = await lists.current(told.append)
        assert "tree/new" in {entry.path for entry in second.found.manifest.entries}
        assert "tree/new" not in {entry.path for entry in first.found.manifest.entries}
        assert second.digests is not first.digests
    manifests = [first.found.manifest, second.found.manifest]
    assert told.of(events.ManifestKnown) == [events.ManifestKnown(manifest) for manifest in manifests]


@pytest.mark.usefixtures("stale")
async def test_while_nothing_changes_the_list_and_its_digests_stay(
    tree: Path, disk: ThreadPoolExecutor, told: Told
) -> None:
    with closing(Lists([tree], Links.KEEP, disk)) as lists:
        first = await lists.current(told.append)
        assert await lists.current(told.append) is first
        # A change that the manifest, whose times are in microseconds, does not show.
        status = (tree / "sub" / "file").stat()
        os.utime(tree / "sub" / "file", ns=(0, status.st_mtime_ns // 1000 * 1000 + 1))
        if (tree / "sub" / "file").stat().st_mtime_ns != status.st_mtime_ns:
            assert await lists.current(told.append) is not first


@pytest.mark.usefixtures("stale")
async def test_receivers_that_come_together_share_one_list(
    tree: Path, disk: ThreadPoolExecutor, told: Told
) -> None:
    with closing(Lists([tree], Links.KEEP, disk)) as lists:
        first = await lists.current(told.append)
        (tree / "new").touch()
        several = await asyncio.gather(*(lists.current(told.append) for _ in range(5)))
        assert len({id(one) for one in [first, *several]}) == 2
    assert len(told.of(events.ManifestKnown)) == 2


@pytest.mark.usefixtures("stale")
async def test_a_receiver_that_leaves_does_not_stop_the_list_that_another_waits_for(
    tree: Path, disk: ThreadPoolExecutor, told: Told
) -> None:
    with closing(Lists([tree], Links.KEEP, disk)) as lists:
        leaving = asyncio.create_task(lists.current(told.append))
        staying = asyncio.create_task(lists.current(told.append))
        await asyncio.sleep(0)
        leaving.cancel()
        assert (await staying).found.manifest.file_count == 1


@pytest.mark.usefixtures("stale")
async def test_what_is_gone_is_left_out_while_something_is_there(
    tree: Path, disk: ThreadPoolExecutor, told: Told
) -> None:
    other = tree.parent / "other"
    other.write_bytes(b"other")
    with closing(Lists([tree, other], Links.KEEP, disk)) as lists:
        await lists.current(told.append)
        other.unlink()
        assert (await lists.current(told.append)).found.manifest.roots == ("tree",)
        assert told.of(events.Notice) == [events.Notice(f"there is no file or directory {other}")]
        last = lists.last
        os.rename(tree, tree.parent / "elsewhere")
        with pytest.raises(InputError, match="no file or directory"):
            await lists.current(told.append)
        assert lists.last is last
        os.rename(tree.parent / "elsewhere", tree)
        assert await lists.current(told.append) is last


async def test_what_is_left_out_is_named_up_to_a_limit_and_counted(
    tree: Path, disk: ThreadPoolExecutor, told: Told
) -> None:
    for n in range(13):
        os.mkfifo(tree / f"fifo {n:02}")
    with closing(Lists([tree], Links.KEEP, disk)) as lists:
        await lists.current(told.append)
    messages = [event.message for event in told if isinstance(event, events.Notice)]
    assert messages[0] == "tree/fifo 00 is left out: it is a device, FIFO or socket"
    assert messages[10:] == ["3 more are left out"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["1.tmp"], "1 file or directory is excluded"),
        ([f"{n}.tmp" for n in range(1200)], "1,200 files and directories are excluded"),
    ],
)
async def test_how_much_is_excluded_is_told_once(
    tree: Path, disk: ThreadPoolExecutor, told: Told, names: list[str], expected: str
) -> None:
    for name in names:
        (tree / name).touch()
    with closing(Lists([tree], Links.KEEP, disk, Exclusions(Patterns(["*.tmp"])))) as lists:
        await lists.current(told.append)
        await lists.current(told.append)
    assert told.of(events.Notice) == [events.Notice(expected)]


class Slow:
    """A disk on which a look at a directory `sub` waits until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        self.seen: list[str] = []
        self._lstat = os.lstat
        monkeypatch.setattr(os, "lstat", self._look)

    def _look(self, path: str) -> os.stat_result:
        self.seen.append(path)
        if path.endswith("sub"):
            self.reached.set()
            self.go.wait(60)
        return self._lstat(path)


async def test_how_far_a_list_is_is_told_until_it_is_whole(
    tree: Path, disk: ThreadPoolExecutor, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "NEWS_INTERVAL", 0.01)
    monkeypatch.setattr(scanning, "NEWS_INTERVAL", 0.0)
    for n in range(5):
        (tree / f"a {n}").touch()
    slow = Slow(monkeypatch)

    def tell(event: events.Event) -> None:
        told.append(event)
        slow.go.set()

    with closing(Lists([tree], Links.KEEP, disk)) as lists:
        await asyncio.wait_for(lists.current(tell), 60)
    assert events.Listing(6) in told
    assert isinstance(told[-1], events.ManifestKnown)


async def test_a_list_that_nobody_waits_for_is_stopped(
    tree: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "NEWS_INTERVAL", 0.0)
    slow = Slow(monkeypatch)
    with ThreadPoolExecutor(1) as disk:
        with closing(Lists([tree], Links.KEEP, disk)) as lists:
            making = asyncio.create_task(lists.current(told.append))
            await asyncio.to_thread(slow.reached.wait, 60)
            making.cancel()
        slow.go.set()
        # The only thread is free when it has stopped.
        disk.submit(time.monotonic).result(60)
    assert slow.seen[-1] == str(tree / "sub")
    assert told == []
