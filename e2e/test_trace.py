"""FLYX_TRACE: what real transfers leave, and what Wireshark makes of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from e2e.processes import Flyx, write_random
from flyx.errors import EXIT_DONE, EXIT_USAGE
from flyx.rtc.trace import VARIABLE, Direction
from flyx.sctp.chunks import ChunkType
from flyx.sctp.packet import split_chunks_untrusted
from tests.pcapng import read

SIZE = 2_000_000


@pytest.fixture
def captures(flyx: Flyx, tmp_path: Path) -> list[Path]:
    """What a sender and its receiver have left of a transfer."""
    directory = tmp_path / "traces"
    directory.mkdir()
    flyx.environment[VARIABLE] = str(directory)
    sender = flyx.send(write_random(tmp_path / "file.bin", SIZE))
    flyx.receive(sender.code(), tmp_path / "in").ends(EXIT_DONE)
    sender.ends(EXIT_DONE)
    del flyx.environment[VARIABLE]
    return sorted(directory.glob("*.pcapng"))


def test_each_end_has_what_both_have_sent(captures: list[Path]) -> None:
    for path in captures:
        kinds = {
            (packet.direction, kind)
            for packet in read(path)
            for kind, _, _ in split_chunks_untrusted(packet.data)
        }
        for kind in (ChunkType.DATA, ChunkType.SACK):
            assert all((direction, kind) in kinds for direction in Direction)


def test_the_lines_tell_how_the_senders_window_grew(captures: list[Path]) -> None:
    ends = [path.with_name(f"{path.name}.ndjson").read_text().splitlines() for path in captures]
    sender = max(
        ([json.loads(line) for line in lines] for lines in ends), key=lambda end: end[-1]["delivered"]
    )
    assert sender[-1]["delivered"] > SIZE
    assert sender[0]["phase"] == "STARTUP"
    assert sender[-1]["cwnd"] > sender[0]["cwnd"]
    assert sender[-1]["rtt"] > 0
    assert [line["time"] for line in sender] == sorted(line["time"] for line in sender)


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_wireshark_finds_every_packet_in_it_well_formed(captures: list[Path]) -> None:
    for path in captures:
        fields = ["-T", "fields", "-e", "sctp.chunk_type", "-e", "frame.time_epoch"]
        command = ["tshark", "-r", str(path), *fields, "-o", "sctp.checksum:CRC32C"]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        packets = read(path)
        assert len(lines) == len(packets)
        for line, packet in zip(lines, packets, strict=True):
            kinds, seen_at = line.split("\t")
            expected = [kind for kind, _, _ in split_chunks_untrusted(packet.data)]
            assert [int(kind) for kind in kinds.split(",")] == expected
            assert float(seen_at) == pytest.approx(packet.time, abs=1e-6)
        wrong = [*command, "-Y", '_ws.malformed || sctp.checksum.status == "Bad"']
        assert not subprocess.run(wrong, check=True, capture_output=True, text=True).stdout


def test_a_trace_that_exists_is_an_error_before_anything_is_sent(flyx: Flyx, tmp_path: Path) -> None:
    taken = tmp_path / "mine.pcapng"
    taken.write_text("mine")
    flyx.environment[VARIABLE] = str(taken)
    sender = flyx.send(write_random(tmp_path / "file.bin", 10)).ends(EXIT_USAGE)
    assert "mine.pcapng exists already" in sender.event("error")["message"]
    assert taken.read_text() == "mine"
