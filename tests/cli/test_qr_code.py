"""QR codes on a terminal."""

from __future__ import annotations

import segno
from hypothesis import given
from hypothesis import strategies as st

from flyx.cli.qr_code import QUIET_ZONE, can_be_written_in, qr_rows

LINK = "https://flyx.example.org/K7M2QX#lemon-otter"


def modules(rows: list[str]) -> list[list[bool]]:
    """Return what is dark, read off the characters."""
    halves = [[(char in "█▀", char in "█▄") for char in row] for row in rows]
    return [[pair[half] for pair in row] for row in halves for half in (0, 1)]


@given(st.text(min_size=1, max_size=200))
def test_what_is_drawn_is_the_code_with_light_around_it(text: str) -> None:
    seen = modules(qr_rows(text))
    code = [[bool(module) for module in row] for row in segno.make(text, error="l", micro=False).matrix]
    size = len(code) + 2 * QUIET_ZONE
    assert {len(row) for row in seen} == {size}
    assert size <= len(seen) <= size + 1
    inner = [row[QUIET_ZONE:-QUIET_ZONE] for row in seen[QUIET_ZONE : QUIET_ZONE + len(code)]]
    assert inner == code
    assert sum(map(sum, seen)) == sum(map(sum, code))


def test_a_code_of_a_link_and_the_lines_above_it_fit_a_terminal_of_24_lines() -> None:
    assert len(qr_rows(LINK)) == 17


def test_some_encodings_have_no_half_blocks() -> None:
    assert can_be_written_in("utf-8")
    assert not can_be_written_in("iso-8859-1")
    assert not can_be_written_in("no such encoding")
