"""Progress for people: bars on a terminal, plain lines elsewhere.

A sender shows one line for each receiver; a receiver shows the whole transfer and the file under way.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import Counter
from dataclasses import replace
from itertools import accumulate
from typing import Self

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.status import Status
from rich.text import Text

from flyx.cli.output import (
    files_text,
    make_console,
    path_text,
    report_line,
    write_data,
)
from flyx.client import events as e
from flyx.client.codes import receive_command
from flyx.client.limits import Limit
from flyx.errors import Declined, printable, size_text, without_controls
from flyx.rtc.attempts import progress_text
from flyx.transfer.manifest import Manifest

NAME_WIDTH = 32
"""Columns for the name before a bar, at most."""

_ELSEWHERE = (
    "(from elsewhere: run `flyx serve` on a computer that both reach, and add --server with its URL on both)"
)

NARROW = 72
"""Columns of a terminal that are too few for a bar and all the figures beside it."""

WIDE = 130
"""Columns that are enough for what limits the transfer as well."""


class HumanReporter:
    """Renders events for a person at a terminal, or for a log."""

    def __init__(self, *, sending: bool, bars: bool) -> None:
        """Args:
        sending: which end we are.
        bars: whether to show bars where there is a terminal.
        """
        self._sending = sending
        self._bars_wanted = bars
        self._console = make_console()
        self._live: Progress | None = None
        # How far a sender is with its list, until anything else happens.
        self._listing: Status | None = None
        # Bars by peer, and the bar of the file under way.
        self._bars: dict[int, TaskID] = {}
        self._file_bar: TaskID | None = None
        self._files: _FilesByOffset | None = None
        # Peers that are connected, and how the transfer with each was seen to go last.
        self._connected: set[int] = set()
        self._conditions: dict[int, e.Condition] = {}
        # For how many seconds each limit was the one.
        self._limits: dict[int, Counter[Limit | None]] = {}

    def __enter__(self) -> Self:
        if self._bars_wanted and self._console.is_terminal:
            wide, very_wide = self._console.width >= NARROW, self._console.width >= WIDE
            self._live = Progress(
                TextColumn("{task.description}", markup=False),
                *([BarColumn()] if wide else []),
                TaskProgressColumn(),
                *([DownloadColumn()] if wide else []),
                TransferSpeedColumn(),
                TimeRemainingColumn(compact=True, elapsed_when_finished=True),
                *([TextColumn("{task.fields[limit]}", markup=False)] if very_wide else []),
                console=self._console,
                transient=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._listing:
            self._listing.stop()
        self.pause()

    def pause(self) -> None:
        """Take the bars off the screen until the next progress."""
        if self._live:
            self._live.stop()

    def line(self, text: str) -> None:
        """Write one line for people, above the bars."""
        if self._live and self._bars:
            self._console.print(Text(without_controls(text)), soft_wrap=True)
        else:
            report_line(text)

    def __call__(self, event: e.Event) -> None:
        """Render one event."""
        if self._listing and not isinstance(event, e.Listing):
            self._listing.stop()
            self._listing = None
        match event:
            case e.RoomOpened(code=code, server=server, pass_on=pass_on):
                self.line(f"On {_where(event)}, run:")
                write_data(receive_command(code, server if pass_on else None))
                if event.local:
                    self.line(_ELSEWHERE)
            case e.RoomJoined(room_id=room_id):
                self.line(f"Joined {room_id}, waiting for the sender to connect")
            case e.Connecting(peer=peer, attempts=attempts):
                self.line(f"{self._name(peer)}: not connected yet. {printable(progress_text(attempts))}")
            case e.PeerConnected(peer=peer, path=path, rtt=rtt):
                # The type of a remote candidate is what the peer says it is.
                kinds = f"{printable(path.local)} to {printable(path.remote)}"
                verb = "goes on" if peer in self._connected else "connected"
                self._connected.add(peer)
                self.line(f"{self._name(peer)}: {verb} {path_text(path)} ({kinds}, {rtt * 1000:.1f} ms)")
            case e.Condition(peer=peer):
                self._condition(event)
            case e.PeerLost(peer=peer, error=lost):
                self._connected.discard(peer)
                # It would stand still, and go on telling of a speed.
                self._remove_bar(peer)
                self.line(f"{self._name(peer)}: {str(lost).rstrip('.')}. Trying to connect again.")
            case e.PeerEnded(peer=peer, error=error):
                self._remove_bar(peer)
                # What closes the room is the last word of the program as well.
                if error is not None and not error.closes_room:
                    reason = " declined" if isinstance(error, Declined) else f": {str(error).rstrip('.')}"
                    again = " The code is still good for another try." if event.code_is_good else ""
                    self.line(f"{self._name(peer)}{reason}.{again}")
            case e.Listing(entries=entries):
                self._list(entries)
            case e.ManifestKnown(manifest=manifest):
                self._know(manifest)
            case e.Resuming(peer=peer, files=files, bytes=size):
                there = files_text(files, 0, size) if files else size_text(size)
                who = f"Receiver {peer} has" if self._sending else "Here already"
                self.line(f"{who} from an earlier try: {there}")
            case e.Progress(peer=peer, bytes=done, total=total):
                self._advance(peer, done, total)
            case e.FileFinished(saved_as=str(path)):
                self._saved(path)
            case e.FileLost(path=path, reason=reason):
                self.line(f"warning: {printable(path)}: {printable(reason)}")
            case e.TransferDone(peer=peer, files=files, bytes=size, seconds=seconds, resumed=there):
                self._done(peer, files, size, seconds, there)
            case e.Notice(message=message):
                self.line(printable(message))
            case e.PeerJoined() | e.PeerPaired() | e.FileFinished():
                pass

    def _name(self, peer: int) -> str:
        return f"Receiver {peer}" if self._sending else "Sender"

    def _list(self, entries: int) -> None:
        if self._live and not self._bars:
            text = f"{entries:,} files and directories found"
            if self._listing is None:
                self._listing = self._console.status(text)
                self._listing.start()
            self._listing.update(text)

    def _know(self, manifest: Manifest) -> None:
        if self._sending:
            directories = manifest.entries.directory_count
            roots = ", ".join(printable(root) for root in manifest.roots[:3])
            more = f" and {len(manifest.roots) - 3} more" if len(manifest.roots) > 3 else ""
            amount = files_text(manifest.file_count, directories, manifest.total_bytes)
            self.line(f"Sending {roots}{more} ({amount})")
        elif manifest.file_count > 1:
            self._files = _FilesByOffset(manifest)

    def _advance(self, peer: int, done: int, total: int) -> None:
        if not self._live:
            return
        if peer not in self._bars:
            name = self._name(peer) if self._sending else "All files"
            # What was there before is no speed.
            self._bars[peer] = self._live.add_task(name, total=total, completed=done, limit="")
        self._live.start()
        self._live.update(self._bars[peer], completed=done, total=total)
        if self._files:
            name, file_done, size = self._files.at(done)
            if self._file_bar is None:
                self._file_bar = self._live.add_task("", total=size, limit="")
            shown = _shortened(printable(name), min(NAME_WIDTH, self._console.width // 3))
            self._live.update(self._file_bar, description=shown, completed=file_done, total=size)

    def _condition(self, condition: e.Condition) -> None:
        self._conditions[condition.peer] = condition
        self._limits.setdefault(condition.peer, Counter())[condition.limit] += 1
        if self._live and condition.peer in self._bars:
            limit = f"limited by the {condition.limit}" if condition.limit else ""
            self._live.update(self._bars[condition.peer], limit=limit)

    def _remove_bar(self, peer: int) -> None:
        if self._live and peer in self._bars:
            self._live.remove_task(self._bars.pop(peer))
            if not self._bars:
                self.pause()

    def _saved(self, path: str) -> None:
        if self._live and self._bars and sys.stdout.isatty():
            # The same screen: it must go above the bars.
            self.line(path)
        else:
            write_data(path)

    def _done(self, peer: int, files: int, size: int, seconds: float, resumed: int) -> None:
        moved = size - resumed
        speed = f", {size_text(round(moved / seconds))}/s" if seconds > 0.001 and moved > 0 else ""
        # Its bar may not have been drawn since the beginning.
        self._remove_bar(peer)
        amount = f"{files_text(files, 0, size)} in {seconds:.1f} s{speed}"
        if condition := self._conditions.pop(peer, None):
            ((limit, _),) = self._limits.pop(peer).most_common(1)
            amount += condition_text(replace(condition, limit=limit))
        if self._sending:
            self.line(f"Receiver {peer} has everything: {amount}")
        else:
            self.line(f"Received {amount}")


def _where(room: e.RoomOpened) -> str:
    """Return on which computer a receiver can run."""
    if room.here_only:
        return "this computer, as no other one reaches the server"
    return "another computer on this network" if room.local else "the other computer"


def condition_text(condition: e.Condition) -> str:
    """Return how a transfer went, to follow how fast it was; empty if nothing is known."""
    parts = []
    if condition.limit:
        parts.append(f"limited by the {condition.limit}")
    if condition.rtt is not None:
        parts.append(f"{condition.rtt * 1000:.1f} ms there and back")
    if condition.resent:
        share = condition.resent / (condition.delivered + condition.resent)
        parts.append(f"{share:.2%} sent again")
    return f" ({', '.join(parts)})" if parts else ""


class _FilesByOffset:
    """Finds the file that stands at an offset of the whole transfer: files come in the manifest's order."""

    def __init__(self, manifest: Manifest) -> None:
        self._entries = [entry for entry in manifest.entries if entry.size]
        self._ends = list(accumulate(entry.size for entry in self._entries))

    def at(self, offset: int) -> tuple[str, int, int]:
        """Return path, bytes done and size of the file at offset, the last one at the end of all."""
        if not self._entries:
            return "", 0, 0
        index = min(bisect_right(self._ends, offset), len(self._entries) - 1)
        entry = self._entries[index]
        return entry.path, offset - (self._ends[index] - entry.size), entry.size


def _shortened(name: str, width: int) -> str:
    """Keep the end of a long name: that is where files differ."""
    return name if len(name) <= width else "…" + name[-width + 1 :]
