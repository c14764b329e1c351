"""What is received over one connection: the offer, the questions about it, and the disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from flyx.client import events
from flyx.client.confirmation import Confirmation
from flyx.client.driver import Driver, DriverContext
from flyx.client.failures import failure_of
from flyx.client.limits import Cause, Limit, Shares, receivers_limit
from flyx.errors import DestinationExists, LocalProtocolError, NothingWanted, size_text
from flyx.storage.text import TextDestination
from flyx.storage.writer import Destination, ExistingPolicy, Skip
from flyx.transfer.disk import (
    Operation,
    OperationFailed,
    OperationResult,
    PlanDropped,
    Planning,
    PlanTree,
    Unfinished,
)
from flyx.transfer.left_out import BY_NATURE, reason
from flyx.transfer.manifest import Content, Manifest
from flyx.transfer.receiver import Receiver
from flyx.transfer.receiver_events import (
    Comparing,
    FileReceived,
    ManifestReceived,
    Offered,
    Received,
    UnfinishedFound,
)
from flyx.transfer.selection import Selection
from flyx.transfer.session import EntryLeftOut

SENDER = 1
"""The number of the only peer."""

Confirm = Callable[[Manifest], Awaitable[bool]]

AskExisting = Callable[[DestinationExists], Awaitable[tuple[ExistingPolicy, Skip] | None]]
"""Returns what to do about what exists; None: the transfer is refused for it."""


class Sink(Protocol):
    """What carries out the operations of a receiver: a directory, a pipe, or memory."""

    @property
    def keeps(self) -> bool:
        """After abandon(): whether there is something that a later run can go on with."""
        ...

    @property
    def outlives_connection(self) -> bool:
        """Whether the next connection goes on with this one, and not with another made anew."""
        ...

    def apply(self, operations: Sequence[Operation]) -> list[OperationResult]:
        """Carry out operations in order, and return what came of each; blocking."""
        ...

    def abandon(self) -> None:
        """Stop here; from another thread, this waits for what is under way."""
        ...


class ReceiveDriver(Driver[Receiver, list[Operation], Sequence[OperationResult]]):
    """Drives a Receiver: its disk work is writing, and a person may have to be asked."""

    def __init__(
        self,
        machine: Receiver,
        context: DriverContext,
        sink_for: Callable[[PlanTree], Sink],
        confirm: Confirm | None,
        selection: Selection | None = None,
        ask_existing: AskExisting | None = None,
        *,
        needs_all: bool = True,
        shows_text: bool = True,
    ) -> None:
        """Args:
        machine: newly made.
        context: the rest of the world.
        sink_for: called once it is known what is offered; returns where that goes.
        confirm: asks the person about the offer; None: the machine asks nothing.
        selection: what is wanted of what is offered; None: all of it.
        ask_existing: asks the person what to do about what exists; None: do not ask.
        needs_all: all that is offered is needed; if not, how much is, is known when all has been planned.
        shows_text: a text is shown without asking.
        """
        super().__init__(machine, context)
        self._disk_executor = context.disk
        self._sink_for = sink_for
        # Set when it is known what is offered.
        self._sink: Sink | None = None
        self._needs_all = needs_all
        self._shows_text = shows_text
        self._ask_existing = ask_existing
        # Set while the person is asked about what exists: the loop that asks, and the question.
        self._asking_existing: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._confirm = confirm
        self._selection = selection
        # What is wanted of what is offered, when all of that has been told.
        self._wanted: Manifest | None = None
        self._asking: asyncio.Task[None] | None = None
        # Data bytes that had come when it was told last what limits the transfer.
        self._arrived = 0

    async def run(self) -> Confirmation:
        try:
            return await super().run()
        finally:
            if self._asking:
                self._asking.cancel()
                await asyncio.gather(self._asking, return_exceptions=True)

    def next_work(self) -> list[Operation] | None:
        operations = self.machine.next_operations()
        if operations and isinstance(operations[0], PlanTree):
            self._sink = self._sink_for(operations[0])
        return operations or None

    def do_work(self, work: list[Operation]) -> Sequence[OperationResult]:
        assert self._sink is not None
        return self._sink.apply(work)

    async def settle(
        self, work: list[Operation], result: Sequence[OperationResult]
    ) -> Sequence[OperationResult]:
        """Ask what to do about what exists where that would end the transfer; by the answer, plan anew."""
        if self._ask_existing is None:
            return result
        if not all(isinstance(operation, Planning) for operation in work):
            # All is planned, and accepted.
            self._ask_existing = None
            return result
        last = result[-1]
        if not (isinstance(last, OperationFailed) and isinstance(last.error, DestinationExists)):
            return result
        await self.path_told()
        question = asyncio.ensure_future(self._ask_existing(last.error))
        self._ask_existing = None
        self._asking_existing = asyncio.get_running_loop(), question
        # The transfer has ended: the answer is not needed any more.
        await asyncio.wait({question})
        self._asking_existing = None
        if question.cancelled() or (answer := question.result()) is None:
            return result
        assert isinstance(self._sink, Destination)
        begin_anew = self._sink.begin_anew
        await asyncio.get_running_loop().run_in_executor(self._disk_executor, begin_anew, *answer)
        self._needs_all = self._sink.needs_all
        return [PlanDropped()]

    def stop_work(self) -> None:
        if asking := self._asking_existing:
            loop, question = asking
            loop.call_soon_threadsafe(question.cancel)
        if self._sink and not (self._sink.outlives_connection and self.may_go_on):
            self._sink.abandon()

    def work_done(self, result: Sequence[OperationResult], now: float) -> None:
        self.machine.operations_done(result, now)

    def next_data(self) -> bytes | None:
        return None

    def receive_data(self, message: bytes | str, now: float) -> None:
        self.machine.receive_data(message, now)

    def waits_for(self) -> Cause | None:
        return Cause.DISK if self.disk_is_busy else None

    def limit_of(self, shares: Shares) -> Limit | None:
        arrived = self.machine.data_received - self._arrived
        self._arrived += arrived
        return receivers_limit(shares, arrived, self.machine.rate)

    def progress(self) -> tuple[int, int | None, int]:
        return self.machine.bytes_written, self.machine.expected_bytes, self.machine.bytes_buffered

    def handle_event(self, event: object) -> None:
        match event:
            # First what there are thousands of.
            case FileReceived(file=file, path=saved_as, digest=digest):
                self.finish_file(file, self._finished(file, saved_as, digest))
            case ManifestReceived(manifest=manifest) if not self._select(manifest).entries:
                self.machine.cancel(NothingWanted())
            case Offered():
                if self._confirm is None and self._needs_all:
                    self.begin()
            case Comparing(files=files, bytes=size):
                which = "1 file that is" if files == 1 else f"{files:,} files that are"
                self.on_event(events.Notice(f"Comparing {which} here already ({size_text(size)})"))
            case ManifestReceived(question=True):
                self._asking = asyncio.create_task(self._ask(event))
            case ManifestReceived():
                if not self.goes_on:
                    self._tell(event)
                if not self._needs_all:
                    # How much it is, is known only now.
                    self.begin()
            case UnfinishedFound(transfers=transfers) if not self.goes_on:
                for transfer in transfers:
                    self.on_event(events.Notice(self._unfinished(transfer)))
            case EntryLeftOut(index=index, code=code):
                self.lose(index, self.machine.path_of(index), code)
            case Received(files=files, bytes=size, digest=digest):
                self._count_absent()
                self.succeed(files, size, digest)
            case UnfinishedFound():
                pass
            case _:
                raise LocalProtocolError(reason=f"unknown event {event}")

    def _select(self, offered: Manifest) -> Manifest:
        """Find out what is wanted."""
        self._wanted = self._selection.part_of(offered) if self._selection else offered
        return self._wanted

    def _tell(self, received: ManifestReceived) -> None:
        """Tell what is offered and wanted, what of it is here, and what the sender leaves out of that."""
        assert self._wanted is not None
        self.manifest_told = True
        self.on_event(events.ManifestKnown(self._wanted))
        for path, code in self._wanted.left_out.named:
            if code in BY_NATURE:
                self.on_event(events.Notice(f"{path} is left out: {reason(code)}"))
            else:
                self.on_event(events.FileLost(self.peer, path, reason(code)))
        for file in received.changed:
            path = received.manifest.entries[file].path
            self.on_event(events.Notice(f"{path} has changed since the last try: it starts anew."))
        if received.here_files:
            which = "file is" if received.here_files == 1 else "files are"
            amount = size_text(received.here_bytes)
            self.on_event(events.Notice(f"{received.here_files:,} {which} here already ({amount})"))
        if received.kept_files or received.found_bytes:
            self.resume(received.kept_files, received.found_bytes)

    def _finished(
        self, file: int, saved_as: str | None, digest: str
    ) -> events.FileFinished | events.TextReceived:
        if isinstance(self._sink, TextDestination):
            assert self._sink.text is not None
            return events.TextReceived(self.peer, self._sink.text)
        algorithm = self.machine.algorithm.value
        return events.FileFinished(self.peer, self.machine.path_of(file), saved_as, digest, algorithm)

    def _count_absent(self) -> None:
        """What the sender leaves out is missing as well."""
        assert self._wanted is not None
        left_out = self._wanted.left_out
        if left_out.failures:
            self.count_missing(left_out.failures, *left_out.first_failure)

    def _unfinished(self, transfer: Unfinished) -> str:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(transfer.time))
        assert isinstance(self._sink, Destination)
        state = self._sink.state_directory
        return f"An unfinished transfer of {transfer.root} from {since} is kept in {state}."

    async def _ask(self, received: ManifestReceived) -> None:
        assert self._confirm is not None
        assert self._wanted is not None
        await self.path_told()
        self._tell(received)
        try:
            is_text = received.manifest.content is Content.TEXT
            accepted = (is_text and self._shows_text) or await self._confirm(self._wanted)
        except Exception as error:
            self.machine.cancel(failure_of(error, "the question"))
        else:
            self.begin()
            self.machine.answer(accepted)
        self.wake()
