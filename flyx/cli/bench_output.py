"""What `flyx bench` shows: a screen for people, or events."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import flyx
from flyx.cli.output import (
    errors_as_events,
    event_fields,
    make_console,
    path_text,
    report_line,
    write_data,
    write_event,
)
from flyx.cli.rows import glyphs_for
from flyx.cli.screen import can_draw, screen
from flyx.cli.terminal import screen_size
from flyx.client import events
from flyx.client.bench.machine import processors
from flyx.client.bench.measured import Measured, Part, slowest
from flyx.client.codes import receive_command
from flyx.client.doctor.finding import milliseconds
from flyx.client.limits import Limit
from flyx.errors import InputError, printable, size_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from flyx.rtc.path import CandidatePair

LABELS: Mapping[Part, str] = {
    Part.DISK_WRITE: "disk, writing",
    Part.DISK_READ: "disk, reading",
    Part.SHA256: "SHA-256",
    Part.BLAKE3: "BLAKE3",
    Part.TRANSFER: "memory to memory",
    Part.TRANSFER_1200: "in 1,200-byte packets",
    Part.TO_PEER: "to the other side",
    Part.FROM_PEER: "from the other side",
}
"""What people read for the parts."""

_PARTS: Mapping[Part, str] = {
    Part.DISK_WRITE: "writing to the disk",
    Part.DISK_READ: "reading from the disk",
    Part.TRANSFER: "the processor",
}

_HERE, _THERE = "the processor here", "the processor there"
_LIMITS: Mapping[tuple[Part, Limit], str] = {
    (Part.TO_PEER, Limit.SENDERS_CPU): _HERE,
    (Part.TO_PEER, Limit.RECEIVERS_CPU): _THERE,
    (Part.FROM_PEER, Limit.SENDERS_CPU): _THERE,
    (Part.FROM_PEER, Limit.RECEIVERS_CPU): _HERE,
}

BAR_WIDTH = 12
"""Columns of the longest bar at most."""

_WIDE = 80
"""Columns of a screen from which on there are bars."""


class BenchOutput:
    """Shows what is measured; a context manager around that, which is called with events."""

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        """Args:
        quiet: data and errors only.
        as_json: events, one a line.

        Raises:
            InputError: both.
        """
        if quiet and as_json:
            raise InputError(reason="--quiet and --json exclude each other")
        self._quiet, self._as_json = quiet, as_json
        self._draws = not (quiet or as_json) and can_draw()
        self._measured: list[Measured] = []
        # What is being measured, and since when it moves how much.
        self._what = ""
        self._since: tuple[float, int] | None = None
        self._path: CandidatePair | None = None
        # Of this computer, before it had to do with us.
        self._load = _load()
        if as_json:
            errors_as_events()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._draws:
            screen.hide()

    def begin(self, what: str) -> None:
        """This is being measured from now on."""
        self._what, self._since = what, None
        self._draw(f"Measuring {what}")

    def take(self, measured: Measured) -> None:
        """This has been measured."""
        self._measured.append(measured)
        if self._as_json:
            write_event("measured", **measured_fields(measured))

    def __call__(self, event: events.Event) -> None:
        """Something has happened on the way to the other side."""
        if isinstance(event, events.Progress):
            self._progress(event)
        elif self._as_json:
            name, fields = event_fields(event)
            write_event(name, **fields)
        else:
            self._tell(event)

    def end(self, seconds: float) -> None:
        """All has been measured, in so many seconds."""
        rates = {one.part: one.rate for one in self._measured}
        limit = slowest(rates)
        if self._as_json:
            machine = {"processors": processors(), "compiled": _is_compiled(), "load": self._load}
            rate = None if limit is None else round(rates[limit])
            write_event("benched", limit=limit, rate=rate, **machine, seconds=round(seconds, 3))
            return
        if self._draws:
            screen.hide()
        console = make_console(stderr=False)
        if not self._quiet:
            console.print(machine_text(self._load))
            console.print(table_of(self._measured, console))
        for sentence in verdict(self._measured):
            # A program reads it as a line.
            console.print(sentence, soft_wrap=not console.is_terminal)

    def _progress(self, event: events.Progress) -> None:
        now = time.monotonic()
        if self._since is None or event.bytes < self._since[1]:
            self._since = now, event.bytes
        since, before = self._since
        if now > since:
            rate = size_text(round((event.bytes - before) / (now - since)))
            self._draw(f"Measuring {self._what}: {rate}/s")

    def _draw(self, text: str) -> None:
        if self._draws:
            shown = text[: max(1, screen_size().columns - 1)]
            screen.show([(shown, len(shown))])

    def _tell(self, event: events.Event) -> None:
        match event:
            case events.RoomOpened(code=code, server=server, pass_on=pass_on):
                if not self._quiet:
                    report_line("On the other computer, run:")
                write_data(receive_command(code, server if pass_on else None, "bench"))
                self._what = "the path"
            case _ if self._quiet:
                pass
            case events.PeerConnected(path=path, rtt=rtt):
                if self._path is None or not path.is_like(self._path):
                    self._path = path
                    kinds = f"{path.local} to {path.remote}, {milliseconds(rtt)}"
                    report_line(f"Connected {path_text(path)} ({kinds})")
            case events.PeerEnded(error=error) if error is not None:
                report_line(f"Somebody came and failed: {printable(str(error))}")
            case events.Connecting(attempts=attempts):
                from flyx.rtc.attempts import progress_text

                report_line(progress_text(attempts))
            case events.Notice(message=message):
                report_line(printable(message))
            case _:
                pass


def measured_fields(measured: Measured) -> dict[str, Any]:
    """Return the fields of what was measured, as flyx/docs/events.schema.json defines them."""
    return {
        "part": measured.part,
        "bytes": measured.bytes,
        "seconds": round(measured.seconds, 3),
        "rate": round(measured.rate),
        "limit": measured.limit,
        "rtt": None if measured.rtt is None else round(measured.rtt, 6),
        "resent": None if measured.resent is None else round(measured.resent, 6),
    }


def machine_text(load: float | None) -> str:
    """Say what it is that was measured.

    Args:
        load: programs that wanted a processor before it began, as the system counts them; None: it does not.
    """
    count = processors()
    build = "compiled" if _is_compiled() else "pure Python"
    text = f"flyx {flyx.__version__} ({build}), {count} {'processor' if count == 1 else 'processors'}"
    if load is not None and load > count:
        text += f", busy with other programs as well (load {load:.1f})"
    return text


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def table_of(measured: Sequence[Measured], console: Console) -> Table:
    """Return a row for each part: its rate, a bar where there is room, and what was seen."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    has_bars = console.width >= _WIDE
    if has_bars:
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    most = max((one.rate for one in measured), default=0) or 1
    full = glyphs_for(sys.stdout.encoding or "ascii").full
    for one in measured:
        bar = full * max(1, round(BAR_WIDTH * one.rate / most))
        bars = [Text(bar, "green")] if has_bars else []
        table.add_row(LABELS[one.part], _rate(one.rate), *bars, Text(_seen(one), "dim"))
    return table


def verdict(measured: Sequence[Measured]) -> list[str]:
    """Say what limits transfers, and at about how much."""
    rates = {one.part: one.rate for one in measured}
    if limit := slowest(rates):
        sentence = f"A transfer on this computer is limited by {_PARTS[limit]}: about {_rate(rates[limit])}"
        small = rates.get(Part.TRANSFER_1200)
        if small is not None and small < rates[limit]:
            sentence += f", or {_rate(small)} where packets are small, as on the internet"
        return [f"{sentence}."]
    return [
        f"A transfer {LABELS[one.part]} {_limited(one)}: about {_rate(one.rate)}."
        for one in measured
        if one.part in (Part.TO_PEER, Part.FROM_PEER)
    ]


def _limited(one: Measured) -> str:
    if one.limit is None:
        return "is limited by nothing that was seen"
    return f"is limited by {_LIMITS.get((one.part, one.limit), f'the {one.limit}')}"


def _seen(one: Measured) -> str:
    parts = [] if one.rtt is None else [f"round trip {milliseconds(one.rtt)}"]
    if one.resent:
        parts.append(f"{100 * one.resent:.2g} % resent")
    return ", ".join(parts)


def _rate(rate: float) -> str:
    return f"{size_text(round(rate))}/s"


def _is_compiled() -> bool:
    from flyx.sctp import is_compiled

    return is_compiled()
