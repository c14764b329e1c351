"""FLYX_TRACE: what is written is a capture, belongs to its owner, and is never in the way."""

from __future__ import annotations

import json
import os
from contextlib import closing
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.errors import InputError
from flyx.rtc import trace
from flyx.rtc.trace import Direction, Trace
from flyx.sctp.transmission import SendStatistics
from tests.pcapng import read

Bursts = list[tuple[int, Direction, list[bytes]]]


def statistics(**changed: object) -> SendStatistics:
    fields: dict[str, object] = {
        "rtt": 0.05,
        "delivered": 1000,
        "lost": 0,
        "resent": 0,
        "in_flight": 500,
        "cwnd": 12_000,
        "pacing_rate": 1e6,
        "phase": "STARTUP",
    }
    return SendStatistics(**(fields | changed))  # type: ignore[arg-type]


def lines(path: Path) -> list[dict[str, object]]:
    text = path.with_name(f"{path.name}.ndjson").read_text()
    return [json.loads(line) for line in text.splitlines()]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(Direction),
            st.lists(st.binary(max_size=70), min_size=1, max_size=4),
        ),
        max_size=8,
    )
)
def test_every_packet_is_in_the_capture_with_its_association_and_direction(
    tmp_path_factory: pytest.TempPathFactory, bursts: Bursts
) -> None:
    path = tmp_path_factory.mktemp("trace") / "one.pcapng"
    with closing(Trace(path)) as made:
        associations = [made.association() for _ in range(3)]
        for number, direction, packets in bursts:
            if direction is Direction.INBOUND:
                associations[number].received(packets, 1.0)
            else:
                associations[number].sent(packets, 1.0)
    assert [(each.association, each.direction, each.data) for each in read(path)] == [
        (number, direction, packet) for number, direction, packets in bursts for packet in packets
    ]


def test_a_line_is_written_at_each_loss_and_change_of_phase_and_every_10_ms_between(tmp_path: Path) -> None:
    path = tmp_path / "one.pcapng"
    with closing(Trace(path)) as made:
        association = made.association()
        for now, changed in [
            (1.000, {}),
            (1.000, {}),
            (1.005, {"delivered": 2000}),
            (1.006, {"delivered": 2000, "lost": 10}),
            (1.007, {"delivered": 2000, "lost": 10, "phase": "DRAIN"}),
            (1.016, {"delivered": 3000, "lost": 10, "phase": "DRAIN"}),
            (1.018, {"delivered": 4000, "lost": 10, "phase": "DRAIN", "pacing_rate": inf}),
        ]:
            association.progressed(statistics(**changed), now)
    seen = [(line["delivered"], line["lost"], line["phase"], line["pacing_rate"]) for line in lines(path)]
    assert seen == [
        (1000, 0, "STARTUP", 1_000_000),
        (2000, 10, "STARTUP", 1_000_000),
        (2000, 10, "DRAIN", 1_000_000),
        (4000, 10, "DRAIN", None),
    ]


def test_both_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    Trace(tmp_path / "one.pcapng").close()
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "one.pcapng": 0o600,
        "one.pcapng.ndjson": 0o600,
    }


@pytest.mark.parametrize("name", ["one.pcapng", "one.pcapng.ndjson"])
def test_a_file_that_exists_is_left_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        Trace(tmp_path / "one.pcapng")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_directory_gets_a_capture_for_each_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_started", None)
    monkeypatch.setenv(trace.VARIABLE, str(tmp_path))
    made = trace.start()
    assert made is trace.start() is not None
    made.close()
    (name,) = {path.name for path in tmp_path.iterdir() if path.suffix == ".pcapng"}
    assert name.startswith("flyx-")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_ends_the_trace_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Trace(tmp_path / "one.pcapng")) as made, open("/dev/full", "ab") as full:
        association = made.association()
        os.dup2(full.fileno(), made._capture.fileno())
        association.sent([bytes(100)], 1.0)
        association.sent([bytes(100)], 2.0)
    assert [record.message for record in caplog.records] == ["the trace ends here: No space left on device"]
