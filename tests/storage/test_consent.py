"""An offer that is not accepted: it changes nothing of what an unfinished transfer has left."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flyx.errors import DestinationExists
from flyx.storage.writer import Destination
from flyx.transfer.digests import DIGEST_SIZE
from flyx.transfer.disk import BlocksKept, Changed, EntriesPlanned, FinishTree, Kept
from flyx.transfer.manifest import BLOCK_SIZE, Manifest
from tests.storage.support import MTIME_US, Offer, failure, file_entry, succeed

BIG = os.urandom(3 * BLOCK_SIZE)
OFFER = Offer({"d": None, "d/big": BIG, "d/small": b"small"})


def changed() -> Offer:
    """The same roots; another file of the same path and size."""
    offer = Offer(OFFER.contents | {"d/big": bytes(len(BIG))})
    offer.entries[1] = file_entry("d/big", len(BIG), mtime_us=MTIME_US + 1)
    offer.manifest = Manifest(offer.entries)
    return offer


def with_a_file_of_ours(out: Path) -> Offer:
    (out / "d" / "mine").write_bytes(b"mine")
    return Offer(OFFER.contents | {"d/mine": b"theirs"})


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where an unfinished transfer has left a file and two blocks of another, and a killed one a little."""
    with Destination(tmp_path) as destination:
        succeed(destination, [*OFFER.plan(), *OFFER.writes("d/small"), OFFER.finish("d/small")])
        succeed(destination, OFFER.writes("d/big")[:2])
    (tmp_path / ".flyx" / ("0" * 16)).mkdir(mode=0o700)
    (part,) = tmp_path.glob(".flyx/*/*.part")
    (part.parent / "reserve").write_bytes(b"of one that was killed")
    return tmp_path


def everything(out: Path) -> dict[str, tuple[object, ...]]:
    """All that is there, with what tells whether it was touched."""
    found: dict[str, tuple[object, ...]] = {}
    for path in out.rglob("*"):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        found[str(path)] = status.st_ino, status.st_mode, status.st_mtime_ns, status.st_nlink, content
    return found


@pytest.mark.parametrize(
    "other", [lambda _: OFFER, lambda _: changed(), with_a_file_of_ours, lambda _: Offer({"e": b"e"})]
)
@pytest.mark.parametrize("damaged", [False, True])
def test_an_offer_that_is_only_shown_changes_nothing(
    out: Path, other: Callable[[Path], Offer], damaged: bool
) -> None:
    (part,) = out.glob(".flyx/*/*.part")
    if damaged:
        part.write_bytes(BIG[:BLOCK_SIZE])
    offer = other(out)
    before = everything(out)
    with Destination(out) as destination:
        destination.apply(offer.plan())
        assert everything(out) == before
    assert everything(out) == before


def test_an_offer_of_a_changed_file_that_is_declined_leaves_the_first_to_be_gone_on_with(out: Path) -> None:
    with Destination(out) as destination:
        planned = succeed(destination, changed().plan())[-1]
        assert isinstance(planned, EntriesPlanned)
        assert Changed(1) in planned.found
    assert destination.keeps
    with Destination(out) as destination:
        planned = succeed(destination, OFFER.plan())[-1]
        assert isinstance(planned, EntriesPlanned)
        held, kept = planned.found
        assert isinstance(held, BlocksKept)
        assert isinstance(kept, Kept)
        assert len(held.digests) == 2 * DIGEST_SIZE
        succeed(destination, [*OFFER.writes("d/big")[2:], OFFER.finish("d/big"), FinishTree()])
    assert (out / "d" / "big").read_bytes() == BIG


def test_an_offer_of_a_changed_file_that_is_accepted_takes_the_place_of_the_first(out: Path) -> None:
    offer = changed()
    with Destination(out) as destination:
        succeed(destination, [*offer.plan(), *offer.writes("d/big")[:1]])
    with Destination(out) as destination:
        planned = succeed(destination, offer.plan())[-1]
        assert isinstance(planned, EntriesPlanned)
        held = planned.found[0]
        assert isinstance(held, BlocksKept)
        assert len(held.digests) == DIGEST_SIZE
        succeed(destination, [*offer.writes("d/big")[1:], offer.finish("d/big"), FinishTree()])
    assert (out / "d" / "big").read_bytes() == bytes(len(BIG))
    assert sorted(os.listdir(out)) == ["d"]


def test_an_offer_that_is_refused_because_a_file_exists_costs_nothing(out: Path) -> None:
    before = everything(out)
    (out / "d" / "small").write_bytes(b"SMALL")
    with Destination(out) as destination:
        assert isinstance(failure(destination.apply(changed().plan())), DestinationExists)
    (out / "d" / "small").unlink()
    after = everything(out)
    assert {path: what for path, what in before.items() if path in after and ".flyx" in path} == {
        path: what for path, what in after.items() if ".flyx" in path
    }


def test_a_transfer_that_has_nothing_yet_is_not_removed_by_an_offer_that_is_shown(tmp_path: Path) -> None:
    with Destination(tmp_path) as destination:
        succeed(destination, [*OFFER.plan(), *OFFER.writes("d/big")[:1]])
    (part,) = tmp_path.glob(".flyx/*/*.part")
    # Its journal has a heading alone.
    journal = part.parent / "journal"
    journal.write_bytes(journal.read_bytes().partition(b"\n")[0] + b"\n")
    before = everything(tmp_path)
    with Destination(tmp_path) as destination:
        succeed(destination, OFFER.plan())
    assert everything(tmp_path) == before
