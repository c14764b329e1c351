"""Structured logs: `get_logger` for this package, `configure_logging` for a process that is a server.

Events go through the standard library's logging, never straight through structlog: a server embedded in
another program then logs where that program logs, and not on standard output, which is structlog's default.

What may not be logged: SDP, candidates, tokens and the addresses of clients; tracebacks come without local
variables, which hold such things. Room ids let people in, so they appear only as `room_tag`.

Values come from clients, too: why they leave, in their own words. Whatever is logged, by whichever library,
is shown as text that can neither steer a terminal nor look like another line. The renderers see to that, so
that no call has to.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any, TextIO, cast

import structlog
from structlog.stdlib import BoundLogger, ExtraAdder, ProcessorFormatter
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor

from flyx.errors import printable

_TAG_KEY = secrets.token_bytes(16)
"""New in each process: 32^6 room ids could otherwise be hashed one by one and compared."""


def get_logger(name: str) -> BoundLogger:
    """Return a logger that takes an event and its fields: `log.info("client joined", room=…)`."""
    logger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=BoundLogger,
        cache_logger_on_first_use=True,
    )
    return cast(BoundLogger, logger)


def room_tag(room_id: str) -> str:
    """Return what stands for a room id in logs: the same throughout a process, useless outside."""
    return hashlib.blake2s(room_id.encode(), key=_TAG_KEY, digest_size=4).hexdigest()


class Throttle:
    """Says whether to log something that may happen thousands of times a second, for each kind of it."""

    def __init__(self, interval: float = 10.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Args:
        interval: seconds between two log lines of one kind.
        clock: returns monotonic seconds.
        """
        self._interval = interval
        self._clock = clock
        self._next: dict[Hashable, float] = {}
        self._suppressed: Counter[Hashable] = Counter()

    def count(self, kind: Hashable) -> int | None:
        """It has happened; return how often it was not logged, or None if it is not to be this time either.

        Kinds are few: they are never forgotten.
        """
        now = self._clock()
        if now < self._next.get(kind, 0.0):
            self._suppressed[kind] += 1
            return None
        self._next[kind] = now + self._interval
        return self._suppressed.pop(kind, 0)


class _Text:
    """A value in a line for people: printable, and in quotes if it would not be seen where it ends.

    A quote inside is escaped, as backslashes are: no value can end early and go on as another field.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        text = printable(self._text)
        if text and not any(character in text for character in " =\"'"):
            return text
        return "'" + text.replace("'", "\\'") + "'"


def _make_printable(_: object, __: str, event: EventDict) -> EventDict:
    """Have every text of an event shown as such, and what is no text as its repr()."""
    shown: EventDict = {}
    for key, value in event.items():
        if key in ("exception", "stack") and isinstance(value, str):
            shown[key] = "\n".join(map(printable, value.split("\n")))
        elif key in ("event", "level", "logger", "timestamp"):
            shown[key] = printable(str(value))
        else:
            shown[printable(key)] = _Text(value if isinstance(value, str) else repr(value))
    return shown


def _escape_delete(_: object, __: str, line: Any) -> str:
    """Escape the one control character that JSON in ASCII leaves as it is: DEL."""
    return str(line).replace("\x7f", "\\u007f")


def configure_logging(level: str, *, as_json: bool, stream: TextIO | None = None) -> None:
    """Send every log record of the process to stream (standard error by default), one line each.

    Args:
        level: "debug", "info", "warning" or "error".
        as_json: JSON objects instead of lines for people.
        stream: coloured if it is a terminal and the lines are for people.
    """
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[Processor]
    if as_json:
        tracebacks = ExceptionDictTransformer(show_locals=False)
        renderer = [
            structlog.processors.ExceptionRenderer(tracebacks),
            structlog.processors.JSONRenderer(ensure_ascii=True),
            _escape_delete,
        ]
    else:
        console = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
        )
        renderer = [structlog.processors.format_exc_info, _make_printable, console]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Their debug lines tell every socket event, addresses included.
    for noisy in ("asyncio", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
