"""One end of a transfer in Python, the other in Node (peer.mjs), and pipes between: no WebRTC, no server."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from flyx.errors import FlyxError
from flyx.pairing.exchange import Exchange, Greeting, Paired, ReceiverExchange, WordsWanted
from flyx.transfer.digests import algorithms_of
from flyx.transfer.manifest import Manifest
from flyx.transfer.receiver import Receiver
from flyx.transfer.sender import Sender
from flyx.transfer.session import TransferSession
from tests.pairing import support
from tests.simulator import MemoryDestination

PEER = Path(__file__).with_name("peer.mjs")
WORDS = support.PASSWORD
GREETING = Greeting("test", frozenset({"streams", "texts", "zstd", "blake3"}))
LIMIT = 1 << 26
MAX_MESSAGE_SIZE = 65_536
CLOSE_TIMEOUT = 5.0


class Source(Protocol):
    """What is sent, such as a MemorySource."""

    manifest: Manifest

    def read(self, requests: Any) -> Any: ...


class Conversation:
    """What one run has come to.

    Attributes:
        events: of our machine, the pairing's first.
        told: the events of the engine.
        said: control messages of the engine, parsed.
    """

    def __init__(self, node: str, options: dict[str, Any]) -> None:
        self._command = [node, "--no-warnings", str(PEER), json.dumps(options)]
        self.events: list[object] = []
        self.told: list[dict[str, Any]] = []
        self.said: list[dict[str, Any]] = []
        # May change a data message on its way, either way.
        self.tap: Callable[[bytes], bytes] = lambda data: data
        self._is_closed = False

    async def send(self, source: Source, exchange: Exchange | None = None) -> None:
        """Be the sender."""

        def make(paired: Paired) -> Sender:
            machine = Sender(source.manifest, max_message_size=MAX_MESSAGE_SIZE, now=time.monotonic())
            machine.release()
            return machine

        await self._run(exchange or support.sender(greeting=GREETING, now=time.monotonic()), make, source)

    async def receive(self, destination: MemoryDestination, words: str = WORDS) -> None:
        """Be the receiver."""

        def make(paired: Paired) -> Receiver:
            algorithms = algorithms_of(paired.features)
            return Receiver(ask=False, now=time.monotonic(), algorithms=algorithms)

        exchange = support.receiver(greeting=GREETING, now=time.monotonic())
        await self._run(exchange, make, destination, words)

    def event(self, kind: type[Any]) -> Any:
        """Return the last event of this kind."""
        return [event for event in self.events if isinstance(event, kind)][-1]

    def failure(self) -> FlyxError:
        """Return why our end has failed."""
        failed = self.events[-1]
        error = getattr(failed, "error", None)
        assert isinstance(error, FlyxError), failed
        return error

    def told_of(self, name: str) -> list[dict[str, Any]]:
        """Return the events of this name of the engine."""
        return [event for event in self.told if event["event"] == name]

    async def _run(
        self,
        exchange: Exchange,
        make: Callable[[Paired], TransferSession],
        disk: Any,
        words: str = WORDS,
    ) -> None:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, stderr=pipe, limit=LIMIT
        )
        paired = await self._pair(exchange, words)
        if paired is not None:
            await self._transfer(make(paired), disk)
        for label in ("control", "data"):
            self._write(closed=label)
        while await self._hear(None) is not None:
            pass
        assert self._process.stderr is not None
        errors = (await self._process.stderr.read()).decode()
        assert await self._process.wait() == 0, errors

    async def _pair(self, exchange: Exchange, words: str) -> Paired | None:
        while True:
            while (event := exchange.next_event()) is not None:
                self.events.append(event)
                if isinstance(event, WordsWanted):
                    assert isinstance(exchange, ReceiverExchange)
                    exchange.give_words(words, time.monotonic())
            while (message := exchange.next_message()) is not None:
                self._write(control=message)
            if exchange.ended:
                last = self.events[-1]
                return last if isinstance(last, Paired) else None
            if (line := await self._hear(None)) is None:
                return None
            if "control" in line:
                exchange.receive(line["control"], time.monotonic())
            elif "closed" in line:
                exchange.channel_closed()

    async def _transfer(self, machine: TransferSession, disk: Any) -> None:
        while True:
            self._drain(machine, disk)
            if machine.ended and not (machine.has_last_word and not self._is_closed):
                return
            due = machine.next_timeout()
            wait = CLOSE_TIMEOUT if due is None else max(0.0, due - time.monotonic())
            line = await self._hear(wait)
            now = time.monotonic()
            if line is None:
                if machine.ended:
                    return
                machine.handle_timeout(now)
            elif "control" in line:
                machine.receive_control(line["control"], now)
            elif "data" in line and isinstance(machine, Receiver):
                machine.receive_data(self.tap(base64.b64decode(line["data"])), now)
            elif "closed" in line:
                self._is_closed = True
                if not machine.ended:
                    machine.channel_closed(now)

    def _drain(self, machine: TransferSession, disk: Any) -> None:
        busy = True
        while busy:
            busy = False
            while (text := machine.next_control()) is not None:
                self._write(control=text)
            if isinstance(machine, Sender):
                if reads := machine.next_reads():
                    machine.blocks_read(disk.read(reads), time.monotonic())
                    busy = True
                while (data := machine.next_data()) is not None:
                    self._write(data=base64.b64encode(self.tap(data)).decode())
            elif isinstance(machine, Receiver) and (operations := machine.next_operations()):
                machine.operations_done(disk.apply(operations), time.monotonic())
                busy = True
            while (event := machine.next_event()) is not None:
                self.events.append(event)
                busy = True

    def _write(self, **line: str) -> None:
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(line).encode() + b"\n")

    async def _hear(self, seconds: float | None) -> dict[str, Any] | None:
        """Return the next line that is no event; None at the end, or if none comes for so long."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                while text := await self._process.stdout.readline():
                    line: dict[str, Any] = json.loads(text)
                    if "event" in line:
                        self.told.append(line["event"])
                        continue
                    if "control" in line:
                        self.said.append(json.loads(line["control"]))
                    return line
        except TimeoutError:
            pass
        return None
