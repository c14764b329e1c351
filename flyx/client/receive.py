"""`flyx receive`: join a room, let its sender connect, and take what is offered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flyx.client import events
from flyx.client.confirmation import Confirmation
from flyx.client.driver import RECONNECT_TIME, Driver, Wiring
from flyx.client.failures import failure_of
from flyx.client.limits import Cause, Limit, Shares, receivers_limit
from flyx.client.link import ANY_CONNECTION, ConnectionOptions, Link
from flyx.client.local import find_rooms
from flyx.client.pairing import Pairing
from flyx.client.reception import Action, Check, Doubt, Feed, GiveUp, Reception, ReceptionState
from flyx.client.signaling import Interrupted, Restored, Signaling
from flyx.errors import (
    DestinationExists,
    FlyxError,
    InputError,
    LocalProtocolError,
    NothingWanted,
    PairingFailed,
    PeerUnreachable,
    SignalingError,
    TransferInterrupted,
    TransferRefused,
    UnverifiedSender,
    size_text,
)
from flyx.net.changes import Change, NetworkWatch, networks
from flyx.pairing.exchange import WordsWanted
from flyx.pairing.keys import Session
from flyx.pairing.tries import MAX_TRIES
from flyx.pairing.words import password_of, resolve_words
from flyx.rtc.peer import Channels
from flyx.signaling.messages import Disconnect, IceCandidate, Join, Message, Offer
from flyx.signaling.messages import Outcome as TransferOutcome
from flyx.storage.writer import Destination, ExistingPolicy, Skip
from flyx.transfer.disk import Operation, OperationFailed, Outcome, PlanEntries, PlanTree, Unfinished
from flyx.transfer.left_out import BY_NATURE, reason
from flyx.transfer.manifest import Manifest
from flyx.transfer.names import NamePolicy
from flyx.transfer.receiver import (
    FileReceived,
    ManifestReceived,
    Offered,
    Received,
    Receiver,
    UnfinishedFound,
)
from flyx.transfer.selection import Selection
from flyx.transfer.session import EntryLeftOut

_SENDER = 1
"""The number of the only peer."""

Confirm = Callable[[Manifest], Awaitable[bool]]

AskExisting = Callable[[DestinationExists], Awaitable[tuple[ExistingPolicy, Skip] | None]]
"""Returns what to do about what exists; None: the transfer is refused for it."""

AskWords = Callable[[int], Awaitable[tuple[str, ...]]]
"""Returns so many words of the list (0: words of the sender's own, in their common form)."""


@dataclass(frozen=True, slots=True)
class ReceiveOptions:
    """What to receive, and where to.

    Attributes:
        server: URL of the server to ask; None: of none.
        room_id: normalised.
        words: of the code, in their common form; empty if it has none.
        ask_words: asks the person for the words; None if there is nobody to ask.
        directory: where the files go; made if missing.
        confirm: asks the person; None to accept whatever is offered.
        reconnect: seconds for which another connection is waited for when one is lost; 0 for not.
        trust_server: if the sender asks for no words, only the server says who it is: believe that.
        confirm_unverified: takes the place of confirm if the server is not trusted; None to refuse.
        local: look for the room on this computer and its network as well.
        connections: what the person allows them.
        names: what to do about names that cannot be had here.
        selection: what is wanted of what is offered; None: all of it.
        skip: what is left out for what is there.
        ask_existing: asks the person what to do about what exists; None: that is as `existing` says.
    """

    server: str | None
    room_id: str
    words: tuple[str, ...]
    ask_words: AskWords | None
    directory: Path
    existing: ExistingPolicy
    confirm: Confirm | None
    reconnect: float = RECONNECT_TIME
    trust_server: bool = False
    confirm_unverified: Confirm | None = None
    local: bool = False
    connections: ConnectionOptions = ANY_CONNECTION
    names: NamePolicy = NamePolicy.SKIP
    selection: Selection | None = None
    skip: Skip = Skip.NOTHING
    ask_existing: AskExisting | None = None


async def receive(options: ReceiveOptions, on_event: Callable[[events.Event], None]) -> None:
    """Receive everything that the sender of the room offers. What happens is told through on_event.

    Raises:
        FlyxError: it did not work; the class says which exit status it deserves.
    """
    failure: FlyxError | None = None
    guesses = 0
    rooms = find_rooms(options.room_id, options.server, on_event, local=options.local, hold=options.reconnect)
    async with aclosing(rooms):
        async for room in rooms:
            if failure:
                on_event(events.Notice(f"{str(failure).rstrip('.')}. Trying another sender of that room."))
            options.connections.check(room.signaling)
            on_event(events.RoomJoined(options.room_id, room.server, room.local))
            on_event(events.PeerJoined(_SENDER))
            session = ReceiveSession(replace(options, server=room.server), room.signaling, on_event)
            try:
                await _run(session, room.signaling)
                return
            except (PairingFailed, PeerUnreachable, SignalingError) as error:
                guesses += session.has_given_words
                # Each of those that have answered could try one pair of words.
                if session.has_paired or guesses >= MAX_TRIES:
                    raise
                # On a network anybody can say that the room is there.
                failure = error
    if failure:
        raise failure


async def _run(session: ReceiveSession, signaling: Signaling) -> None:
    """Run a session, and have the server know how it went."""
    try:
        await session.run()
    except asyncio.CancelledError:
        signaling.farewell = "the receiver stopped"
        raise
    except (TransferRefused, SignalingError):
        # Nobody tried, or it was not for want of a connection.
        raise
    except FlyxError:
        signaling.outcome = TransferOutcome.FAILED
        raise


_OPEN = "This code has no words: the server is trusted to have connected us with the right sender. It is {}."
_UNREAD = "Nobody reads the names of saved files any more."
_KEPT = "What has arrived is kept: receive into the same directory again to go on from there."


async def _refuse_unverified(_: Manifest) -> bool:
    raise UnverifiedSender


class ReceiveSession:
    """Receives from the sender of a room, over one connection after another if need be."""

    def __init__(
        self, options: ReceiveOptions, signaling: Signaling, on_event: Callable[[events.Event], None]
    ) -> None:
        self._options = options
        self._signaling = signaling
        self._on_event = on_event
        self._reception = Reception(options.reconnect)
        # Set by whatever may let begin() find an offer, or none.
        self._wake = asyncio.Event()
        # What is being connected, or is.
        self._link: Link | None = None
        # Set when the connection is up, and when both sides have paired.
        self._pairing: Pairing | None = None
        self._session: Session | None = None
        # Some sender was the right one, or taken for it.
        self.has_paired = False
        # Some sender has learnt whether the words that it thought of are ours.
        self.has_given_words = False
        # Of the connection that there is, or the last one that there was.
        self._driver: ReceiveDriver | None = None
        # Something has arrived that a later try can go on with.
        self._keeps = False
        # What to do about what exists, and whether the person is still to be asked about that.
        self._existing = options.existing, options.skip
        self._asks_existing = options.ask_existing is not None
        # Of this computer, when the last connection was begun.
        self._networks: frozenset[str] = frozenset()

    async def run(self) -> Confirmation:
        """Connect and receive; return what both ends have confirmed.

        Raises:
            FlyxError: not everything was received.
        """
        listener = asyncio.create_task(self._listen())
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="flyx-write") as disk:
                async with NetworkWatch(self._network_changed):
                    while True:
                        try:
                            return await self._attempt(disk)
                        except FlyxError as error:
                            if self._reception.failed(error, time.monotonic()):
                                self._lost(error)
        except TransferInterrupted as error:
            if not self._keeps:
                # There is nothing to go on from.
                error.hint = None
            raise
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    def _lost(self, error: FlyxError) -> None:
        """Tell that the connection is lost: the person, and the sender, if it need not have noticed."""
        self._on_event(events.PeerLost(_SENDER, error))
        noticed = self._driver is not None and self._driver.was_closed
        if not noticed and not self._reception.has_offer:
            self._signaling.begin_anew()

    def _network_changed(self, change: Change) -> None:
        self._signaling.network_changed(change)
        match self._reception.state:
            case ReceptionState.RECEIVING:
                assert self._driver is not None
                self._driver.network_changed(change)
            case ReceptionState.CONNECTING if self._reception.lost and networks() != self._networks:
                # What we answered leads to where we are no more.
                self._signaling.begin_anew()

    async def _attempt(self, disk: Executor) -> Confirmation:
        """Connect and receive, until the connection is lost."""
        options = self._options
        destination = Destination(
            options.directory,
            self._existing[0],
            options.names,
            options.selection,
            self._existing[1],
        )
        link, channels = await self._connect()
        try:
            await self._pair(link, channels)
            with destination:
                wiring = Wiring(link.connection, channels, disk, _SENDER, self._on_event)
                driver = self._make_driver(wiring, destination)
                self._reception.paired()
                path = link.connection.path()
                relayed = path is not None and "relay" in (path.local, path.remote)
                confirmation = await driver.run()
            self._reception.confirmed(confirmation)
            if confirmation.error:
                raise confirmation.error
            self._signaling.outcome = TransferOutcome.RELAYED if relayed else TransferOutcome.DIRECT
            return confirmation
        except asyncio.CancelledError:
            if destination.keeps:
                self._on_event(events.Notice(_KEPT))
            raise
        except BrokenPipeError:
            self._on_event(events.Notice(f"{_UNREAD} {_KEPT}" if destination.keeps else _UNREAD))
            raise
        finally:
            self._keeps = self._keeps or destination.keeps
            await link.close()

    def _make_driver(self, wiring: Wiring, destination: Destination) -> ReceiveDriver:
        options, earlier = self._options, self._driver
        believed = self._session is not None or options.trust_server
        confirm = options.confirm if believed else options.confirm_unverified or _refuse_unverified
        accepted = earlier.machine.accepted if earlier else None
        machine = Receiver(ask=confirm is not None, now=time.monotonic(), accepted=accepted)
        ask_existing = self._ask_existing if self._asks_existing else None
        self._driver = ReceiveDriver(machine, wiring, destination, confirm, options.selection, ask_existing)
        if earlier:
            self._driver.go_on_after(earlier)
        return self._driver

    async def _ask_existing(self, found: DestinationExists) -> tuple[ExistingPolicy, Skip] | None:
        """Ask the person what to do about what exists, once: the answer is good for later connections."""
        assert self._options.ask_existing is not None
        answer = await self._options.ask_existing(found)
        self._asks_existing = False
        if answer:
            self._existing = answer
        return answer

    async def _pair(self, link: Link, channels: Channels) -> None:
        """Prove to know the sender's code, and have it prove the same."""
        options = self._options
        self._pairing = Pairing(link.connection, channels)
        paired = await self._pairing.receive(
            options.room_id, self._session, self._password, has_words=bool(options.words)
        )
        self._session = paired.session
        self.has_paired = True
        if self._reception.lost is None:
            self._on_event(events.PeerPaired(_SENDER))
            if paired.session is None and options.trust_server:
                self._on_event(events.Notice(_OPEN.format(options.server)))

    async def _password(self, wanted: WordsWanted) -> str:
        options = self._options
        if options.words:
            words = resolve_words(options.words, wanted.count) if wanted.count else options.words
        elif options.ask_words:
            words = await options.ask_words(wanted.count)
        else:
            hint = "give the whole code, such as K7M2QX-lemon-otter, or run this on a terminal to be asked"
            raise InputError(reason="the sender's code has words, and this one has none", hint=hint)
        self.has_given_words = True
        return password_of(words)

    async def _connect(self) -> tuple[Link, Channels]:
        """Return a link that is up, and its channels.

        Raises:
            FlyxError: the sender has left, or the connection it offered cannot be made.
        """
        while True:
            offered = await self._await_offer()
            self._pairing = None
            self._networks = networks()
            link = self._link = Link(self._signaling, None, options=self._options.connections)
            try:
                for message in offered:
                    link.take(message)
                channels = await link.connected(
                    lambda attempts: self._on_event(events.Connecting(_SENDER, attempts))
                )
                if self._reception.state is ReceptionState.CONNECTING:
                    self._reception.connected()
                    return link, channels
            except FlyxError:
                if self._reception.state is ReceptionState.CONNECTING:
                    await link.close()
                    raise
            except BaseException:
                await link.close()
                raise
            # Another connection is to be made. This one first gives back what it holds.
            await link.close()

    async def _await_offer(self) -> tuple[Message, ...]:
        """Wait until the sender offers a connection: as long as it stays in the room, our turn will come."""
        deadline = self._reception.deadline
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            async with asyncio.timeout(timeout):
                while (offered := self._reception.begin()) is None:
                    self._wake.clear()
                    await self._wake.wait()
                return offered
        except TimeoutError:
            raise PeerUnreachable(reason="the sender offers none") from None

    async def _listen(self) -> None:
        """Pass on what the room says. Its end matters only while we are not connected."""
        try:
            while True:
                self._perform(self._react(await self._signaling.receive()))
        except Exception as error:
            self._perform(self._reception.room_gone(failure_of(error, "signaling")))

    def _react(self, item: Message | Interrupted | Restored) -> Action | None:
        match item:
            case Interrupted(reason=reason):
                self._on_event(events.server_lost(reason))
            case Restored(recovered=recovered):
                self._on_event(events.SERVER_BACK)
                if not recovered:
                    return self._reception.begin_anew()
            case Join(data=data):
                if not data.recovered:
                    return self._reception.begin_anew()
            case Disconnect(data=data):
                return self._reception.sender_away() if data.away else self._reception.sender_left()
            case Offer() | IceCandidate():
                return self._reception.message(item)
        return None

    def _perform(self, action: Action | None) -> None:
        match action:
            case Feed(message=message):
                assert self._link is not None
                self._link.take(message)
            case GiveUp(error=error):
                if self._pairing:
                    self._pairing.give_up(error)
                elif self._link:
                    self._link.give_up(error)
            case Doubt():
                assert self._driver is not None
                self._driver.peer_gone()
            case Check():
                assert self._driver is not None
                self._driver.check_path("the sender has lost the connection")
        self._wake.set()


class ReceiveDriver(Driver[Receiver, list[Operation], Sequence[Outcome]]):
    """Drives a Receiver: its disk work is writing, and a person may have to be asked."""

    def __init__(
        self,
        machine: Receiver,
        wiring: Wiring,
        destination: Destination,
        confirm: Confirm | None,
        selection: Selection | None = None,
        ask_existing: AskExisting | None = None,
    ) -> None:
        super().__init__(machine, wiring)
        self._disk_executor = wiring.disk
        self._ask_existing = ask_existing
        # What the disk has planned, as long as it may have to plan it anew.
        self._planning: list[Operation] = []
        # Set while the person is asked about what exists: the loop that asks, and the question.
        self._asking_existing: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._destination = destination
        self._confirm = confirm
        self._selection = selection
        # What is wanted of what is offered, when all of that has been told.
        self._wanted: Manifest | None = None
        self._asking: asyncio.Task[None] | None = None

    async def run(self) -> Confirmation:
        try:
            return await super().run()
        finally:
            if self._asking:
                self._asking.cancel()
                await asyncio.gather(self._asking, return_exceptions=True)

    def next_work(self) -> list[Operation] | None:
        return self.machine.next_operations() or None

    def do_work(self, work: list[Operation]) -> Sequence[Outcome]:
        return self._destination.apply(work)

    async def settle(self, work: list[Operation], result: Sequence[Outcome]) -> Sequence[Outcome]:
        """Ask what to do about what exists where that would end the transfer, and plan anew by the answer."""
        if self._ask_existing is None:
            return result
        if not all(isinstance(operation, PlanTree | PlanEntries) for operation in work):
            # All is planned, and accepted.
            self._ask_existing = None
            self._planning.clear()
            return result
        self._planning += work
        last = result[-1]
        if not (isinstance(last, OperationFailed) and isinstance(last.error, DestinationExists)):
            return result
        await self.path_told()
        question = asyncio.ensure_future(self._ask_existing(last.error))
        self._ask_existing = None
        self._asking_existing = asyncio.get_running_loop(), question
        # Nobody waits for the answer when the transfer has ended.
        await asyncio.wait({question})
        self._asking_existing = None
        if question.cancelled() or (answer := question.result()) is None:
            return result
        planned = await asyncio.get_running_loop().run_in_executor(
            self._disk_executor, self._plan_anew, *answer
        )
        return planned[len(self._planning) - len(work) :] or planned[-1:]

    def _plan_anew(self, existing: ExistingPolicy, skip: Skip) -> Sequence[Outcome]:
        """Plan all that has been planned with other policies; on a thread."""
        self._destination.begin_anew(existing, skip)
        return self._destination.apply(self._planning)

    def stop_work(self) -> None:
        if asking := self._asking_existing:
            loop, question = asking
            loop.call_soon_threadsafe(question.cancel)
        self._destination.abandon()

    def work_done(self, result: Sequence[Outcome], now: float) -> None:
        self.machine.operations_done(result, now)

    def next_data(self) -> bytes | None:
        return None

    def receive_data(self, message: bytes | str, now: float) -> None:
        self.machine.receive_data(message, now)

    def waits_for(self) -> Cause | None:
        return Cause.DISK if self.disk_is_busy else None

    def limit_of(self, shares: Shares) -> Limit | None:
        return receivers_limit(shares)

    def progress(self) -> tuple[int, int, int]:
        return self.machine.bytes_written, self.machine.expected_bytes, self.machine.bytes_held

    def handle_event(self, event: object) -> None:
        match event:
            case ManifestReceived(manifest=manifest) if not self._select(manifest).entries:
                self.machine.cancel(NothingWanted())
            case Offered():
                if self._confirm is None and self._destination.needs_all:
                    self.begin()
            case ManifestReceived(question=True):
                self._asking = asyncio.create_task(self._ask(event))
            case ManifestReceived():
                if not self.goes_on:
                    self._tell(event)
                if not self._destination.needs_all:
                    # How much it is, is known only now.
                    self.begin()
            case UnfinishedFound(transfers=transfers) if not self.goes_on:
                for transfer in transfers:
                    self.on_event(events.Notice(self._unfinished(transfer)))
            case FileReceived(file=file, path=saved_as, sha256=sha256):
                self.finish_file(file, self.machine.path_of(file), saved_as, sha256)
            case EntryLeftOut(index=index, code=code):
                self.lose(index, self.machine.path_of(index), code)
            case Received(files=files, bytes=size, sha256=sha256):
                self._count_absent()
                self.succeed(files, size, sha256)
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

    def _count_absent(self) -> None:
        """What the sender leaves out is missing as well."""
        assert self._wanted is not None
        left_out = self._wanted.left_out
        if left_out.failures:
            self.count_missing(left_out.failures, *left_out.first_failure)

    def _unfinished(self, transfer: Unfinished) -> str:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(transfer.time))
        state = self._destination.state_directory
        return f"An unfinished transfer of {transfer.root} from {since} is kept in {state}."

    async def _ask(self, received: ManifestReceived) -> None:
        assert self._confirm is not None
        assert self._wanted is not None
        await self.path_told()
        self._tell(received)
        try:
            accepted = await self._confirm(self._wanted)
        except Exception as error:
            self.machine.cancel(failure_of(error, "the question"))
        else:
            self.begin()
            self.machine.answer(accepted)
        self.wake()
