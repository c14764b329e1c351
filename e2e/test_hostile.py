"""Peers that know the code and lie, as real processes: what honest ends say, and what is left of the lies."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from e2e.peers.hostile_peer import BEGINNING, DAWDLING, OTHER_VERSION, RECEIVER_LIES
from e2e.processes import (
    Flyx,
    FlyxProcess,
    HostilePeer,
    names_in,
    sha256,
    snapshot,
    write_random,
    write_thin,
)
from flyx.pairing.tries import MAX_UNFINISHED
from flyx.transfer.manifest import MAX_PATHS_SIZE

MEMORY = 400 * 10**6
"""Bytes that an honest end may take at most, whatever is done to it; about 100 MB are usual."""

Start = Callable[..., HostilePeer]


def peak_memory(process: FlyxProcess) -> int:
    """The most memory that a running process has had, in bytes."""
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """An output directory with something in it, a link out of it, and something outside."""
    target = tmp_path / "in"
    write_random(target / "precious", 100)
    write_random(tmp_path / "outside" / "precious", 100)
    (target / "link").symlink_to("../outside")
    return target


# Senders.


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (["../escape"], "unsafe_name"),
        (["ok/", "ok/../../escape"], "unsafe_name"),
        (["one", "one/two"], "unsafe_name"),
        (["link/", "link/new"], "destination_exists"),
        (["precious"], "destination_exists"),
    ],
    ids=lambda value: repr(value) if isinstance(value, list) else value,
)
def test_a_path_that_leads_elsewhere_is_refused_and_nothing_is_touched(
    flyx: Flyx, tmp_path: Path, prepared: Path, hostile_peer: Start, path: list[str], code: str
) -> None:
    before = snapshot(tmp_path)
    sender = hostile_peer("sender", "paths:" + json.dumps(path))
    words = str(sender.says()["code"])
    receiver = flyx.start("receive", "--server", flyx.server, "--yes", "-o", prepared, words)
    receiver.ends(1 if code == "protocol_error" else 7)
    assert sender.says() == {"heard": "cancel", "code": code}
    assert snapshot(tmp_path) == before
    assert receiver.out == ""
    assert "\x1b" not in receiver.err
    assert "\u202e" not in receiver.err


@pytest.mark.parametrize("path", [[".flyx/", ".flyx/journal"], ["\x1b[2J\x1b[31mred"]], ids=repr)
def test_a_name_that_is_ours_or_steers_a_terminal_is_left_out_and_shown_escaped(
    flyx: Flyx, tmp_path: Path, prepared: Path, hostile_peer: Start, path: list[str]
) -> None:
    before = snapshot(tmp_path)
    sender = hostile_peer("sender", "paths:" + json.dumps(path))
    words = str(sender.says()["code"])
    receiver = flyx.start("receive", "--server", flyx.server, "--yes", "-o", prepared, words)
    receiver.ends(1)
    assert snapshot(tmp_path) == before
    assert receiver.out == ""
    assert "Left out:" in receiver.err
    assert "\x1b" not in receiver.err


@pytest.mark.parametrize(
    ("lie", "status", "code"),
    [
        ("more than announced", 1, "protocol_error"),
        ("elsewhere", 1, "protocol_error"),
        ("too much", 7, "no_space"),
        ("another digest", 1, "corrupt_data"),
        ("another file digest", 1, "corrupt_data"),
        ("bomb", 1, "corrupt_data"),
        ("unasked", 1, "protocol_error"),
        ("done", 1, "protocol_error"),
        ("nonsense", 1, "protocol_error"),
        ("escapes", 6, None),
        ("fails with escapes", 1, None),
    ],
)
def test_a_sender_that_lies_is_told_so_and_leaves_nothing(
    flyx: Flyx, tmp_path: Path, prepared: Path, hostile_peer: Start, lie: str, status: int, code: str | None
) -> None:
    before = snapshot(tmp_path)
    sender = hostile_peer("sender", lie)
    words = str(sender.says()["code"])
    receiver = flyx.start("receive", "--server", flyx.server, "--yes", "-o", prepared, words)
    said = sender.says()
    if code:
        assert said == {"heard": "cancel", "code": code}
    receiver.ends(status)
    assert receiver.out == ""
    assert receiver.err.count("error: ") == 1
    assert "faked: line" not in receiver.err.splitlines()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", receiver.err)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("lie", "limit", "code"),
    [
        ("flood of blocks", MEMORY, "protocol_error"),
        ("flood of paths", MEMORY + MAX_PATHS_SIZE, "protocol_error"),
        ("bomb", MEMORY, "corrupt_data"),
    ],
)
def test_a_flood_is_stopped_before_it_fills_the_memory(
    flyx: Flyx, tmp_path: Path, prepared: Path, hostile_peer: Start, lie: str, limit: int, code: str
) -> None:
    before = snapshot(tmp_path)
    sender = hostile_peer("sender", lie)
    receiver = flyx.receive(str(sender.says()["code"]), prepared)
    most = 0
    while receiver.process.poll() is None:
        with suppress(AssertionError, FileNotFoundError, ProcessLookupError):
            most = max(most, peak_memory(receiver))
        with suppress(subprocess.TimeoutExpired):
            receiver.process.wait(0.05)
    receiver.fails(1, code)
    assert sender.says() == {"heard": "cancel", "code": code}
    assert 0 < most < limit
    after = snapshot(tmp_path)
    # Whether long names can be had is tried in a directory that is gone again.
    assert after.pop("in")[:2] == before.pop("in")[:2]
    assert after == before


# Receivers.


def test_receivers_that_lie_are_told_so_and_the_sender_goes_on(
    flyx: Flyx, tmp_path: Path, hostile_peer: Start
) -> None:
    source = write_random(tmp_path / "file", 5_000_000)
    sender = flyx.send(source)
    code = sender.code()
    lies = [lie for lie in RECEIVER_LIES if lie != "stands still"]
    for n, lie in enumerate(lies):
        receiver = hostile_peer("receiver", lie, code)
        said = receiver.says()
        failed = sender.event("peer", peer=n + 1, state="failed")
        if lie != "escapes":
            assert said == {"heard": "cancel", "code": "protocol_error"}, (lie, failed)
        assert failed["code"] == ("interrupted" if lie == "escapes" else "protocol_error"), lie
        assert "\x1b" not in failed["message"]
    assert sender.named("done") == []
    flyx.receive(code, tmp_path / "in").ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)


def test_a_receiver_that_takes_without_end_and_reads_nothing_fills_no_memory_and_slows_nobody(
    flyx: Flyx, tmp_path: Path, hostile_peer: Start
) -> None:
    source = write_thin(tmp_path / "file", 600_000_000)
    sender = flyx.send("--receivers", "2", source)
    code = sender.code()
    hostile = hostile_peer("receiver", "stands still", code)
    assert hostile.says() == {"granted": True}
    hostile.process.send_signal(signal.SIGSTOP)
    flyx.receive(code, tmp_path / "in").ends(0)
    assert peak_memory(sender) < MEMORY
    assert names_in(tmp_path / "in") == ["file"]
    hostile.kill()
    sender.event("peer", peer=1, state="failed")


def test_strangers_that_never_finish_pairing_keep_nobody_out_and_learn_nothing(
    flyx: Flyx, tmp_path: Path, hostile_peer: Start
) -> None:
    source = write_random(tmp_path / "secret-name", 1000)
    sender = flyx.send(source)
    code = sender.code()
    dawdlers = [hostile_peer("receiver", DAWDLING, code) for _ in range(4)]
    for dawdler in dawdlers:
        assert dawdler.says() == {"connected": True}
    flyx.receive(code, tmp_path / "in").ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "secret-name") == sha256(source)


@pytest.mark.parametrize(("version", "older"), [(1, "the other side"), (3, "this one")])
def test_another_version_is_named_on_both_sides(
    flyx: Flyx, tmp_path: Path, hostile_peer: Start, version: int, older: str
) -> None:
    other = hostile_peer("sender", f"{OTHER_VERSION}{version}")
    receiver = flyx.start("receive", "--server", flyx.server, "--yes", str(other.says()["code"]))
    told = f"The other side speaks version {version} of flyx's protocol, this one version 2: upgrade {older}."
    receiver.complains(5, told, "bring both sides to the same release")
    assert other.says() == {"heard": "reject", "code": "other_version"}
    sender = flyx.send(write_random(tmp_path / "file", 10))
    other = hostile_peer("receiver", f"{OTHER_VERSION}{version}", sender.code())
    assert other.says() == {"heard": "reject", "code": "other_version"}
    assert sender.event("peer", state="failed", code="other_version")["message"] == told
    assert sender.named("notice") == []


def test_a_stranger_that_begins_to_pair_for_ever_closes_the_room(
    flyx: Flyx, tmp_path: Path, hostile_peer: Start
) -> None:
    sender = flyx.send(write_random(tmp_path / "secret-name", 1000))
    stranger = hostile_peer("receiver", BEGINNING, sender.code())
    for n in range(MAX_UNFINISHED):
        assert stranger.says() == {"answered": n + 1}
    sender.fails(5, "too_many_unfinished")
    failed = [event for event in sender.named("peer") if event["state"] == "failed"]
    assert len(failed) == MAX_UNFINISHED
    assert f"{MAX_UNFINISHED} times in a row" in sender.event("error")["message"]
    flyx.receive(sender.code(), tmp_path / "in").fails(3, "no_such_room")


@pytest.mark.soak
def test_a_stranger_that_never_finishes_pairing_is_sent_away_and_makes_room(
    flyx: Flyx, tmp_path: Path, hostile_peer: Start
) -> None:
    source = write_random(tmp_path / "secret-name", 1000)
    sender = flyx.send(source)
    code = sender.code()
    for dawdler in [hostile_peer("receiver", DAWDLING, code) for _ in range(8)]:
        assert dawdler.says() == {"connected": True}
    flyx.receive(code, tmp_path / "in").ends(0)
    assert sender.event("peer", state="failed")["code"] == "pairing_timed_out"
    sender.ends(0)
