"""What `flyx bench` shows, and the command lines that it does not take."""

from __future__ import annotations

import io
import json
import shlex

import pytest
from rich.console import Console

from flyx.cli import bench_output
from flyx.cli.app import app
from flyx.cli.bench_output import BenchOutput, machine_text, measured_fields, table_of, verdict
from flyx.client import events
from flyx.client.bench.machine import processors
from flyx.client.bench.measured import Measured, Part
from flyx.client.limits import Limit
from tests.hostile_text import HOSTILE, assert_tame
from tests.schema import check_event

MB = 1e6
HERE = [
    Measured(Part.DISK_WRITE, 100, 1.0, 500 * MB),
    Measured(Part.DISK_READ, 100, 1.0, 1000 * MB),
    Measured(Part.SHA256, 100, 1.0, 1800 * MB),
    Measured(Part.TRANSFER, 100, 1.0, 400 * MB, Limit.SENDERS_CPU, 0.005, 0.0),
    Measured(Part.TRANSFER_1200, 100, 1.0, 250 * MB, Limit.SENDERS_CPU, 0.004, 0.0),
]
PATH = [
    Measured(Part.TO_PEER, 100, 4.0, 11.9 * MB, Limit.NETWORK, 0.0523, 0.0123),
    Measured(Part.FROM_PEER, 100, 4.0, 8.0 * MB, Limit.SENDERS_CPU),
]


def shown(measured: list[Measured], width: int) -> list[str]:
    text = io.StringIO()
    console = Console(file=text, width=width, markup=False, highlight=False)
    console.print(table_of(measured, console))
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_each_part_has_a_line_with_its_rate_a_bar_and_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert shown(HERE, 100) == [
        "disk, writing           500 MB/s  ━━━",
        "disk, reading          1.00 GB/s  ━━━━━━━",
        "SHA-256                1.80 GB/s  ━━━━━━━━━━━━",
        "memory to memory        400 MB/s  ━━━           round trip 5.0 ms",
        "in 1,200-byte packets   250 MB/s  ━━            round trip 4.0 ms",
    ]


@pytest.mark.parametrize("width", [40, 60, 79, 80, 200])
def test_no_line_is_wider_than_the_screen_and_no_rate_is_cut(width: int) -> None:
    lines = shown([*HERE, *PATH], width)
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    assert all(rate in text for rate in ("500 MB/s", "1.80 GB/s", "11.9 MB/s", "8.00 MB/s"))
    assert ("━" in text or "#" in text) is (width >= 80)


@pytest.mark.parametrize(
    ("measured", "sentences"),
    [
        (
            HERE,
            [
                "A transfer on this computer is limited by the processor: about 400 MB/s, or 250 MB/s where "
                "packets are small, as on the internet."
            ],
        ),
        (
            [Measured(Part.DISK_WRITE, 1, 1.0, 90 * MB), *HERE[1:]],
            ["A transfer on this computer is limited by writing to the disk: about 90.0 MB/s."],
        ),
        (
            PATH,
            [
                "A transfer to the other side is limited by the network: about 11.9 MB/s.",
                "A transfer from the other side is limited by the processor there: about 8.00 MB/s.",
            ],
        ),
        (
            [
                Measured(Part.TO_PEER, 1, 1.0, 5 * MB, Limit.SENDERS_CPU),
                Measured(Part.FROM_PEER, 1, 1.0, 5 * MB),
            ],
            [
                "A transfer to the other side is limited by the processor here: about 5.00 MB/s.",
                "A transfer from the other side is limited by nothing that was seen: about 5.00 MB/s.",
            ],
        ),
    ],
)
def test_the_last_lines_name_what_limits(measured: list[Measured], sentences: list[str]) -> None:
    assert verdict(measured) == sentences


def test_what_was_seen_of_a_path_is_its_round_trip_and_what_was_lost() -> None:
    assert "round trip 52 ms, 1.2 % resent" in shown(PATH, 100)[0]


def test_a_computer_that_is_busy_is_said_to_be() -> None:
    assert "busy" not in machine_text(None)
    assert "busy" not in machine_text(0.5)
    assert "busy with other programs as well (load 99.0)" in machine_text(99.0)


def test_events_are_those_of_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    with BenchOutput(quiet=False, as_json=True) as output:
        for measured in HERE:
            output.take(measured)
        output.end(12.3456)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for event in told:
        check_event(event)
    assert [event["part"] for event in told[:-1]] == [measured.part for measured in HERE]
    last = {key: told[-1][key] for key in ("event", "limit", "rate", "processors", "seconds")}
    assert last == {
        "event": "benched",
        "limit": "transfer",
        "rate": 400_000_000,
        "processors": processors(),
        "seconds": 12.346,
    }


@pytest.mark.parametrize("limit", [Limit.SENDERS_CPU, Limit.NETWORK, Limit.RECEIVERS_CPU, None])
@pytest.mark.parametrize("part", Part)
def test_whatever_is_measured_fits_the_schema(part: Part, limit: Limit | None) -> None:
    fields = measured_fields(Measured(part, 5, 0.5, 10.4, limit, 0.1234567, 1 / 3))
    check_event(json.loads(json.dumps({"event": "measured", "time": 1.0, **fields})))


def test_quietly_there_is_the_verdict_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with BenchOutput(quiet=True, as_json=False) as output:
        output(events.Notice("Others on this network can find this computer now."))
        for measured in HERE:
            output.take(measured)
        output.end(1.0)
    told = capsys.readouterr()
    assert (told.out, told.err) == (f"{verdict(HERE)[0]}\n", "")


@pytest.mark.parametrize("nasty", HOSTILE.values(), ids=HOSTILE)
def test_nothing_that_others_say_steers_the_terminal(nasty: str, capsys: pytest.CaptureFixture[str]) -> None:
    with BenchOutput(quiet=False, as_json=False) as output:
        output(events.Notice(nasty))
    assert_tame(capsys.readouterr().err, lines=1)


def test_every_part_has_a_name_for_people() -> None:
    assert set(bench_output.LABELS) == set(Part)


USAGE = {
    "bench K7M2QX-lemon-otter --wait": "--wait and CODE exclude each other",
    "bench K7M2QX": "the words of the code are missing",
    "bench --size 0": "--size cannot be used: 0 bytes take no time",
    "bench --size much": "--size cannot be used: much is not a size",
    "bench --quiet --json": "--quiet and --json exclude each other",
    "bench --relay-only --no-relay": "--relay-only and --no-relay exclude each other",
}


@pytest.mark.parametrize("typed", USAGE)
def test_a_wrong_command_line_is_told(typed: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        app(shlex.split(typed), prog_name="flyx")
    assert caught.value.code == 2
    assert USAGE[typed] in capfd.readouterr().err.splitlines()[0]
