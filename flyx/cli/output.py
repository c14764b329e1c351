"""What people and scripts read: lines on standard error, data on standard output, events as NDJSON.

Standard output carries data alone (the command to run elsewhere, saved paths, or with --json one event a
line); talk and progress go to standard error. A Reporter renders the client's events in one of three ways:
for people (cli/progress.py), quietly, or as JSON.

Whatever is shown passes through here, where nothing in it can steer a terminal: names come from other people,
reasons from servers. What a program reads (JSON, or paths on a standard output that is no terminal) is exact.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import time
import traceback
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Protocol, Self, assert_never, cast

import msgspec

from flyx.cli.screen import screen
from flyx.cli.streams import ConsoleFile, is_behind, write_bytes
from flyx.errors import FlyxError, StorageError, printable, size_text, without_controls
from flyx.transfer.manifest import Content

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from flyx.client import events
    from flyx.rtc.attempts import Attempts
    from flyx.rtc.path import CandidatePair
    from flyx.transfer.manifest import Manifest

# Whether errors are told as events.
_json_errors = False
# Whether events go to standard error, as a file goes to standard output.
_events_aside = False
# Lines of data that wait until the event loop has done what it is at.
_waiting_lines: list[str] = []
# Why they could not be written: raised by who writes next.
_waiting_failure: BrokenPipeError | StorageError | None = None


class Reporter(Protocol):
    """Renders events; a context manager around the time in which they come."""

    def __enter__(self) -> Self:
        """Events will come."""

    def __exit__(self, *_: object) -> None:
        """No more will."""

    def __call__(self, event: events.Event) -> None:
        """Render one event."""


def report_line(text: str) -> None:
    """Write one line for people."""
    screen.line(without_controls(text))


def report_question(text: str) -> None:
    """Write what stands before the place where a person types."""
    screen.question(without_controls(text))


def report_interrupt() -> None:
    """Tell that a signal has ended the program."""
    screen.line("interrupted", last=True)


def make_console(*, stderr: bool = True) -> Console:
    """Return a console: all text is text, without markup, names of emoji or colours for numbers."""
    from rich.console import Console

    file = cast(IO[str], ConsoleFile(sys.stderr if stderr else sys.stdout, talk=stderr))
    return Console(file=file, stderr=stderr, markup=False, emoji=False, highlight=False)


def write_data(text: str) -> None:
    """Write one line of data. Names on disk may hold bytes that are no UTF-8; they leave as they are.

    A terminal is shown it as a line that stays, as report_line() does.

    Raises:
        StorageError: it could not be written, except for want of a reader.
        BrokenPipeError: the reader has closed it.
    """
    write_waiting()
    _write_lines([text])


def write_data_soon(text: str) -> None:
    """Write one line of data as write_data() does, but together with those that follow at once.

    Thousands of files end in one turn of an event loop, and each line by itself would take four system calls.
    What has been given here is written before anything else is, and at the latest when the loop turns.

    Raises:
        StorageError, BrokenPipeError: as of write_data(), for lines that were given before.
    """
    _raise_failure()
    if not _waiting_lines:
        import asyncio

        try:
            asyncio.get_running_loop().call_soon(_write_in_turn)
        except RuntimeError:
            _write_lines([text])
            return
    _waiting_lines.append(text)


def write_waiting() -> None:
    """Write the lines that wait for the event loop.

    Raises:
        StorageError, BrokenPipeError: as of write_data().
    """
    _raise_failure()
    if _waiting_lines:
        lines = _waiting_lines.copy()
        _waiting_lines.clear()
        _write_lines(lines)


def _write_in_turn() -> None:
    global _waiting_failure
    try:
        write_waiting()
    except (BrokenPipeError, StorageError) as error:
        _waiting_failure = error


def _raise_failure() -> None:
    global _waiting_failure
    failure, _waiting_failure = _waiting_failure, None
    if failure is not None:
        raise failure


def _write_lines(lines: Sequence[str]) -> None:
    if sys.stdout.isatty():
        lines = [without_controls(line) for line in lines]
        screen.hide()
    _write_exactly("".join(f"{line}\n" for line in lines))


def finish_data(_: object, error: object, __: object) -> None:
    """Write the lines that wait at the end of a reporter's time; what ends it counts more than that they
    cannot be written.

    Raises:
        StorageError, BrokenPipeError: as of write_data(), if nothing else has ended it.
    """
    try:
        write_waiting()
    except (BrokenPipeError, StorageError):
        if error is None:
            raise


def _write_exactly(text: str) -> None:
    try:
        write_bytes(sys.stdout, text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        if sys.stdout.isatty() and error.errno == errno.EIO:
            # The terminal is gone, and the person with it.
            error = BrokenPipeError(error.errno, error.strerror)
        global _json_errors
        _json_errors = False
        abandon_output()
        if isinstance(error, BrokenPipeError):
            raise error
        reason = error.strerror or str(error)
        raise StorageError(action="write to", path="standard output", reason=reason) from error


def write_text(text: str) -> None:
    """Write a text that a person has sent: exactly, or, on a terminal, escaped, and lines as lines.

    Raises:
        StorageError, BrokenPipeError: as of write_data().
    """
    write_waiting()
    if sys.stdout.isatty():
        for line in text.removesuffix("\n").split("\n"):
            write_data(line.removesuffix("\r").expandtabs())
    else:
        _write_exactly(text)


def abandon_output() -> None:
    """Write to standard output no more: what is in its buffer must not fail again when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_event(name: str, /, **fields: Any) -> None:
    """Write one event as a line of JSON."""
    line = _event_line(name, fields)
    if _events_aside:
        write_bytes(sys.stderr, f"{line}\n".encode())
    else:
        write_data(line)


def _dated(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {"event": name, "time": round(time.time(), 3), **fields}


def _event_line(name: str, fields: dict[str, Any]) -> str:
    return json.dumps(_dated(name, fields))


def _file_line(name: str, fields: dict[str, Any]) -> str:
    """What _event_line() returns, of fields that are text and whole numbers, in a quarter of the time."""
    event = _dated(name, fields)
    try:
        line = msgspec.json.format(msgspec.json.encode(event), indent=0)
    except UnicodeEncodeError:
        return json.dumps(event)
    # What is escaped is not the same everywhere.
    is_plain = line.isascii() and b"\\" not in line and b"\x7f" not in line
    return line.decode() if is_plain else json.dumps(event)


def report_error(error: FlyxError) -> None:
    """Tell why the program ends without success."""
    if _json_errors:
        try:
            write_event("error", code=error.code, message=str(error), hint=error.hint)
            return
        except (BrokenPipeError, StorageError):
            # Report it on the stream that still works.
            pass
    screen.line(f"error: {without_controls(str(error))}", last=True)
    if error.hint:
        report_line(f"hint: {error.hint}")


def errors_as_events() -> None:
    """Have errors go to standard output as events, where a program reads them."""
    global _json_errors
    _json_errors = True


def events_to_standard_error() -> None:
    """Have events go to standard error: standard output is for something else."""
    global _events_aside
    _events_aside = True


def report_traceback(error: BaseException) -> None:
    """Show where an error comes from."""
    for line in _traceback_lines("".join(traceback.format_exception(error))):
        report_line(line)


def silence_logs() -> None:
    """Keep the libraries' warnings off the screen: whatever matters comes as an error or an event."""
    logging.getLogger().addHandler(logging.NullHandler())


def log_to_stderr() -> None:
    """Log what flyx does. The libraries stay at warnings: their debug logs hold keys and addresses."""
    handler = logging.StreamHandler(_LogFile())
    handler.setFormatter(_OneLineFormatter("%(levelname)s:%(name)s:%(relativeCreated)d ms: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("flyx").setLevel(logging.DEBUG)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


class _LogFile:
    """Where a handler writes: each record above the lines that change."""

    def write(self, text: str) -> None:
        """Write a record, which ends with a newline."""
        screen.line(text.removesuffix("\n"))

    def flush(self) -> None:
        """Do nothing: it is written."""


class _OneLineFormatter(logging.Formatter):
    """Keeps each message in its line, and tracebacks apart from messages."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return without_controls(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return "\n".join(without_controls(line) for line in _traceback_lines(super().formatException(ei)))


def _traceback_lines(text: str) -> list[str]:
    """Return a traceback as marked lines: its errors may repeat what a peer wrote, in many lines."""
    return [f"| {line}" for line in text.rstrip("\n").split("\n")]


class QuietReporter:
    """Data on standard output and nothing else; errors come in the end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        finish_data(*raised)

    def __call__(self, event: events.Event) -> None:
        """Render one event."""
        from flyx.client.codes import receive_command
        from flyx.client.events import FileFinished, RoomOpened, TextReceived

        match event:
            case RoomOpened(code=code, server=server, pass_on=pass_on):
                write_data(receive_command(code, server if pass_on else None))
            case FileFinished(saved_as=str(path)):
                write_data_soon(path)
            case TextReceived(text=text):
                write_text(text)
            case _:
                pass


class JsonReporter:
    """One event a line on standard output, nothing on standard error."""

    def __init__(self) -> None:
        from flyx.cli.entries import EntriesWriter
        from flyx.client import events

        # An import in each call takes as long as the line of a file.
        self._kinds = events

        # Also those that come before and after the events.
        errors_as_events()
        self._entries = EntriesWriter(
            lambda first, entries: write_event("entries", first=first, entries=entries),
            lambda: is_behind(sys.stderr if _events_aside else sys.stdout),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        """Write what is left of the list, unless a person does not want to wait for that."""
        finish_data(*raised)
        _, error, _ = raised
        if error is None:
            self._entries.finish()
        elif isinstance(error, FlyxError):
            # The error is reported even if the list cannot be written.
            with suppress(BrokenPipeError, StorageError):
                self._entries.finish()

    def __call__(self, event: events.Event) -> None:
        """Render one event."""
        self._entries.check()
        if isinstance(event, self._kinds.FileFinished) and not _events_aside:
            write_data_soon(_file_line(*event_fields(event)))
            return
        if isinstance(event, self._kinds.TransferDone):
            # A program may read no further.
            self._entries.finish()
        name, fields = event_fields(event)
        write_event(name, **fields)
        if isinstance(event, self._kinds.ManifestKnown):
            self._entries.begin(event.manifest)


def event_fields(event: events.Event) -> tuple[str, dict[str, Any]]:
    """Return the name and the fields of an event, as flyx/docs/events.schema.json defines them."""
    from flyx.client import events as e

    match event:
        # First what there are thousands of.
        case e.FileFinished(peer=peer, path=path, saved_as=saved_as, digest=digest):
            hashed = {"digest": digest, "algorithm": event.algorithm}
            saved = {} if digest is None else {"saved_as": saved_as, **hashed}
            return "file", {"peer": peer, "path": path, **saved}
        case e.RoomOpened(room_id=room_id, code=code, server=server, local=local, here_only=here_only):
            place = {"server": server, "local": local, "here_only": here_only, "link": event.link}
            return "room", {"room_id": room_id, "code": code, **place}
        case e.RoomJoined(room_id=room_id, server=server, local=local):
            return "room", {"room_id": room_id, "server": server, "local": local}
        case e.PeerJoined(peer=peer):
            return "peer", {"peer": peer, "state": "joined"}
        case e.Connecting(peer=peer, attempts=attempts):
            return "connecting", {"peer": peer, **_attempts_fields(attempts)}
        case e.PeerPaired(peer=peer):
            return "peer", {"peer": peer, "state": "paired"}
        case e.PeerConnected(peer=peer, path=path, rtt=rtt):
            family = None if path.tunnelled else path.family
            kinds = {"local": path.local, "remote": path.remote, "family": family}
            relay = {"relay": path.relay, "tunnelled": path.tunnelled}
            return "path", {"peer": peer, **kinds, **relay, "rtt": round(rtt, 6)}
        case e.Condition(peer=peer, limit=limit, rtt=round_trip, delivered=delivered, resent=resent):
            seconds = None if round_trip is None else round(round_trip, 6)
            bytes_ = {"delivered": delivered, "resent": resent}
            return "condition", {"peer": peer, "limit": limit, "rtt": seconds, **bytes_}
        case e.PeerLost(peer=peer, error=lost):
            return "peer", {"peer": peer, "state": "lost", "code": lost.code, "message": str(lost)}
        case e.PeerEnded(peer=peer, error=None):
            return "peer", {"peer": peer, "state": "done"}
        case e.PeerEnded(peer=peer, error=error):
            assert error is not None
            return "peer", {"peer": peer, "state": "failed", "code": error.code, "message": str(error)}
        case e.Listing(entries=entries):
            return "listing", {"entries": entries}
        case e.ManifestKnown(manifest=manifest):
            directories, entries = manifest.entries.directory_count, len(manifest.entries)
            links = entries - directories - manifest.file_count
            counts = {"files": manifest.file_count, "directories": directories, "links": links}
            counts["bytes"] = manifest.total_bytes
            return "manifest", {"manifest_id": manifest.id, "content": manifest.content.value, **counts}
        case e.Resuming(peer=peer, files=files, bytes=size):
            return "resume", {"peer": peer, "files": files, "bytes": size}
        case e.Progress(peer=peer, bytes=done, total=total):
            return "progress", {"peer": peer, "bytes": done, "total": total}
        case e.TextReceived(peer=peer, text=text):
            return "text", {"peer": peer, "text": text}
        case e.FileLost(peer=peer, path=path, reason=reason):
            return "file", {"peer": peer, "path": path, "error": reason}
        case e.TransferDone(peer=peer, files=files, bytes=size, seconds=seconds, digest=digest):
            amounts = {"files": files, "bytes": size, "resumed": event.resumed, "missing": event.missing}
            amounts["spared"] = event.spared
            hashed = {"digest": digest, "algorithm": event.algorithm}
            return "done", {"peer": peer, **amounts, "seconds": round(seconds, 3), **hashed}
        case e.Notice(message=message):
            return "notice", {"message": message}
        case _:
            assert_never(event)


def _attempts_fields(attempts: Attempts) -> dict[str, Any]:
    from flyx.rtc.attempts import progress_text

    return {
        "message": progress_text(attempts),
        "pairs": [
            {
                "local": pair.local_type,
                "remote": pair.remote_type,
                "family": None if pair.tunnelled else pair.family,
                "state": pair.state.name.lower(),
            }
            for pair in attempts.pairs
        ],
        "servers": [
            {"url": server.url, "outcome": server.outcome, "code": server.code} for server in attempts.servers
        ],
    }


def files_text(files: int, directories: int, size: int) -> str:
    """Return how much is offered, such as "3 files, 12.5 MB"."""
    parts = []
    if files or not directories:
        parts.append("1 file" if files == 1 else f"{files:,} files")
    if directories and not files:
        parts.append("1 directory" if directories == 1 else f"{directories:,} directories")
    return ", ".join([*parts, size_text(size)])


def amount_text(manifest: Manifest) -> str:
    """Return how much a manifest offers."""
    match manifest.content:
        case Content.STREAM:
            return "a stream, of a size that is known at its end"
        case Content.TEXT:
            return f"a text, {size_text(manifest.total_bytes)}"
        case Content.FILES:
            return files_text(manifest.file_count, manifest.entries.directory_count, manifest.total_bytes)


def directory_text(directory: Path) -> str:
    """Return where a directory is; as it was written if that is relative to one that is gone."""
    try:
        return printable(str(directory.resolve()))
    except OSError:
        return printable(str(directory))


def path_text(path: CandidatePair) -> str:
    """Say in words which way the bytes take."""
    if path.tunnelled:
        return "through the signaling server, the last resort: no other way was found"
    if path.local == "relay":
        return f"through the relay {printable(path.relay)}" if path.relay else "through a relay"
    if path.remote == "relay":
        return "through a relay of the other side"
    if path.is_local:
        return "directly over the local network"
    if path.local == path.remote == "host":
        return f"directly over IPv{path.family}"
    return f"directly over IPv{path.family}, through a NAT"
