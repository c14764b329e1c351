"""Rows at given widths, as rich's own console prints them."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from flyx.cli.bars import draw
from flyx.cli.rows import ASCII, UNICODE, Current, Row, glyphs_for

GB = 10**9
ROW = Row(
    "Receiver 12",
    1_234_000_000,
    2_710_000_000,
    "12.3 MB/s",
    left="2:00 left",
    route="direct",
    limit="limited by the network",
)
STALLED = Row("Receiver 3", GB, 2 * GB, "stalled for 7 s", is_stalled=True, route="relayed")
CURRENT = Current(1234, 20_000, "photos/2026/a-name-that-is-long-enough-to-be-cut.jpg (34%)")


def printed(rows: list[Row], columns: int, current: Current | None = None, lines: int = 24) -> list[str]:
    """The lines that a console of so many columns shows."""
    console = Console(width=columns, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        for line in draw(rows, current, columns, lines, UNICODE):
            console.print(line)
    return capture.get().splitlines()


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            130,
            "Receiver 12  BAR  45%  1.23 GB of 2.71 GB  12.3 MB/s  2:00 left  direct  limited by the network",
        ),
        (100, "Receiver 12  BAR  45%  1.23 GB of 2.71 GB  12.3 MB/s  2:00 left  direct"),
        (80, "Receiver 12  BAR  45%  1.23 GB of 2.71 GB  12.3 MB/s  2:00 left  direct"),
        (60, "Receiver 12  BAR  45%  12.3 MB/s  2:00 left  direct"),
        (50, "Receiver 12  45%  12.3 MB/s  2:00 left  direct"),
        (40, "Receiver 12  45%  12.3 MB/s  2:00 left"),
        (30, "Receiver 12  45%  12.3 MB/s"),
        (27, "…ceiver 12  45%  12.3 MB/s"),
        (20, "45%  12.3 MB/s"),
        (10, "45%"),
        (2, "4"),
    ],
)
def test_columns_are_dropped_the_least_important_first(columns: int, expected: str) -> None:
    (line,) = printed([ROW], columns)
    assert re.sub("━+─+", "BAR", line) == expected
    if "BAR" in expected:
        # The bar takes what is left, and shows how much is done.
        assert len(line) == columns - 1
        assert line.count("━") / (line.count("━") + line.count("─")) == pytest.approx(0.45, abs=0.08)


def test_a_stall_is_said_in_the_place_of_a_speed() -> None:
    for columns in (80, 40):
        ordinary, stalled = printed([ROW, STALLED], columns)
        assert "12.3 MB/s" in ordinary
        assert "stalled for 7 s" in stalled
        assert "left" not in stalled
        assert "Receiver 3" in stalled
    assert printed([STALLED], 22) == ["50%  stalled for 7 s"]


def test_columns_stand_below_each_other() -> None:
    first, second = printed([ROW, STALLED], 100)
    for a, b in (("45%", "50%"), ("1.23 GB of 2.71 GB", "1.00 GB of 2.00 GB")):
        assert first.index(a) == second.index(b)
    assert first.index("2.3 MB/s") + 8 == second.index("for 7 s") + 7


def test_the_file_under_way_is_told_below_with_the_end_of_its_name() -> None:
    assert printed([ROW], 100, CURRENT)[1] == f"1,234 of 20,000 files  {CURRENT.name}"
    assert printed([ROW], 50, CURRENT)[1] == "1,234 of 20,000 files  …nough-to-be-cut.jpg (34%)"[:49]
    assert printed([ROW], 25, CURRENT)[1] == "1,234 of 20,000 files"
    # Not below several.
    assert len(printed([ROW] * 12, 100, CURRENT)) == 12


def test_a_hundred_receivers_fit_a_screen_of_24_rows() -> None:
    rows = [Row(f"Receiver {n}", n * 10**6, 100 * 10**6, "1.00 MB/s") for n in range(1, 99)]
    shown = printed([*rows, STALLED, STALLED], 80)
    assert len(shown) == 12
    assert shown[10].startswith("Receiver 11 ")
    assert shown[11].startswith("89 more ")
    assert "2 stalled" in shown[11]
    (only,) = printed(rows, 80, lines=3)
    assert only.startswith("98 receivers")


def test_what_an_encoding_lacks_is_drawn_in_ascii() -> None:
    assert glyphs_for("utf-8") is UNICODE
    for encoding in ("ascii", "iso8859-1", "no such thing"):
        assert glyphs_for(encoding) is ASCII
    for line in draw([ROW], CURRENT, 60, 24, ASCII):
        assert line.plain.isascii()


TEXT = st.text(st.sampled_from("ab日é👍 .")) | st.just("")
ROWS = st.builds(
    Row,
    name=TEXT,
    done=st.integers(0, 10**18),
    total=st.integers(0, 10**18),
    pace=TEXT,
    is_stalled=st.booleans(),
    left=TEXT,
    route=TEXT,
    limit=TEXT,
)


@given(
    st.lists(ROWS, max_size=30),
    st.none() | st.builds(Current, st.integers(0, 9**9), st.integers(0, 9**9), TEXT),
    st.integers(1, 200),
    st.integers(1, 50),
)
def test_no_line_is_as_wide_as_the_screen_and_all_fit_it(
    rows: list[Row], current: Current | None, columns: int, lines: int
) -> None:
    rows = [Row(**{**_fields(row), "done": min(row.done, row.total)}) for row in rows]
    drawn = draw(rows, current, columns, lines, UNICODE)
    assert len(drawn) <= max(1, lines - 4)
    for line in drawn:
        assert cell_len(line.plain) < max(2, columns)


def _fields(row: Row) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__slots__}
