"""What every peer does, whatever its stack.

It reads commands from standard input and tells events on standard output, both lines of JSON. The commands,
with the events that answer them:

    pool BYTES (base64)              messages are cut out of these
    offer                            description SDP
    answer SDP                       description SDP
    accept SDP
    create LABEL INIT                open (also for a channel of the other side), with its parameters
    send LABEL MESSAGES CLOSE        sent: all given to the stack; MESSAGES is a list of [kind, size, count]
    expect LABEL COUNT               received, when so many messages have come
    report LABEL                     report: MESSAGES as in describe_message(), in the order they came
    close LABEL                      closed, on both sides
    quit

agent.js is the same in JavaScript, pion/main.go in Go.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

LINE_LIMIT = 1 << 26

BUFFERED_HIGH = 2 << 20
BUFFERED_LOW = 1 << 19

OFFSET_STEP = 7919
"""Message n is cut out of the pool n times this far in, modulo what is left."""

Plan = list[tuple[str, int, int]]
"""Kind, size (of a text: characters) and count of messages; see make_messages()."""


def make_messages(pool: bytes, plan: Plan) -> Iterator[bytes | str]:
    """Yield the messages of a plan.

    A text has as many characters as its size says; in UTF-8 half of them are two bytes long.
    """
    number = 0
    for kind, size, count in plan:
        for _ in range(count):
            offset = number * OFFSET_STEP % (len(pool) - size)
            number += 1
            piece = pool[offset : offset + size]
            yield piece.decode("latin-1") if kind == "text" else piece


def describe_message(message: bytes | str) -> str:
    """Return the kind, the size in bytes and a digest of a message."""
    kind, data = ("text", message.encode()) if isinstance(message, str) else ("binary", message)
    return f"{kind} {len(data)} {hashlib.sha256(data).hexdigest()[:16]}"


def emit(event: str, **fields: Any) -> None:
    """Tell an event."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


class Inbox:
    """What has come on one channel."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.size = 0
        self.expected: int | None = None
        self.first = self.last = 0.0

    def take(self, label: str, message: bytes | str) -> None:
        """Note a message."""
        self.last = time.perf_counter()
        if self.messages:
            self.size += len(message)
        else:
            # The clock starts with the first message, which therefore does not count.
            self.first = self.last
        self.messages.append(describe_message(message))
        self.check(label)

    def check(self, label: str) -> None:
        """Tell if all that is expected is here."""
        if self.expected is not None and len(self.messages) >= self.expected:
            self.expected = None
            emit("received", label=label)


class Agent(ABC):
    """Carries out the commands; a subclass knows the stack."""

    def __init__(self) -> None:
        self.pool = b""
        self.channels: dict[str, Any] = {}
        self.inboxes: dict[str, Inbox] = {}
        self.writable: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def offer(self) -> str: ...

    @abstractmethod
    async def answer(self, sdp: str) -> str: ...

    @abstractmethod
    async def accept(self, sdp: str) -> None: ...

    @abstractmethod
    def create(self, label: str, init: dict[str, Any]) -> None: ...

    @abstractmethod
    def buffered(self, label: str) -> int: ...

    @abstractmethod
    async def end(self) -> None: ...

    # Told by the subclass.

    def added(self, label: str, channel: Any) -> None:
        """There is a channel, open or not."""
        self.channels[label] = channel
        self.inboxes.setdefault(label, Inbox())
        self.writable[label] = asyncio.Event()

    def message(self, label: str, message: bytes | str) -> None:
        """A message has come."""
        self.inboxes[label].take(label, message)

    def low(self, label: str) -> None:
        """The buffer has drained to BUFFERED_LOW."""
        self.writable[label].set()

    # Commands.

    async def run(self) -> None:
        """Carry out commands until told to quit."""
        reader = asyncio.StreamReader(limit=LINE_LIMIT)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            command = json.loads(line)
            name = command.pop("do")
            if name == "quit":
                break
            task = asyncio.create_task(self._do(name, command))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await self.end()

    async def _do(self, name: str, command: dict[str, Any]) -> None:
        try:
            match name:
                case "pool":
                    self.pool = base64.b64decode(command["bytes"])
                case "offer":
                    emit("description", sdp=await self.offer())
                case "answer":
                    emit("description", sdp=await self.answer(command["sdp"]))
                case "accept":
                    await self.accept(command["sdp"])
                case "create":
                    self.create(command["label"], command["init"])
                case "send":
                    await self._send(command["label"], command["messages"], close=command["close"])
                case "expect":
                    inbox = self.inboxes[command["label"]]
                    inbox.expected = command["count"]
                    inbox.check(command["label"])
                case "report":
                    self._report(command["label"])
                case "close":
                    self.channels[command["label"]].close()
        except Exception as error:
            emit("error", text=f"{name}: {error!r}")
            raise

    async def _send(self, label: str, messages: Plan, *, close: bool) -> None:
        channel, writable = self.channels[label], self.writable[label]
        for message in make_messages(self.pool, messages):
            if self.buffered(label) > BUFFERED_HIGH:
                writable.clear()
                await writable.wait()
            channel.send(message)
        if close:
            channel.close()
        emit("sent", label=label)

    def _report(self, label: str) -> None:
        inbox = self.inboxes[label]
        emit(
            "report",
            label=label,
            messages=inbox.messages,
            size=inbox.size,
            seconds=inbox.last - inbox.first,
            **self.measured(),
        )

    def measured(self) -> dict[str, Any]:
        """Return what else there is to report."""
        return {}
