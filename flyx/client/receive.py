"""`flyx receive`: join a room, let its sender connect, and take what is offered."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from flyx.client import events
from flyx.client.driver import RECONNECT_TIME, Driver, Wiring
from flyx.client.link import Link
from flyx.client.pairing import Pairing
from flyx.client.signaling import Interrupted, Restored, Signaling
from flyx.errors import (
    ConnectionLost,
    FlyxError,
    InputError,
    LocalProtocolError,
    PairingTimedOut,
    PeerUnreachable,
    SenderLeft,
    SignalingError,
    TransferRefused,
)
from flyx.pairing.exchange import WordsWanted
from flyx.pairing.keys import Session
from flyx.pairing.words import password_of, resolve_words
from flyx.rtc.description import MAX_REMOTE_CANDIDATES
from flyx.rtc.peer import Channels
from flyx.signaling.messages import Disconnect, Join, Message, Offer, Role
from flyx.signaling.messages import Outcome as TransferOutcome
from flyx.storage.writer import Destination, ExistingPolicy
from flyx.transfer.disk import Operation, Outcome, Unfinished
from flyx.transfer.manifest import Manifest
from flyx.transfer.receiver import (
    FileReceived,
    ManifestReceived,
    Offered,
    Received,
    Receiver,
    UnfinishedFound,
)
from flyx.transfer.session import FileLost

_SENDER = 1
"""The number of the only peer."""

Confirm = Callable[[Manifest], Awaitable[bool]]

AskWords = Callable[[int], Awaitable[tuple[str, ...]]]
"""Returns so many words of the list (0: words of the sender's own, in their common form)."""


@dataclass(frozen=True, slots=True)
class ReceiveOptions:
    """What to receive, and where to.

    Attributes:
        room_id: normalised.
        words: of the code, in their common form; empty if it has none.
        ask_words: asks the person for the words; None if there is nobody to ask.
        directory: where the files go; made if missing.
        confirm: asks the person; None to accept whatever is offered.
        reconnect: seconds for which another connection is waited for when one is lost; 0 for not.
    """

    server: str
    room_id: str
    words: tuple[str, ...]
    ask_words: AskWords | None
    directory: Path
    existing: ExistingPolicy
    confirm: Confirm | None
    reconnect: float = RECONNECT_TIME


async def receive(options: ReceiveOptions, on_event: Callable[[events.Event], None]) -> None:
    """Receive everything that the sender of the room offers. What happens is told through on_event.

    Raises:
        FlyxError: it did not work; the class says which exit status it deserves.
    """
    async with Signaling(options.server, options.room_id, Role.RECEIVER) as signaling:
        on_event(events.RoomJoined(options.room_id))
        on_event(events.PeerJoined(_SENDER))
        try:
            await _Reception(options, signaling, on_event).run()
        except asyncio.CancelledError:
            signaling.farewell = "the receiver stopped"
            raise
        except (TransferRefused, SignalingError):
            # Nobody tried, or it was not for want of a connection.
            raise
        except FlyxError:
            signaling.outcome = TransferOutcome.FAILED
            raise


_OPEN = "This code has no words: the server is trusted to have connected us with the right sender."
_KEPT = "What has arrived is kept: receive into the same directory again to go on from there."


class _Reception:
    """Receives from the sender of a room, over one connection after another if need be."""

    def __init__(
        self, options: ReceiveOptions, signaling: Signaling, on_event: Callable[[events.Event], None]
    ) -> None:
        self._options = options
        self._signaling = signaling
        self._on_event = on_event
        # What is being connected, or is; set when the sender has offered a connection, or none will come.
        self._link = Link(signaling, None)
        self._offered = asyncio.Event()
        self._connected = False
        # An offer that came while we were connected, and what followed it.
        self._next_offer: deque[Message] | None = None
        # Set when the connection is up, and when both sides have paired.
        self._pairing: Pairing | None = None
        self._session: Session | None = None
        # Of the connection that there is, or the last one that there was.
        self._driver: ReceiveDriver | None = None
        # Why the last connection is no more, and until when another one is waited for.
        self._lost: ConnectionLost | None = None
        self._patience_ends = 0.0
        # Set when the sender cannot offer any more.
        self._deserted = False

    async def run(self) -> None:
        """Connect and receive.

        Raises:
            FlyxError: not everything was received.
        """
        listener = asyncio.create_task(self._listen())
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="flyx-write") as disk:
                while True:
                    try:
                        await self._attempt(disk)
                        return
                    except (ConnectionLost, PeerUnreachable, PairingTimedOut, SignalingError) as error:
                        self._lose(error)
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
            await self._link.close()

    async def _attempt(self, disk: Executor) -> None:
        """Connect and receive, until the connection is lost."""
        link, channels = await self._connect()
        destination = Destination(self._options.directory, self._options.existing)
        try:
            await self._pair(link, channels)
            with destination:
                wiring = Wiring(link.connection, channels, disk, _SENDER, self._on_event)
                driver = self._make_driver(wiring, destination)
                path = link.connection.path()
                relayed = path is not None and "relay" in (path.local, path.remote)
                await driver.run()
                self._signaling.outcome = TransferOutcome.RELAYED if relayed else TransferOutcome.DIRECT
        except asyncio.CancelledError:
            if destination.keeps:
                self._on_event(events.Notice(_KEPT))
            raise
        finally:
            await link.close()

    def _make_driver(self, wiring: Wiring, destination: Destination) -> ReceiveDriver:
        confirm, earlier = self._options.confirm, self._driver
        accepted = earlier.machine.accepted if earlier else None
        machine = Receiver(ask=confirm is not None, now=time.monotonic(), accepted=accepted)
        self._driver = ReceiveDriver(machine, wiring, destination, confirm)
        if earlier:
            self._driver.go_on_after(earlier)
        return self._driver

    def _lose(self, error: FlyxError) -> None:
        """There is no connection: wait for the sender to offer another one, if there was one and it may.

        Raises:
            FlyxError: it will not.
        """
        now = time.monotonic()
        if isinstance(error, ConnectionLost):
            if self._deserted or not self._options.reconnect:
                raise error
            self._lost = error
            self._patience_ends = now + self._options.reconnect
            self._on_event(events.PeerLost(_SENDER, error))
        elif self._lost is None:
            raise error
        elif self._deserted or now >= self._patience_ends:
            # That another connection could not be made says less than why it was wanted.
            raise self._lost
        self._renew()

    async def _pair(self, link: Link, channels: Channels) -> None:
        """Prove to know the sender's code, and have it prove the same."""
        options = self._options
        self._pairing = Pairing(link.connection, channels)
        paired = await self._pairing.receive(
            options.room_id, self._session, self._password, has_words=bool(options.words)
        )
        self._session = paired.session
        if self._lost is None:
            self._on_event(events.PeerPaired(_SENDER))
            if paired.session is None:
                self._on_event(events.Notice(_OPEN))

    async def _password(self, wanted: WordsWanted) -> str:
        options = self._options
        if options.words:
            words = resolve_words(options.words, wanted.count) if wanted.count else options.words
        elif options.ask_words:
            words = await options.ask_words(wanted.count)
        else:
            hint = "give the whole code, such as K7M2QX-lemon-otter, or run this on a terminal to be asked"
            raise InputError(reason="the sender's code has words, and this one has none", hint=hint)
        return password_of(words)

    async def _connect(self) -> tuple[Link, Channels]:
        """Return a link that is up, and its channels.

        Raises:
            FlyxError: the sender has left, or the connection it offered cannot be made.
        """
        while True:
            link = self._link
            try:
                # The sender may be busy with others: as long as it stays in the room, its turn will come.
                async with asyncio.timeout_at(self._deadline()):
                    await self._offered.wait()
            except TimeoutError:
                raise PeerUnreachable(reason="the sender offers none") from None
            try:
                channels = await link.connection.connected()
            except FlyxError:
                await link.close()
                if link is self._link:
                    raise
            else:
                self._connected = True
                return link, channels

    def _deadline(self) -> float | None:
        """When to stop waiting for an offer, in the loop's time."""
        if self._lost is None:
            return None
        return asyncio.get_running_loop().time() + max(0.0, self._patience_ends - time.monotonic())

    def _renew(self) -> None:
        """Begin anew with what the sender has offered meanwhile, or will."""
        old, self._link = self._link, Link(self._signaling, None)
        self._connected = False
        self._pairing = None
        self._offered.clear()
        old.give_up(PeerUnreachable(reason="the sender offers another one"))
        following, self._next_offer = self._next_offer, None
        if following:
            self._offered.set()
            for message in following:
                self._link.take(message)
        if self._deserted:
            self._offered.set()
            self._link.give_up(SenderLeft())

    def _begin_anew(self) -> None:
        """What we and the sender said on the way to a connection may be lost: it will offer another one."""
        self._deserted = False
        if not self._connected:
            self._renew()

    async def _listen(self) -> None:
        """Pass on what the room says. Its end matters only while we are not connected."""
        try:
            while True:
                match message := await self._signaling.receive():
                    case Interrupted(reason=reason):
                        self._on_event(events.server_lost(reason))
                    case Restored(recovered=recovered):
                        self._on_event(events.SERVER_BACK)
                        if not recovered:
                            self._begin_anew()
                    case Join(data=data) if not data.recovered:
                        self._begin_anew()
                    case Disconnect(data=data):
                        self._sender_left(for_now=data.away)
                    case Offer():
                        self._take_offer(message)
                    case _ if self._next_offer is not None:
                        self._next_offer.append(message)
                    case _:
                        self._link.take(message)
        except SignalingError as error:
            self._deserted = True
            self._link.give_up(error)
        finally:
            self._offered.set()

    def _take_offer(self, offer: Offer) -> None:
        """The sender offers a connection: the first one, or because it has lost the one that there is.

        A connection that lives is not given up for an offer, which a server could make up.
        """
        if self._connected:
            self._next_offer = deque([offer], MAX_REMOTE_CANDIDATES)
            if self._driver:
                self._driver.peer_gone()
            return
        if self._offered.is_set():
            self._renew()
        self._offered.set()
        self._link.take(offer)

    def _sender_left(self, *, for_now: bool) -> None:
        self._deserted = not for_now
        if self._connected and self._driver:
            # We have lost it as well, unless we hear from it soon.
            self._driver.peer_gone()
        elif self._connected and self._pairing and not for_now:
            self._pairing.give_up(SenderLeft())
        elif not for_now:
            self._offered.set()
            self._link.give_up(SenderLeft())


class ReceiveDriver(Driver[Receiver, list[Operation], Sequence[Outcome]]):
    """Drives a Receiver: its disk work is writing, and a person may have to be asked."""

    def __init__(
        self, machine: Receiver, wiring: Wiring, destination: Destination, confirm: Confirm | None
    ) -> None:
        super().__init__(machine, wiring)
        self._destination = destination
        self._confirm = confirm
        self._asking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            if self._asking:
                self._asking.cancel()
                await asyncio.gather(self._asking, return_exceptions=True)

    def next_work(self) -> list[Operation] | None:
        return self.machine.next_operations() or None

    def do_work(self, work: list[Operation]) -> Sequence[Outcome]:
        return self._destination.apply(work)

    def work_done(self, result: Sequence[Outcome], now: float) -> None:
        self.machine.operations_done(result, now)

    def next_data(self) -> bytes | None:
        return None

    def receive_data(self, message: bytes | str, now: float) -> None:
        self.machine.receive_data(message, now)

    def progress(self) -> tuple[int, int]:
        return self.machine.bytes_written, self.machine.expected_bytes

    def handle_event(self, event: object) -> None:
        match event:
            case Offered():
                if self._confirm is None:
                    self.begin()
            case ManifestReceived(question=True):
                self._asking = asyncio.create_task(self._ask(event))
            case ManifestReceived() if not self.goes_on:
                self._tell(event)
            case UnfinishedFound(transfers=transfers) if not self.goes_on:
                for transfer in transfers:
                    self.on_event(events.Notice(self._unfinished(transfer)))
            case FileReceived(file=file, path=saved_as, sha256=sha256):
                self.finish_file(self.machine.path_of(file), saved_as, sha256)
            case FileLost(file=file, code=code):
                self.lose(self.machine.path_of(file), code)
            case Received(files=files, bytes=size, sha256=sha256):
                self.succeed(files, size, sha256)
            case ManifestReceived() | UnfinishedFound():
                pass
            case _:
                raise LocalProtocolError(reason=f"unknown event {event}")

    def _tell(self, received: ManifestReceived) -> None:
        """Tell what is offered, and what of it is here."""
        self.manifest_told = True
        self.on_event(events.ManifestKnown(received.manifest))
        for file in received.changed:
            path = received.manifest.entries[file].path
            self.on_event(events.Notice(f"{path} has changed since the last try: it starts anew."))
        if received.kept_files or received.found_bytes:
            self.resume(received.kept_files, received.found_bytes)

    def _unfinished(self, transfer: Unfinished) -> str:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(transfer.time))
        state = self._destination.state_directory
        return f"An unfinished transfer of {transfer.root} from {since} is kept in {state}."

    async def _ask(self, received: ManifestReceived) -> None:
        assert self._confirm is not None
        await self.path_told()
        self._tell(received)
        try:
            accepted = await self._confirm(received.manifest)
        except FlyxError as error:
            self.machine.cancel(error)
        else:
            self.begin()
            self.machine.answer(accepted)
        self.wake()
