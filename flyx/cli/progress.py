"""Progress for people: bars on a terminal, plain lines elsewhere, and what it came to.

A sender shows one row for each receiver, a receiver the whole transfer; below a single row stands the file
under way. Rows are drawn by the clock, a few times a second, never by what happens: 20,000 files a second
cost no more than one.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Self

from flyx.cli.output import (
    amount_text,
    directory_text,
    files_text,
    finish_data,
    make_console,
    path_text,
    report_line,
    write_data,
    write_data_soon,
    write_text,
    write_waiting,
)
from flyx.cli.pace import Pace
from flyx.cli.qr_code import can_be_written_in, coloured, qr_rows
from flyx.cli.rows import Current, Row, glyphs_for, percentage
from flyx.cli.screen import can_draw, screen
from flyx.cli.terminal import screen_size
from flyx.client import events as e
from flyx.client.codes import receive_command
from flyx.client.limits import Limit
from flyx.errors import Declined, FilesFailed, printable, size_text
from flyx.rtc.attempts import progress_text
from flyx.rtc.path import CandidatePair
from flyx.transfer.left_out import BY_NATURE, reason
from flyx.transfer.manifest import Content, Manifest

if TYPE_CHECKING:
    from rich.console import Console

NAMED = 10
"""Saved files, and those left out, that are named on a terminal or to a person. JSON has all of them."""

FRAME = 0.2
"""Seconds between two drawings."""

STOOD_STILL = 1.0
"""Seconds that a drawing may be late. Later, this program was stopped (Ctrl-Z), and nothing can be said of
that time."""

ALIVE = 1000
"""Bytes a second that are more than two ends say to each other about a transfer that does not go on."""

MOST_FILES = 10_000
"""Files that are passed over at one drawing, to find the one under way."""

LARGE = 8_000_000
"""Bytes of a file from which on its own progress is shown."""

_LINES_BESIDE_CODE = 5
"""Lines that are shown above a QR code, which are to stay in sight."""

_ELSEWHERE = "(from elsewhere: send with --server and the URL of a `flyx serve` both reach)"


@dataclass(slots=True)
class _Transfer:
    """What is known of the transfer with one peer.

    Attributes:
        pace: None before the first progress.
        begun: when that was.
        path: in use, or used last.
        is_connected: whether it is in use.
        lost_since: when the connection was lost that is being repaired.
        files: that are complete.
        left_out: how many files could not be delivered, and lines for the first of them.
        condition: the last one.
        limits: for how many seconds each limit was the one.
    """

    pace: Pace | None = None
    begun: float = 0.0
    path: CandidatePair | None = None
    is_connected: bool = False
    lost_since: float | None = None
    files: int = 0
    left_out: int = 0
    left_out_lines: list[str] = field(default_factory=list)
    condition: e.Condition | None = None
    limits: Counter[Limit | None] = field(default_factory=Counter)


class HumanReporter:
    """Renders events for a person at a terminal, or for a log."""

    def __init__(
        self,
        *,
        sending: bool,
        bars: bool,
        directory: Path | None = None,
        qr_code: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        sending: which end we are.
        bars: whether to show bars where there is a terminal.
        directory: what a receiver saves into.
        qr_code: whether to draw a link as a QR code as well; None: if the terminal has room for it.
        clock: returns monotonic seconds.
        """
        self._sending = sending
        self._directory = directory
        self._qr_code = qr_code
        self._clock = clock
        self._bars_shown = bars and can_draw()
        self._glyphs = glyphs_for(sys.stderr.encoding or "ascii")
        self._transfers: dict[int, _Transfer] = {}
        self._files: _FilesByOffset | None = None
        self._files_known = False
        self._is_text = False
        # The first of what a sender could not list; a receiver is told of each as of one that is lost.
        self._not_listed: list[str] = []
        # Whether a terminal gets the names of saved files, and so only if they are few; they wait here.
        self._names_are_shown = sys.stdout.isatty()
        self._saved: list[str] = []
        # A line tells how far a sender is with its list, until anything else happens.
        self._is_listing = False
        self._next: asyncio.TimerHandle | None = None
        self._drawn: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        finish_data(*raised)
        if self._next:
            self._next.cancel()
        screen.hide()
        self._name_saved()
        for peer in list(self._transfers):
            # It has ended in the middle, or without all files.
            self._tell_left_out(peer)

    def _show_link(self, link: str) -> None:
        report_line("or open this in a browser:")
        report_line(link)
        if self._qr_code is False or not can_be_written_in(sys.stderr.encoding or "ascii"):
            return
        rows, size = qr_rows(link), screen_size()
        has_room = self._qr_code or len(rows) + _LINES_BESIDE_CODE <= size.lines
        if has_room and len(rows[0]) <= size.columns:
            for row in rows:
                screen.line(coloured(row))

    def __call__(self, event: e.Event) -> None:
        """Render one event."""
        if self._is_listing and not isinstance(event, e.Listing):
            self._is_listing = False
            screen.hide()
        if not isinstance(event, e.FileFinished):
            write_waiting()
        match event:
            case e.RoomOpened(code=code, server=server, pass_on=pass_on):
                report_line(f"On {_where(event)}, run:")
                write_data(receive_command(code, server if pass_on else None))
                if event.local:
                    report_line(_ELSEWHERE)
                elif event.link and sys.stdout.isatty() and can_draw():
                    self._show_link(event.link)
            case e.RoomJoined(room_id=room_id):
                report_line(f"Joined {room_id}, waiting for the sender to connect")
            case e.Connecting(peer=peer, attempts=attempts):
                report_line(f"{self._name(peer)}: not connected yet. {printable(progress_text(attempts))}")
            case e.PeerConnected(peer=peer, path=path, rtt=rtt):
                self._connected(peer, path, rtt)
            case e.Condition():
                self._condition(event)
            case e.PeerLost(peer=peer, error=lost):
                self._lost(peer)
                report_line(f"{self._name(peer)}: {str(lost).rstrip('.')}. Trying to connect again.")
            case e.PeerEnded(peer=peer, error=error):
                self._tell_left_out(peer)
                self._transfers.pop(peer, None)
                # What closes the room is the last word of the program as well.
                if error is not None and not error.closes_room and not isinstance(error, FilesFailed):
                    reason = " declined" if isinstance(error, Declined) else f": {str(error).rstrip('.')}"
                    again = " The code is still good for another try." if event.code_is_good else ""
                    report_line(f"{self._name(peer)}{reason}.{again}")
            case e.Listing(entries=entries):
                self._list(entries)
            case e.ManifestKnown(manifest=manifest):
                self._know(manifest)
            case e.Resuming(peer=peer, files=files, bytes=size):
                self._resume(peer, files, size)
            case e.Progress(peer=peer, bytes=done, total=total, arrived=arrived):
                self._advance(peer, done + arrived, total)
            case e.FileFinished(peer=peer, saved_as=saved_as):
                self._transfer(peer).files += 1
                if saved_as is not None:
                    self._tell_saved(saved_as)
            case e.TextReceived(text=text):
                write_text(text)
            case e.FileLost(peer=peer, path=path, reason=reason):
                self._leave_out(peer, f"{printable(path)}: {printable(reason)}")
            case e.TransferDone(peer=peer):
                self._done(event)
            case e.Notice(message=message):
                report_line(printable(message))
            case e.PeerJoined() | e.PeerPaired():
                pass

    def _list(self, entries: int) -> None:
        if self._bars_shown and self._next is None:
            text = f"{entries:,} files and directories found"[: screen_size().columns - 1]
            screen.show([(text, len(text))])
            self._is_listing = True

    @cached_property
    def _console(self) -> Console:
        return make_console()

    def draw(self) -> None:
        """Draw how far the transfers are now."""
        now = self._clock()
        if self._drawn is not None and (late := now - self._drawn - FRAME) > STOOD_STILL:
            for transfer in self._transfers.values():
                if transfer.pace:
                    transfer.pace.skip(late)
        self._drawn = now
        rows = [row for peer in sorted(self._transfers) if (row := self._row(peer, now))]
        if not rows:
            screen.hide()
            return
        # With what draws, which nobody needs without a terminal.
        from flyx.cli.bars import draw

        columns, lines = screen_size()
        drawn = draw(rows, self._current(), columns, lines, self._glyphs)
        with self._console.capture() as capture:
            for line in drawn:
                self._console.print(line, soft_wrap=True)
        screen.show(list(zip(capture.get().split("\n"), [line.cell_len for line in drawn], strict=False)))

    def _draw_again(self) -> None:
        """Draw, and go on doing so while there is something to show."""
        self._next = None
        self.draw()
        if self._bars_shown and any(transfer.pace for transfer in self._transfers.values()):
            self._next = asyncio.get_running_loop().call_later(FRAME, self._draw_again)

    def _name(self, peer: int) -> str:
        return f"Receiver {peer}" if self._sending else "Sender"

    def _transfer(self, peer: int) -> _Transfer:
        return self._transfers.setdefault(peer, _Transfer())

    def _know(self, manifest: Manifest) -> None:
        self._files_known = True
        self._is_text = manifest.content is Content.TEXT
        self._files = _FilesByOffset(manifest) if manifest.file_count > 1 else None
        if self._sending:
            failures = (
                f"{printable(path)}: {reason(code)}"
                for path, code in manifest.left_out.named
                if code not in BY_NATURE
            )
            self._not_listed = list(islice(failures, NAMED))
            roots = ", ".join(printable(root) for root in manifest.roots[:3])
            more = f" and {len(manifest.roots) - 3} more" if len(manifest.roots) > 3 else ""
            named = "" if manifest.content is Content.TEXT else f"{roots}{more} "
            report_line(f"Sending {named}({amount_text(manifest)})")

    def _connected(self, peer: int, path: CandidatePair, rtt: float) -> None:
        transfer = self._transfer(peer)
        verb = "goes on" if transfer.is_connected else "connected"
        transfer.path, transfer.is_connected, transfer.lost_since = path, True, None
        if transfer.pace:
            transfer.pace.moving(self._clock())
        # The type of a remote candidate is what the peer says it is.
        kinds = f"{printable(path.local)} to {printable(path.remote)}"
        report_line(f"{self._name(peer)}: {verb} {path_text(path)} ({kinds}, {rtt * 1000:.1f} ms)")

    def _lost(self, peer: int) -> None:
        transfer = self._transfer(peer)
        transfer.is_connected, transfer.lost_since = False, self._clock()
        if transfer.pace:
            # It is counted in again when there is another connection.
            transfer.pace.there_before(transfer.pace.done)

    def _resume(self, peer: int, files: int, size: int) -> None:
        transfer = self._transfer(peer)
        if transfer.pace is None:
            self._begin(transfer, 0, size)
        assert transfer.pace is not None
        transfer.pace.there_before(size)
        there = files_text(files, 0, size) if files else size_text(size)
        who = f"Receiver {peer} has" if self._sending else "Here already"
        report_line(f"{who} from an earlier try: {there}")

    def _begin(self, transfer: _Transfer, done: int, total: int | None) -> None:
        transfer.begun = self._clock()
        transfer.pace = Pace(done, total, transfer.begun)

    def _advance(self, peer: int, done: int, total: int | None) -> None:
        transfer = self._transfer(peer)
        if transfer.pace is None:
            # What was there before is no speed.
            self._begin(transfer, done, total)
        else:
            transfer.pace.advance(done, total, self._clock())
        if self._bars_shown and self._next is None:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                # A test gives a clock, and calls draw() itself.
                return
            self._draw_again()

    def _condition(self, condition: e.Condition) -> None:
        transfer = self._transfer(condition.peer)
        before, transfer.condition = transfer.condition, condition
        transfer.limits[condition.limit] += 1
        # At a sender, a block counts when all of it is verified: on a slow link that is seldom.
        if transfer.pace and before and condition.delivered - before.delivered >= ALIVE and self._sending:
            transfer.pace.moving(self._clock())

    def _row(self, peer: int, now: float) -> Row | None:
        transfer = self._transfers[peer]
        if (pace := transfer.pace) is None:
            return None
        speed, stalled, left = pace.speed(now), pace.stalled(now), pace.remaining(now)
        if transfer.lost_since is not None:
            words, stalled = f"no connection for {now - transfer.lost_since:.0f} s", 0.0
        elif stalled is not None:
            words = f"stalled for {duration_text(stalled)}"
        else:
            words = f"{size_text(round(speed))}/s" if speed is not None else ""
        return Row(
            self._name(peer) if self._sending else "Received",
            pace.done,
            pace.total,
            words,
            stalled is not None,
            f"{clock_text(left)} left" if left is not None and stalled is None else "",
            route_text(transfer.path) if transfer.path else "",
            limit_text(transfer.condition.limit)
            if transfer.condition and transfer.condition.limit and stalled is None
            else "",
        )

    def _current(self) -> Current | None:
        """The file under way, where there is one transfer of several files."""
        under_way = [transfer for transfer in self._transfers.values() if transfer.pace]
        if self._files is None or len(under_way) != 1:
            return None
        (transfer,) = under_way
        assert transfer.pace is not None
        if transfer.pace.total != self._files.size:
            # Some of them are not needed, and which, is not known here.
            return None
        name, done, size = self._files.at(transfer.pace.done)
        part = f" ({percentage(done, size)})" if size >= LARGE else ""
        return Current(transfer.files, self._files.count, f"{printable(name)}{part}" if name else "")

    def _tell_saved(self, path: str) -> None:
        if not self._names_are_shown:
            write_data_soon(path)
            return
        # More would only hide the rest: the last line says where they are. Files may come before it is known
        # how many there are.
        if len(self._saved) <= NAMED:
            self._saved.append(path)
        if self._files_known:
            self._name_saved()

    def _name_saved(self) -> None:
        """Name the files that are saved, if they are few."""
        few = self._files.count <= NAMED if self._files else len(self._saved) <= NAMED
        if few:
            for path in self._saved:
                write_data(path)
            self._saved.clear()

    def _leave_out(self, peer: int, line: str) -> None:
        transfer = self._transfer(peer)
        transfer.left_out += 1
        if len(transfer.left_out_lines) < NAMED:
            transfer.left_out_lines.append(line)

    def _done(self, done: e.TransferDone) -> None:
        # Of what a sender could not list, there are no events.
        self._transfer(done.peer).left_out = done.missing
        moved = done.bytes - done.resumed
        self._summarise(done.peer, done.files, done.bytes, done.seconds, moved, done.spared)
        del self._transfers[done.peer]

    def _tell_left_out(self, peer: int) -> None:
        """Tell what a transfer has come to that has not delivered all files."""
        transfer = self._transfer(peer)
        if transfer.left_out:
            done = transfer.pace.done if transfer.pace else 0
            seconds = self._clock() - transfer.begun if transfer.pace else 0.0
            self._summarise(peer, transfer.files, done, seconds, done)
            transfer.left_out = 0

    def _summarise(
        self, peer: int, files: int, size: int, seconds: float, moved: int, spared: int = 0
    ) -> None:
        """Tell what a transfer has come to, and what was left out.

        Args:
            files: that are complete.
            size: bytes in these.
            seconds: that it took.
            moved: bytes of these that were moved now.
            spared: of those, how many had not to be sent.
        """
        self._name_saved()
        transfer = self._transfer(peer)
        # Of what is shown, the row of this one is no part any more.
        transfer.pace = None
        amount = f"a text, {size_text(size)}" if self._is_text else files_text(files, 0, size)
        if transfer.left_out:
            amount = f"{files:,} of {files + transfer.left_out:,} files, {size_text(size)}"
        if self._directory is not None and not self._is_text:
            amount += f" into {directory_text(self._directory)}"
        amount += f" in {duration_text(seconds, exact=True)}"
        if seconds > 0.001 and moved > 0:
            amount += f", {size_text(round(moved / seconds))}/s"
        if spared * 100 >= moved > 0:
            amount += f", {size_text(spared)} spared by compression"
        if transfer.path:
            amount += f", {_way(transfer.path)}"
        if transfer.condition:
            ((limit, _),) = transfer.limits.most_common(1)
            amount += condition_text(replace(transfer.condition, limit=limit))
        verb = f"Receiver {peer} has {'' if transfer.left_out else 'everything: '}"
        report_line(f"{verb if self._sending else 'Received '}{amount}")
        if transfer.left_out:
            lines = [*transfer.left_out_lines, *self._not_listed][:NAMED]
            if not lines:
                # The other side has not named them.
                report_line(f"Left out: {transfer.left_out:,} of them")
                return
            report_line("Left out:")
            for line in lines:
                report_line(f"  {line}")
            if more := transfer.left_out - len(lines):
                report_line(f"  and {more:,} more")


def _where(room: e.RoomOpened) -> str:
    """Return on which computer a receiver can run."""
    if room.here_only:
        return "this computer, as no other one reaches the server"
    return "another computer on this network" if room.local else "the other computer"


def limit_text(limit: Limit) -> str:
    """Say what keeps a transfer from being faster."""
    return "at the rate limit" if limit is Limit.RATE else f"limited by the {limit}"


def condition_text(condition: e.Condition) -> str:
    """Return how a transfer went, to follow how fast it was; empty if nothing is known."""
    parts = []
    if condition.limit:
        parts.append(limit_text(condition.limit))
    if condition.rtt is not None:
        parts.append(f"{condition.rtt * 1000:.1f} ms there and back")
    if condition.resent:
        share = condition.resent / (condition.delivered + condition.resent)
        parts.append(f"{share:.2%} sent again")
    return f" ({', '.join(parts)})" if parts else ""


class _FilesByOffset:
    """Finds the file that stands at an offset of the whole transfer: files come in the manifest's order.

    It goes along with the transfer, so that a million files cost no memory and no time at once.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.count = manifest.file_count
        self.size = manifest.total_bytes
        self._entries = manifest.entries
        self._rewind()

    def _rewind(self) -> None:
        # The next entry; the last one before it that has bytes, and where it begins and ends.
        self._next = 0
        self._path, self._start, self._end = "", 0, 0

    def at(self, offset: int) -> tuple[str, int, int]:
        """Return path, bytes done and size of the file at offset, the last one at the end of all.

        The path is empty while the way there is too long to be gone at once.
        """
        if offset < self._start:
            self._rewind()
        last = min(len(self._entries), self._next + MOST_FILES)
        while offset >= self._end and self._next < last:
            entry = self._entries[self._next]
            self._next += 1
            if entry.size:
                self._path, self._start, self._end = entry.path, self._end, self._end + entry.size
        if offset > self._end:
            return "", 0, 0
        return self._path, offset - self._start, self._end - self._start


def route_text(path: CandidatePair) -> str:
    """Say in a word or two which way the bytes take."""
    if path.tunnelled:
        return "through the server"
    return "relayed" if "relay" in (path.local, path.remote) else "direct"


def _way(path: CandidatePair) -> str:
    return "through the signaling server" if path.tunnelled else path_text(path)


def duration_text(seconds: float, *, exact: bool = False) -> str:
    """Return a time that has passed, such as 7 s, 2 min 5 s or 3 h 20 min; `exact`: a short one to 0.1 s."""
    if exact and seconds < 100:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def clock_text(seconds: float) -> str:
    """Return a time that is left, such as 0:07, 12:34, 1:23:45 or 3 days."""
    whole = round(seconds)
    if whole >= 2 * 86_400:
        return f"{whole // 86_400:,} days"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
