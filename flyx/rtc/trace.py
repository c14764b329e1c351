"""FLYX_TRACE=FILE: the SCTP packets of this process in the clear, as a capture that Wireshark opens.

The capture is pcapng (draft-ietf-opsawg-pcapng). Each association is an interface of link type SCTP: a packet
is what stands in one DTLS record, with its direction. FILE.ndjson beside it has what congestion control knew,
a JSON object a line: whenever its phase changes or packets are lost, and at most every 10 ms otherwise. Both
have the same clock. If FILE is a directory, each process makes a capture of its own in it, flyx-PID.pcapng.

The capture holds the content of what is transferred, so both files are made for their owner alone, and one
that exists is not overwritten. When they cannot be written any more, the trace ends and the transfer goes on.
"""

from __future__ import annotations

import atexit
import json
import logging
import math
import os
import struct
import time
from collections.abc import Sequence
from enum import IntEnum
from io import FileIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from flyx.errors import InputError

if TYPE_CHECKING:
    # Loaded with connections, on another thread (flyx.cli.runtime), and not with this.
    from flyx.sctp.transmission import SendStatistics

logger = logging.getLogger("flyx.rtc")

VARIABLE = "FLYX_TRACE"

INTERVAL = 0.01
"""Seconds between two lines of an association in which nothing happens but progress."""

_LINKTYPE_SCTP = 248
"""Packets begin with the SCTP common header (www.tcpdump.org/linktypes.html)."""


class Direction(IntEnum):
    """Bits 0 and 1 of epb_flags (§4.3.1)."""

    INBOUND = 1
    OUTBOUND = 2


class _Block(IntEnum):
    """Block types (§4)."""

    SECTION_HEADER = 0x0A0D0D0A
    INTERFACE_DESCRIPTION = 1
    ENHANCED_PACKET = 6


class Trace:
    """The two files of a process."""

    def __init__(self, path: Path) -> None:
        """Make the files.

        Raises:
            InputError: one exists already, or cannot be made.
        """
        self._capture = _made(path)
        try:
            self._lines = _made(path.with_name(f"{path.name}.ndjson"))
        except InputError:
            self._capture.close()
            path.unlink()
            raise
        # What is added to monotonic nanoseconds for the time of day.
        self._epoch = time.time_ns() - time.monotonic_ns()
        self._associations = count()
        self._failed = False
        self._write(self._capture, _block(_Block.SECTION_HEADER, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)))

    def association(self) -> AssociationTrace:
        """Return where an association that begins is traced."""
        number = next(self._associations)
        name = _option(2, f"association {number}".encode())
        nanoseconds = _option(9, b"\x09")
        self._write(
            self._capture,
            _block(
                _Block.INTERFACE_DESCRIPTION,
                struct.pack("<HHI", _LINKTYPE_SCTP, 0, 0) + name + nanoseconds + _option(0, b""),
            ),
        )
        return AssociationTrace(self, number)

    def packets(self, number: int, direction: Direction, packets: Sequence[bytes], now: float) -> None:
        """Write packets of an association. Times here and below are monotonic seconds."""
        at = self._time_of(now)
        flags = _option(2, struct.pack("<I", direction)) + _option(0, b"")
        self._write(
            self._capture,
            b"".join(
                _block(
                    _Block.ENHANCED_PACKET,
                    struct.pack("<5I", number, at >> 32, at & 0xFFFFFFFF, len(packet), len(packet))
                    + _padded(packet)
                    + flags,
                )
                for packet in packets
            ),
        )

    def line(self, number: int, statistics: SendStatistics, now: float) -> None:
        """Write what congestion control of an association knows."""
        rate = statistics.pacing_rate
        fields = {
            "time": self._time_of(now) / 1e9,
            "association": number,
            "phase": statistics.phase,
            "cwnd": statistics.cwnd,
            "in_flight": statistics.in_flight,
            "pacing_rate": round(rate) if math.isfinite(rate) else None,
            "rtt": statistics.rtt,
            "delivered": statistics.delivered,
            "lost": statistics.lost,
            "resent": statistics.resent,
        }
        self._write(self._lines, json.dumps(fields).encode() + b"\n")

    def close(self) -> None:
        """Close the files."""
        self._capture.close()
        self._lines.close()

    def _time_of(self, now: float) -> int:
        return self._epoch + int(now * 1e9)

    def _write(self, file: FileIO, data: bytes) -> None:
        if self._failed:
            return
        try:
            file.write(data)
        except OSError as error:
            self._failed = True
            logger.warning("the trace ends here: %s", error.strerror)


class AssociationTrace:
    """Where one association is traced."""

    def __init__(self, trace: Trace, number: int) -> None:
        self._trace, self._number = trace, number
        self._written_at = -math.inf
        self._written: SendStatistics | None = None

    def received(self, packets: Sequence[bytes], now: float) -> None:
        """Packets have arrived."""
        self._trace.packets(self._number, Direction.INBOUND, packets, now)

    def sent(self, packets: Sequence[bytes], now: float) -> None:
        """Packets leave."""
        self._trace.packets(self._number, Direction.OUTBOUND, packets, now)

    def progressed(self, statistics: SendStatistics, now: float) -> None:
        """Congestion control knows this now."""
        last = self._written
        if statistics == last:
            return
        is_news = last is None or (statistics.phase, statistics.lost) != (last.phase, last.lost)
        if is_news or now >= self._written_at + INTERVAL:
            self._written, self._written_at = statistics, now
            self._trace.line(self._number, statistics, now)


_started: Trace | None = None


def start() -> Trace | None:
    """Return the trace of this process, which FLYX_TRACE asks for; None if it does not.

    Raises:
        InputError: its files cannot be made.
    """
    global _started
    if _started is None and (name := os.environ.get(VARIABLE)):
        path = Path(name).expanduser()
        _started = Trace(path / f"flyx-{os.getpid()}.pcapng" if path.is_dir() else path)
        atexit.register(_started.close)
    return _started


def _made(path: Path) -> FileIO:
    try:
        return FileIO(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))
    except FileExistsError:
        raise InputError(
            reason=f"{VARIABLE}: {path} exists already",
            hint="a trace needs a new file: remove it, or name another",
        ) from None
    except OSError as error:
        raise InputError(
            reason=f"{VARIABLE}: cannot write {path}: {error.strerror}",
            hint="name a file in a directory of yours",
        ) from None


def _block(kind: _Block, body: bytes) -> bytes:
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return bytes(data) + bytes(-len(data) % 4)
