"""`flyx receive`: join a room, let its sender connect, and take what is offered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from flyx.client import events
from flyx.client.confirmation import Confirmation
from flyx.client.driver import DriverContext
from flyx.client.failures import failure_of
from flyx.client.link import ANY_CONNECTION, ConnectionOptions, Link
from flyx.client.local import find_rooms
from flyx.client.meeting import RECONNECT_TIME
from flyx.client.pairing import Pairing, begin_receiving
from flyx.client.receive_machine import Action, Check, Doubt, Feed, GiveUp, ReceiveMachine, ReceiveState
from flyx.client.receiving import SENDER, AskExisting, Confirm, ReceiveDriver, Sink
from flyx.client.signaling import Interrupted, Restored, Signaling
from flyx.client.waiting import Waiting
from flyx.errors import (
    DestinationExists,
    FlyxError,
    InputError,
    PairingFailed,
    PeerUnreachable,
    SignalingError,
    TransferInterrupted,
    TransferRefused,
    UnverifiedSender,
)
from flyx.net.changes import Change, NetworkWatch, networks
from flyx.pairing.exchange import Paired, WordsWanted
from flyx.pairing.keys import PairingSession
from flyx.pairing.tries import MAX_TRIES
from flyx.pairing.words import password_for, password_of
from flyx.signaling.messages import Disconnect, IceCandidate, Join, Message, Offer, Outcome
from flyx.storage.pipe import PipeDestination
from flyx.storage.plan import needs_all
from flyx.storage.stream import StreamDestination
from flyx.storage.text import TextDestination
from flyx.storage.writer import Destination, ExistingPolicy, Skip
from flyx.transfer.digests import algorithms_of
from flyx.transfer.disk import PlanTree
from flyx.transfer.manifest import Content, Manifest
from flyx.transfer.messages import EAGER
from flyx.transfer.names import NamePolicy
from flyx.transfer.receiver import Receiver
from flyx.transfer.selection import Selection

if TYPE_CHECKING:
    from flyx.rtc.channel import Channels

AskWords = Callable[[int], Awaitable[tuple[str, ...]]]
"""Returns so many words of the list (0: words of the sender's own, in their common form)."""


class ReceiveOptions(Struct, frozen=True):
    """What to receive, and where to.

    Attributes:
        server: URL of the server to ask; None: of none.
        room_id: normalised.
        words: of the code, in their common form; empty if it has none.
        ask_words: asks the person for the words; None if there is no terminal to ask on.
        directory: where the files go; made if missing.
        confirm: asks the person; None to accept every offer.
        reconnect: seconds for which another connection is waited for when one is lost; 0 for not.
        trust_server: if the sender asks for no words, only the server says who it is: believe that.
        confirm_unverified: takes the place of confirm if the server is not trusted; None to refuse.
        local: look for the room on this computer and its network as well.
        connections: what the person allows them.
        names: what to do about names that cannot be had here.
        selection: what is wanted of what is offered; None: all of it.
        skip: what is left out for what is there.
        ask_existing: asks the person what to do about what exists; None: that is as `existing` says.
        descriptor: where one file goes in the place of the directory; None: into the directory.
        limit: data bytes a second that the sender is asked to keep to; None: as many as it can.
        wait: if the room is not there yet, wait for it.
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
    descriptor: int | None = None
    limit: int | None = None
    wait: bool = False


async def receive(options: ReceiveOptions, on_event: Callable[[events.Event], None]) -> None:
    """Receive everything that the sender of the room offers; on_event gets what happens.

    Raises:
        FlyxError: it did not work; the class says which exit status it deserves.
    """
    failure: FlyxError | None = None
    guesses = 0
    where = options.room_id, options.server, on_event
    waiting = Waiting(*where, local=options.local, hold=options.reconnect) if options.wait else None
    rooms = waiting.rooms() if waiting else find_rooms(*where, local=options.local, hold=options.reconnect)
    async with aclosing(rooms):
        async for room in rooms:
            if failure:
                on_event(events.Notice(f"{str(failure).rstrip('.')}. Trying another sender of that room."))
            options.connections.check(room.signaling)
            on_event(events.RoomJoined(options.room_id, room.server, room.local))
            on_event(events.PeerJoined(SENDER))
            here = replace(options, server=room.server)
            session = ReceiveSession(here, room.signaling, on_event, guesses)
            try:
                await _run(session, room.signaling)
                return
            except (PairingFailed, PeerUnreachable, SignalingError) as error:
                guesses = session.guesses
                # Each of those that have answered could try one pair of words.
                if session.has_paired or guesses >= MAX_TRIES:
                    raise
                # On a local network any computer can claim to have the room.
                failure = None if waiting and waiting.outlasts(error) else error
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
        # Nothing was tried, or a connection was not what was missing.
        raise
    except FlyxError:
        signaling.outcome = Outcome.FAILED
        raise


_OPEN = "This code has no words: the server is trusted to have connected us with the right sender. It is {}."
_UNREAD = "Nobody reads the names of saved files any more."
_KEPT = "What has arrived is kept: receive into the same directory again to go on from there."


async def _refuse_unverified(_: Manifest) -> bool:
    raise UnverifiedSender


class ReceiveSession:
    """Receives from the sender of a room, over one connection after another if need be."""

    def __init__(
        self,
        options: ReceiveOptions,
        signaling: Signaling,
        on_event: Callable[[events.Event], None],
        guesses: int = 0,
    ) -> None:
        """Args:
        options: what to receive; with the server that the room was found at.
        signaling: the room.
        on_event: told what happens.
        guesses: that others have had before, in other rooms of that id.
        """
        self._options = options
        self._signaling = signaling
        self._on_event = on_event
        self._machine = ReceiveMachine(options.reconnect)
        # Set when begin() may find an offer, or that none will come.
        self._wake = asyncio.Event()
        # What is being connected, or is.
        self._link: Link | None = None
        # Begun by the offer, if that has what pairing begins with.
        self._begun: Pairing | None = None
        # Set when the connection is up, and when both sides have paired.
        self._pairing: Pairing | None = None
        self._session: PairingSession | None = None
        # Some sender was the right one, or taken for it.
        self.has_paired = False
        # How often somebody may have learnt whether the words that they thought of are ours.
        self.guesses = guesses
        # Of the connection that there is, or the last one that there was.
        self._driver: ReceiveDriver | None = None
        # Where what is offered goes, since that is known; one that outlives a connection until the end.
        self._sink: Sink | None = None
        # What that is for: id of a manifest.
        self._sink_is_for = ""
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
                try:
                    async with NetworkWatch(self._network_changed):
                        while True:
                            try:
                                return await self._attempt(disk)
                            except FlyxError as error:
                                if self._machine.failed(error, time.monotonic()):
                                    self._lost(error)
                finally:
                    self._abandon_sink()
        except TransferInterrupted as error:
            if not self._keeps:
                # There is nothing to go on from.
                error.hint = None
            raise
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    def _lost(self, error: FlyxError) -> None:
        """Report to the person that the connection is lost, and to the sender if it may not have noticed."""
        self._on_event(events.PeerLost(SENDER, error))
        noticed = self._driver is not None and self._driver.was_closed
        if not noticed and not self._machine.has_offer:
            self._signaling.begin_anew()

    def _network_changed(self, change: Change) -> None:
        self._signaling.network_changed(change)
        match self._machine.state:
            case ReceiveState.RECEIVING:
                assert self._driver is not None
                self._driver.network_changed(change)
            case ReceiveState.CONNECTING if self._machine.lost and networks() != self._networks:
                # What we answered leads to where we are no more.
                self._signaling.begin_anew()

    async def _attempt(self, disk: Executor) -> Confirmation:
        """Connect and receive, until the connection is lost."""
        link, channels = await self._connect()
        try:
            paired = await self._pair(link, channels)
            try:
                context = DriverContext(link.connection, channels, disk, SENDER, self._on_event)
                driver = self._make_driver(context, paired.features)
                self._machine.paired()
                path = link.connection.path()
                relayed = path is not None and "relay" in (path.local, path.remote)
                confirmation = await driver.run()
            finally:
                if self._sink and not self._sink.outlives_connection:
                    self._abandon_sink()
            self._machine.confirmed(confirmation)
            if confirmation.error:
                raise confirmation.error
            self._signaling.outcome = Outcome.RELAYED if relayed else Outcome.DIRECT
            return confirmation
        except asyncio.CancelledError:
            if self._keeps:
                self._on_event(events.Notice(_KEPT))
            raise
        except BrokenPipeError:
            self._on_event(events.Notice(f"{_UNREAD} {_KEPT}" if self._keeps else _UNREAD))
            raise
        finally:
            await link.close()

    def _abandon_sink(self) -> None:
        if self._sink:
            self._sink.abandon()
            self._keeps = self._keeps or self._sink.keeps
            self._sink = None

    def sink_for(self, plan: PlanTree) -> Sink:
        """Return where what is offered goes: what it went to before, if that outlives connections."""
        options = self._options
        if self._sink and self._sink_is_for != plan.manifest_id:
            # Nothing of it was accepted, or the machine would not take anything else.
            self._abandon_sink()
        if self._sink is None:
            self._sink_is_for = plan.manifest_id
            match plan.content:
                case Content.TEXT:
                    self._sink = TextDestination()
                case _ if options.descriptor is not None:
                    self._sink = PipeDestination(options.descriptor, options.selection)
                case content:
                    make = StreamDestination if content is Content.STREAM else Destination
                    existing, skip = self._existing
                    self._sink = make(options.directory, existing, options.names, options.selection, skip)
        return self._sink

    @property
    def _is_eager(self) -> bool:
        """Whether what is offered is sure to be taken, as far as can be known before."""
        options = self._options
        believed = bool(options.words) or options.trust_server
        asks_nobody = options.confirm is None and options.ask_existing is None
        takes_all = needs_all(options.selection, self._existing[1]) and options.limit is None
        # Of what an earlier connection was for, something is here.
        return asks_nobody and believed and takes_all and self._driver is None

    def _make_driver(self, context: DriverContext, features: frozenset[str]) -> ReceiveDriver:
        options, earlier = self._options, self._driver
        believed = self._session is not None or options.trust_server
        confirm = options.confirm if believed else options.confirm_unverified or _refuse_unverified
        accepted = earlier.machine.accepted if earlier else None
        machine = Receiver(
            ask=confirm is not None,
            now=time.monotonic(),
            accepted=accepted,
            rate=options.limit,
            compared=earlier.machine.compared if earlier else None,
            algorithms=algorithms_of(features),
            eager=EAGER in features,
        )
        ask_existing = self._ask_existing if self._asks_existing else None
        self._driver = ReceiveDriver(
            machine,
            context,
            self.sink_for,
            confirm,
            options.selection,
            ask_existing,
            needs_all=needs_all(options.selection, self._existing[1]),
            shows_text=believed,
        )
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

    async def _pair(self, link: Link, channels: Channels) -> Paired:
        """Prove to know the sender's code, and have it prove the same."""
        options = self._options
        self._pairing = self._begun or self._begin()
        paired = await self._pairing.run(link.connection, channels)
        self._session = paired.session
        self.has_paired = True
        if self._machine.lost is None:
            self._on_event(events.PeerPaired(SENDER))
            if paired.session is None and options.trust_server:
                self._on_event(events.Notice(_OPEN.format(options.server)))
        return paired

    def _begin(self) -> Pairing:
        options = self._options
        known = self._known_words if options.words else None
        return begin_receiving(
            options.room_id, self._session, known=known, ask=self._ask_words, eager=self._is_eager
        )

    def _reply(self, first: Sequence[str], ours: bytes, theirs: bytes) -> Sequence[str]:
        """Answer what the sender says first with its offer.

        Words are given so once: who offers again and again would have as many guesses.
        """
        if self.guesses and self._session is None:
            return ()
        self._begun = self._begin()
        return self._begun.reply(first, ours, theirs)

    def _known_words(self, wanted: WordsWanted) -> str:
        password = password_for(self._options.words, wanted.count)
        self.guesses += 1
        return password

    async def _ask_words(self, wanted: WordsWanted) -> str:
        if self._options.ask_words is None:
            hint = "give the whole code, such as K7M2QX-lemon-otter, or run this on a terminal to be asked"
            raise InputError(reason="the sender's code has words, and this one has none", hint=hint)
        words = await self._options.ask_words(wanted.count)
        self.guesses += 1
        return password_of(words)

    async def _connect(self) -> tuple[Link, Channels]:
        """Return a link that is up, and its channels.

        Raises:
            FlyxError: the sender has left, or the connection it offered cannot be made.
        """
        while True:
            offered = await self._await_offer()
            self._begun = self._pairing = None
            self._networks = networks()
            link = self._link = Link(
                self._signaling, None, options=self._options.connections, reply=self._reply
            )
            try:
                for message in offered:
                    link.take(message)
                channels = await link.connected(
                    lambda attempts: self._on_event(events.Connecting(SENDER, attempts))
                )
                if self._machine.state is ReceiveState.CONNECTING:
                    self._machine.connected()
                    return link, channels
            except FlyxError:
                if self._machine.state is ReceiveState.CONNECTING:
                    await link.close()
                    raise
            except BaseException:
                await link.close()
                raise
            # Another connection is to be made. This one first gives back what it holds.
            await link.close()

    async def _await_offer(self) -> tuple[Message, ...]:
        """Wait until the sender offers a connection: as long as it stays in the room, our turn will come."""
        deadline = self._machine.deadline
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            async with asyncio.timeout(timeout):
                while (offered := self._machine.begin()) is None:
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
            self._perform(self._machine.room_gone(failure_of(error, "signaling")))

    def _react(self, item: Message | Interrupted | Restored) -> Action | None:
        match item:
            case Interrupted(reason=reason):
                self._on_event(events.server_lost(reason))
            case Restored(recovered=recovered):
                self._on_event(events.SERVER_BACK)
                if not recovered:
                    return self._machine.begin_anew()
            case Join(data=data):
                if not data.recovered:
                    return self._machine.begin_anew()
            case Disconnect(data=data):
                return self._machine.sender_away() if data.away else self._machine.sender_left()
            case Offer() | IceCandidate():
                return self._machine.message(item)
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
