"""What is sent compressed: random, text and mixed files arrive as they were, in one go or several."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from e2e.processes import LONG, Flyx, sha256, snapshot, write_random, write_sparse, write_text
from e2e.unfinished import under_way

MB = 1_000_000
RANDOM, TEXT = 5 * MB + 7, 9 * MB + 3


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of all kinds, some of several."""
    tree = tmp_path / "tree"
    write_random(tree / "random", RANDOM)
    write_text(tree / "text", TEXT)
    write_random(tree / "empty", 0)
    write_text(tree / "short", 100)
    write_sparse(tree / "holes", 4 * MB)
    mixed = [write_text(tmp_path / "1", 3 * MB), write_random(tmp_path / "2", 3 * MB)]
    (tree / "mixed").write_bytes(b"".join(part.read_bytes() for part in mixed * 2))
    for number in range(300):
        (write_text if number % 2 else write_random)(tree / "many" / f"{number}", 40 * number)
    return tree


@pytest.mark.parametrize(
    ("mode", "least", "most"), [("on", (TEXT + 6 * MB) // 3, 30 * MB), ("auto", 0, 30 * MB), ("off", 0, 0)]
)
def test_every_byte_arrives_compressed_or_not(
    flyx: Flyx, tmp_path: Path, tree: Path, mode: str, least: int, most: int
) -> None:
    sender = flyx.send("--compress", mode, tree)
    receiver = flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0)
    assert snapshot(tmp_path / "in" / "tree") == snapshot(tree)
    done = sender.event("done")
    assert done["digest"] == receiver.event("done")["digest"]
    assert least <= done["spared"] <= most
    assert receiver.event("done")["spared"] == 0


def test_random_bytes_spare_nothing_and_the_variable_does_as_the_option(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "random", RANDOM)
    sender = flyx.start("send", "--server", flyx.server, source, FLYX_COMPRESS="on")
    flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "random") == sha256(source)
    assert "spared" not in sender.err


def test_people_are_told_what_was_spared(flyx: Flyx, tmp_path: Path) -> None:
    source = write_text(tmp_path / "text", TEXT)
    sender = flyx.start("send", "--server", flyx.server, "--compress", "on", source)
    flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0).says("spared by compression")


def test_several_receivers_get_compressed_blocks_each_at_its_own_pace(flyx: Flyx, tmp_path: Path) -> None:
    source = write_text(tmp_path / "text", TEXT)
    sender = flyx.send("--compress", "on", "--receivers", "3", source)
    receivers = [flyx.receive(sender.code(), tmp_path / f"in {number}") for number in range(3)]
    for number, receiver in enumerate(receivers):
        receiver.ends(0)
        assert sha256(tmp_path / f"in {number}" / "text") == sha256(source)
    sender.ends(0)
    assert all(done["spared"] > TEXT // 3 for done in sender.named("done"))


@pytest.mark.parametrize(("first", "second"), [("on", "on"), ("on", "off"), ("off", "on")])
def test_what_was_interrupted_goes_on_compressed_or_not(
    flyx: Flyx, tmp_path: Path, first: str, second: str
) -> None:
    source = write_text(tmp_path / "text", LONG)
    sender = flyx.send("--compress", first, source)
    receiver = under_way(flyx, sender, tmp_path / "in", LONG // 4)
    receiver.send_signal(signal.SIGKILL).ends(-signal.SIGKILL)
    sender.send_signal(signal.SIGINT).ends(130)
    sender = flyx.send("--compress", second, source)
    receiver = flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "text") == sha256(source)
    resumed = receiver.event("done")["resumed"]
    assert resumed > 0
    spared = sender.event("done")["spared"]
    assert ((LONG - resumed) // 3 < spared < LONG - resumed) if second == "on" else spared == 0
