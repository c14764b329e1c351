"""Draws the rows of transfers so that they fit a screen of any size. Pure; loaded where there is a terminal.

Columns are dropped when they do not fit, the least important first; no row is ever as wide as the screen, so
that no terminal breaks it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct
from rich.text import Text

from flyx.cli.rows import Current, Glyphs, Row, percentage
from flyx.errors import size_text

MAX_ROWS = 12
"""Most rows, however high the screen is."""

ROWS_LEFT = 4
"""Rows of a screen that are left for other lines."""

BAR_WIDTH = 40
"""Columns of a bar at most."""

SHORT_BAR = 8
"""Columns of a bar at least: a shorter one is left out."""

SHORT_NAME = 10
"""Columns of a name that are left when there is room for no more."""


def draw(
    rows: Sequence[Row], current: Current | None, columns: int, lines: int, glyphs: Glyphs
) -> list[Text]:
    """Return what to show of transfers, one line each, and of the file under way.

    Args:
        rows: one for each transfer.
        current: of the only one; None if there are several, or it has one file.
        columns: of the screen.
        lines: of the screen.
        glyphs: for the bars.
    """
    most = max(1, min(MAX_ROWS, lines - ROWS_LEFT))
    shown = _summed_up(rows, most)
    # A row that fills a line leaves the cursor where terminals do not agree.
    width = max(1, columns - 1)
    drawn = _table(shown, width, glyphs)
    if current and len(drawn) < most:
        drawn.append(_current(current, width, glyphs))
    return drawn


def _summed_up(rows: Sequence[Row], most: int) -> Sequence[Row]:
    """Return so many rows at most; the last one stands for all that are left out."""
    if len(rows) <= most:
        return rows
    shown, rest = rows[: most - 1], rows[most - 1 :]
    stalled = sum(row.is_stalled for row in rest)
    name = f"{len(rest):,} more" if shown else f"{len(rest):,} receivers"
    return [
        *shown,
        Row(
            name,
            sum(row.done for row in rest),
            _sum_of_totals(rest),
            f"{stalled:,} stalled" if stalled else "",
            bool(stalled),
        ),
    ]


def _sum_of_totals(rows: Sequence[Row]) -> int | None:
    totals = [row.total for row in rows if row.total is not None]
    return sum(totals) if len(totals) == len(rows) else None


def _amount(row: Row) -> str:
    return size_text(row.done) if row.total is None else f"{size_text(row.done)} of {size_text(row.total)}"


class _Column(Struct, frozen=True):
    """What stands in one column of each row.

    Attributes:
        text: of a row.
        style: of a row.
        right: whether it ends at the same place in each row.
        least: columns that it has if it has any, so that the others do not jump.
    """

    text: Callable[[Row], str]
    style: Callable[[Row], str]
    right: bool = False
    least: int = 0


_COLUMNS = {
    "name": _Column(lambda row: row.name, lambda _: ""),
    "part": _Column(lambda row: percentage(row.done, row.total), lambda _: "bold", right=True),
    "amount": _Column(_amount, lambda _: "", right=True),
    "pace": _Column(
        lambda row: row.pace, lambda row: "bold yellow" if row.is_stalled else "cyan", right=True
    ),
    "left": _Column(lambda row: row.left, lambda _: "", right=True),
    "route": _Column(lambda row: row.route, lambda _: "dim"),
    "limit": _Column(lambda row: row.limit, lambda _: "dim"),
}

_DROPPED = ("limit", "amount", "bar", "route", "left", "name", "pace")
"""The first goes first. What is left in the end is how much is done."""


def _table(rows: Sequence[Row], width: int, glyphs: Glyphs) -> list[Text]:
    widths = {
        key: max(size, column.least)
        for key, column in _COLUMNS.items()
        if (size := max((Text(column.text(row)).cell_len for row in rows), default=0))
    }
    # Rows of one stream have no end that a bar could show.
    bar = 0 if any(row.total is None for row in rows) else SHORT_BAR
    for dropped in _DROPPED:
        if _sum(widths, bar) <= width:
            break
        if dropped == "name" and widths.get("name", 0) > SHORT_NAME:
            # A part of a name is better than none.
            widths["name"] = max(SHORT_NAME, widths["name"] - (_sum(widths, bar) - width))
            if _sum(widths, bar) <= width:
                break
        if dropped == "bar":
            bar = 0
        else:
            widths.pop(dropped, None)
    if bar:
        bar = min(BAR_WIDTH, bar + width - _sum(widths, bar))
    return [_line(row, widths, bar, width, glyphs) for row in rows]


def _sum(widths: dict[str, int], bar: int) -> int:
    """The columns of a row, with two between any of them."""
    parts = [*widths.values(), *([bar] if bar else [])]
    return sum(parts) + 2 * (len(parts) - 1)


def _line(row: Row, widths: dict[str, int], bar: int, width: int, glyphs: Glyphs) -> Text:
    cells = []
    for key, column in _COLUMNS.items():
        if key in widths:
            text = Text(_end_of(column.text(row), widths[key], glyphs), column.style(row))
            room = widths[key] - text.cell_len
            if column.right:
                text = Text(" " * room).append_text(text)
            else:
                text.append(" " * room)
            cells.append(text)
        if key == "name" and bar:
            full = bar * row.done // row.total if row.total else bar
            cells.append(Text(glyphs.full * full, "green").append(glyphs.empty * (bar - full), "dim"))
    line = Text("  ").join(cells)
    line.rstrip()
    line.truncate(width)
    return line


def _current(current: Current, width: int, glyphs: Glyphs) -> Text:
    count = f"{current.number:,} of {current.count:,} files"
    if (room := width - Text(count).cell_len - 2) >= SHORT_NAME and current.name:
        count += f"  {_end_of(current.name, room, glyphs)}"
    line = Text(count)
    line.truncate(width)
    return line


def _end_of(name: str, width: int, glyphs: Glyphs) -> str:
    """Keep the end of what is too long: that is where names differ."""
    if Text(name).cell_len <= width:
        return name
    end = name[-width:]
    while end and Text(end).cell_len > width - 1:
        end = end[1:]
    return glyphs.cut + end
