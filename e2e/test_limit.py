"""Transfers with --limit between real processes: never faster than that, and both ends know why."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.processes import Event, Flyx, FlyxProcess, sha256, write_random
from flyx.transfer.rate_limit import MOST_PORTIONS, PORTION_TIME

MB = 1_000_000
SIZE = 3 * MB
SAVED_UP = MOST_PORTIONS * PORTION_TIME
"""Seconds of the rate that one who shares a limit may have at once."""


def seconds_of_data(receiver: FlyxProcess) -> float:
    """How long it took from before the first byte to the last: the machine may be slow, but never fast."""
    joined: Event = receiver.event("peer", state="paired")
    return float(receiver.event("done")["time"] - joined["time"])


def limits(process: FlyxProcess) -> set[str]:
    return {event["limit"] for event in process.named("condition")}


@pytest.mark.parametrize("whose", ["sender", "receiver"])
def test_a_transfer_takes_the_time_that_the_limit_of_either_end_wants(
    flyx: Flyx, tmp_path: Path, whose: str
) -> None:
    source = write_random(tmp_path / "file", SIZE)
    options = {whose: ["--limit", "1MB/s"]}
    sender = flyx.send(*options.get("sender", []), source)
    receiver = flyx.receive(sender.code(), tmp_path / "in", *options.get("receiver", [])).ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)
    assert seconds_of_data(receiver) >= SIZE / MB - SAVED_UP
    assert "rate limit" in limits(sender)
    assert "rate limit" in limits(receiver)


def test_the_lower_of_two_limits_counts(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", MB)
    sender = flyx.send("--limit", "500KB", source)
    receiver = flyx.receive(sender.code(), tmp_path / "in", "--limit", "5MB").ends(0)
    sender.ends(0)
    assert seconds_of_data(receiver) >= 2 - SAVED_UP


def test_two_receivers_share_the_limit_of_their_sender(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", SIZE)
    sender = flyx.send("--receivers", "2", "--limit", "1MB", source)
    receivers = [flyx.receive(sender.code(), tmp_path / f"in-{n}") for n in range(2)]
    for n, receiver in enumerate(receivers):
        receiver.ends(0)
        assert sha256(tmp_path / f"in-{n}" / "file") == sha256(source)
    sender.ends(0)
    begun = min(receiver.event("peer", state="paired")["time"] for receiver in receivers)
    ended = max(receiver.event("done")["time"] for receiver in receivers)
    assert ended - begun >= 2 * SIZE / MB - 2 * SAVED_UP


def test_a_receiver_with_a_limit_of_its_own_holds_up_no_other(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", SIZE)
    sender = flyx.send("--receivers", "2", source)
    slow = flyx.receive(sender.code(), tmp_path / "slow", "--limit", "100KB")
    slow.event("progress", peer=1)
    flyx.receive(sender.code(), tmp_path / "fast").ends(0)
    assert not slow.named("done")
    slow.ends(0)
    sender.ends(0)


def test_what_is_there_already_costs_nothing(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 20 * MB)
    sender = flyx.send(source)
    code = sender.code()
    slow = flyx.receive(code, tmp_path / "in", "--limit", "20MB")
    slow.event("progress", lambda event: event["bytes"] >= 12 * MB)
    slow.send_signal(2).ends(130)
    receiver = flyx.receive(code, tmp_path / "in", "--limit", "1MB").ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)
    done = receiver.event("done")
    assert done["resumed"] > 0
    assert seconds_of_data(receiver) >= (done["bytes"] - done["resumed"]) / MB - SAVED_UP


def test_people_read_that_the_limit_is_why_it_is_slow(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", SIZE)
    sender = flyx.terminal("send", "--server", flyx.server, "--limit", "1MB", source)
    receiver = flyx.terminal("receive", "--server", flyx.server, "-y", "-o", "in", sender.code())
    for end in (sender, receiver):
        end.ends(0)
        # In the last line, and before in the row of its bar.
        assert "(at the rate limit, " in end.err
        assert end.err.count("at the rate limit") > 1


def test_what_is_no_limit_is_said_before_anything_happens(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 1)
    hint = "write it in bytes a second, from 1KB to 1TB, like 500KB or 2MB; none is no limit"
    for arguments in (["send", source], ["receive", "--yes", "K7M2QX"]):
        flyx.start(*arguments, "--limit", "0").complains(
            2, "--limit 0 is not a rate that can be kept to", hint
        )
        flyx.start(*arguments, FLYX_LIMIT="slow").complains(2, "--limit slow is not a rate", hint)
