"""`flyx bench`: this computer alone, and the path between two processes; nobody else is harmed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from e2e import link
from e2e.link import Link
from e2e.mounts import mounted
from e2e.processes import Flyx, FlyxProcess, names_in, need, sha256, write_random
from flyx.errors import EXIT_CTRL_C, EXIT_DONE, EXIT_PAIRING, EXIT_REFUSED

LITTLE = "2MB"
CODE = re.compile(r"flyx bench (?:--server \S+ )?([0-9A-Z]{6}(?:-\w+)*)\r?\n")


def rates(process: FlyxProcess) -> dict[str, int]:
    """The rate of each part that was measured."""
    return {event["part"]: event["rate"] for event in process.named("measured")}


def waiting(flyx: Flyx, *arguments: str) -> FlyxProcess:
    return flyx.start("bench", "--wait", "--server", flyx.server, "--size", LITTLE, "--json", *arguments)


def visiting(flyx: Flyx, code: str, *arguments: str) -> FlyxProcess:
    return flyx.start("bench", code, "--server", flyx.server, "--size", LITTLE, "--json", *arguments)


def test_alone_it_measures_this_computer_and_leaves_nothing(flyx: Flyx, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    # What is set for this process is not for the other one that it starts.
    options = {"FLYX_BENCH_SIZE": LITTLE, "FLYX_JSON": "1", "FLYX_OUTPUT": str(place)}
    bench = flyx.start("bench", "--json", **options).ends(EXIT_DONE)
    assert list(rates(bench)) == ["disk_write", "disk_read", "sha256", "blake3", "transfer", "transfer_1200"]
    assert all(rate > 0 for rate in rates(bench).values())
    moved = {event["part"]: event["bytes"] for event in bench.named("measured")}
    # The last block of a transfer says what its sender saw.
    assert moved["disk_write"] == moved["disk_read"] == 2_000_000 < moved["transfer"] < 2_005_000
    (last,) = bench.named("benched")
    assert last["rate"] == min(rates(bench)[part] for part in ("disk_write", "disk_read", "transfer"))
    assert bench.err == ""
    assert not os.listdir(place)


def test_the_path_is_measured_both_ways_and_both_sides_tell_the_same(flyx: Flyx) -> None:
    host = waiting(flyx)
    guest = visiting(flyx, host.code()).ends(EXIT_DONE)
    host.ends(EXIT_DONE)
    for side in (host, guest):
        assert set(rates(side)) == {"to_peer", "from_peer"}
        assert side.named("path")[0]["local"] == "host"
        (last,) = side.named("benched")
        assert (last["limit"], last["rate"]) == (None, None)
    # The one that received has counted.
    assert rates(guest)["to_peer"] == rates(host)["from_peer"]


class OnLink(FlyxProcess):
    """A `flyx` on a host of a link."""

    def __init__(self, flyx: Flyx, place: Link, host: link.Host, *arguments: str) -> None:
        self._place, self._host = place, host
        super().__init__(arguments, flyx.environment, flyx.directory)
        flyx.adopt(self)

    def _start(
        self, command: list[str], environment: dict[str, str], directory: Path
    ) -> subprocess.Popen[bytes]:
        return super()._start(self._place.on(self._host, command), environment, directory)


def test_of_a_slow_path_the_network_is_named_with_its_round_trip_and_no_more_than_its_rate(
    flyx: Flyx,
) -> None:
    lacking = link.missing()
    need(lacking or "nothing", lacking is None)
    rate_mbit, delay_ms = 8, 20
    with Link(rate_mbit=rate_mbit, delay_ms=delay_ms) as place:
        server = f"ws://{place.address('left')}:8000"
        served = OnLink(flyx, place, "left", "serve", "--stun", "none")
        served.prints("listening")
        host = OnLink(flyx, place, "left", "bench", "--wait", "--server", server, "--json")
        guest = OnLink(flyx, place, "right", "bench", host.code(), "--server", server, "--json")
        for side in (guest.ends(EXIT_DONE), host.ends(EXIT_DONE)):
            (last,) = side.named("benched")
            for measured in side.named("measured"):
                # Who waits for a processor that others have is told so.
                is_starved = last["load"] > last["processors"] and "CPU" in (measured["limit"] or "")
                assert measured["limit"] == "network" or is_starved
                assert measured["rtt"] >= 2 * delay_ms / 1000
                assert measured["bytes"] / measured["seconds"] <= rate_mbit * 1e6 / 8
        served.send_signal(signal.SIGINT).ends(EXIT_DONE)


def test_people_read_what_to_run_elsewhere_and_then_what_limits(flyx: Flyx) -> None:
    host = flyx.start("bench", "--wait", "--server", flyx.server, "--size", LITTLE)
    code = host.prints(CODE.pattern)[1]
    guest = flyx.terminal("bench", "--server", flyx.server, "--size", LITTLE, code).ends(EXIT_DONE)
    host.ends(EXIT_DONE)
    for side in (host.out, guest.err):
        # A terminal breaks lines.
        words = " ".join(side.split())
        assert re.search(r" A transfer to the other side is limited by .+?: about [\d.]+ .?B/s\.", words)
        assert re.search(r" from the other side +[\d.]+ .?B/s ", words)
    assert "Connected directly over the local network" in guest.err


def test_a_sender_of_files_is_not_harmed_by_a_measurement(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 1000)
    sender = flyx.send(source)
    code = sender.code()
    bench = visiting(flyx, code).fails(EXIT_PAIRING, "missing_feature")
    assert "flyx bench --wait" in bench.named("error")[0]["hint"]
    # Three of them would use up the tries of its words, if they were any.
    for _ in range(3):
        visiting(flyx, code).fails(EXIT_PAIRING, "missing_feature")
    flyx.receive(code, "in").ends(EXIT_DONE)
    sender.ends(EXIT_DONE)
    assert sha256(tmp_path / "in" / "file") == sha256(source)


def test_a_receiver_that_wants_files_of_a_measurement_gets_none_and_the_measurement_goes_on(
    flyx: Flyx, tmp_path: Path
) -> None:
    host = waiting(flyx)
    code = host.code()
    receiver = flyx.receive(code, "in").fails(EXIT_PAIRING, "missing_feature")
    assert "flyx bench CODE" in receiver.named("error")[0]["hint"]
    assert not (tmp_path / "in").exists()
    visiting(flyx, code).ends(EXIT_DONE)
    host.ends(EXIT_DONE)


def test_wrong_words_measure_nothing_and_three_tries_are_all(flyx: Flyx) -> None:
    host = waiting(flyx)
    room = host.code().partition("-")[0]
    for _ in range(3):
        guest = visiting(flyx, f"{room}-zebra-zebra")
        guest.process.wait()
        assert guest.process.returncode == EXIT_PAIRING, guest
        assert not guest.named("measured")
    host.fails(EXIT_PAIRING, "too_many_tries")


def test_a_measurement_names_a_peer_that_leaves_and_ctrl_c_ends_either_side(flyx: Flyx) -> None:
    host = waiting(flyx)
    host.code()
    host.send_signal(signal.SIGINT).ends(EXIT_CTRL_C)

    host = flyx.start("bench", "--wait", "--server", flyx.server, "--json")
    guest = flyx.start("bench", host.code(), "--server", flyx.server, "--json")
    guest.event("path")
    guest.send_signal(signal.SIGINT).ends(EXIT_CTRL_C)
    host.process.wait()
    assert [event["code"] for event in host.named("error")] == ["interrupted"], host


def test_a_measurement_that_is_interrupted_leaves_nothing_on_the_disk(flyx: Flyx, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    bench = flyx.start("bench", "-o", place, "--json")
    bench.event("measured", part="disk_write")
    bench.send_signal(signal.SIGINT).ends(EXIT_CTRL_C)
    assert not os.listdir(place)


def test_a_disk_that_is_full_is_told_as_that(flyx: Flyx, tmp_path: Path) -> None:
    place = tmp_path / "full"
    with mounted(["-t", "tmpfs", "-o", "size=1M", "tmpfs"], place):
        left = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
        (place / "rest").write_bytes(bytes(left))
        flyx.start("bench", "-o", place, "--json").fails(EXIT_REFUSED, "no_space")
        assert names_in(place) == ["rest"]


@pytest.mark.parametrize("columns", ["40", "120"])
def test_a_screen_of_any_width_shows_all_of_it(flyx: Flyx, columns: str) -> None:
    bench = flyx.start("bench", "--size", "200KB", COLUMNS=columns).ends(EXIT_DONE)
    *table, _ = bench.out.splitlines()
    assert all(len(line) <= int(columns) for line in table)
    assert " ".join(table).count("B/s") == 6
