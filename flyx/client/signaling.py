"""The client's place in a room of the signaling server.

A connection may be lost at any time: the network changes, a laptop sleeps, the server restarts. The place in
the room is held meanwhile, and this module goes back to it:

    receive() --> Interrupted        the connection is lost
    receive() --> Restored           it is there again, or
    receive() raises SignalingError  the place is lost for good

Messages are counted both ways (flyx.signaling.messages), so that after Restored(recovered=True) every message
has arrived or will, once and in order. After Restored(recovered=False) some may be lost: messages that were
posted and not yet sent have been dropped, and peers and we have to begin again with all that needs signaling.
The server helps: `join` follows for each receiver that is there, as on the first day.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Self, assert_never
from urllib.parse import urlsplit

from msgspec import Struct
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, WebSocketException

from flyx.client.closing import TryAgain, Wanted, error_of_close
from flyx.client.server_messages import check_ice_servers, check_joined, check_message
from flyx.client.websocket import (
    PING_TIMEOUT,
    open_websocket,
    reset,
    unreachable,
    websocket_url,
)
from flyx.errors import (
    ASK_FOR_ANOTHER,
    NoSuchRoom,
    RemoteProtocolError,
    RoomLost,
    ServerProtocolError,
    ServerRefused,
    ServerUnreachable,
)
from flyx.net.changes import Change, Route, RouteState, Slept, boot_time
from flyx.net.proxy import is_near
from flyx.signaling import messages
from flyx.signaling.members import Tail
from flyx.signaling.messages import (
    Answer,
    CloseCode,
    Disconnect,
    DisconnectData,
    ErrorData,
    IceCandidate,
    IceServer,
    Join,
    JoinData,
    JoinedData,
    Message,
    Offer,
    Outcome,
    Paired,
    PairedData,
    Ping,
    Pong,
    RefreshIceServers,
    Role,
    encoded_size,
)

logger = logging.getLogger("flyx.client")

JOINED_TIMEOUT = 10.0
"""Seconds for the server to say `joined` when there is a connection."""

PARTING_TIMEOUT, FAREWELL_TIMEOUT = 0.05, 1.0
"""Seconds for the answer to our last close frame, and for our goodbye to be written before it. A server that
is far away has both all the same: to wait for its answer would cost each command a round trip."""

MAX_OUTGOING_LENGTH = 8192
MAX_OUTGOING_SIZE = 4 << 20
"""Messages, and bytes of them, that wait for a connection to take them: more than the offers to a full room
of 256 clients with all candidates. If more wait, all are dropped and the session begins anew, as after a
loss: a server that makes us speak and does not read fills no memory."""

MIN_REFRESH_PAUSE = 1.0
"""Seconds between two requests for newer ICE servers, however short their credentials are good."""

EAGER_TIME = 15.0
"""Seconds after a change of this computer's network in which pauses do not grow. A new router that Linux asks
for (ARP) in the name of an old address may say nothing: after 3 s all that is to be sent fails."""

_GOING_AWAY = 1001
"""RFC 6455 §7.4.1. Not a goodbye, which 1000 would be."""


class Interrupted(Struct, frozen=True):
    """The connection is lost, for this reason (a clause); nothing comes until Restored."""

    reason: str


class Restored(Struct, frozen=True):
    """The connection is there again.

    Attributes:
        recovered: no message of either side is lost.
        rejoined: our place was gone and we have a new one: to our peers we are a new client.
    """

    recovered: bool
    rejoined: bool = False


class RetryPolicy(Struct, frozen=True):
    """How hard to try to get a lost connection back. Times are seconds.

    The pause before the n-th try is random between 0 and first_pause * 2**n: all clients of a server that
    restarts lose it at once, and should not all come back at once.

    Attributes:
        first_pause: see above.
        longest_pause: what the bound grows to. Shorter than the server holds our place.
        limit: from the loss to the end of all tries, if our place is not held for longer. More than the grace
            time of servers, which begins anew when a server has been away itself.
    """

    first_pause: float = 0.5
    longest_pause: float = 8.0
    limit: float = 600.0

    def pause(self, tries: int) -> float:
        """Return how long to wait before the next try, after so many."""
        bound = min(self.longest_pause, self.first_pause * 2 ** min(tries, 32))
        return random.uniform(0, bound)  # noqa: S311  # spreads retries


class Signaling:
    """A room joined on a server. Use as an async context manager; leaving it says goodbye to the server."""

    def __init__(
        self,
        server: str,
        room_id: str | None,
        role: Role,
        *,
        is_new: bool = False,
        api_token: str | None = None,
        hold: float = 0.0,
        retry: RetryPolicy | None = None,
        direct: bool = False,
    ) -> None:
        """Args:
        server: URL of the server.
        room_id: the room to join; None to create one.
        role: what we are there; the server refuses rather than give us the other role.
        is_new: create the room room_id; and again, should the server have forgotten it.
        api_token: what the server wants of those who create rooms; None if it wants nothing.
        hold: seconds for which we would like our place held while the connection is lost.
        retry: how to get a lost connection back.
        direct: the server is on this computer or its network, where no proxy leads.
        """
        self._url = websocket_url(server)
        self._room_id = room_id
        self._is_new = is_new
        # What the connection that there is, or is being made, is for.
        self._wanted: Wanted
        self._role = role
        self._headers = {"Authorization": f"Bearer {api_token}"} if api_token else {}
        self._hold = hold
        # The way to the server, and the connection that was given up since that has changed.
        self._route: Route | None = None
        self._parted: ClientConnection | None = None
        self._parting: asyncio.Task[None] | None = None
        # Set when it is no use to wait before the next try.
        self._hurry = asyncio.Event()
        self._retry = retry or RetryPolicy()
        self._direct = direct
        # The server is on this computer or its link, so that the peers may share nothing but that with us.
        self.on_link = direct or is_near(urlsplit(self._url).hostname or "")
        # The latest `joined`. Set by __aenter__; new after each Restored.
        self.joined: JoinedData
        # What connections may ask; its credentials are never older than half of what they are good for.
        self.ice_servers: tuple[IceServer, ...] = ()
        self._refresh: asyncio.TimerHandle | None = None
        # Set while we are connected to the server.
        self.there = asyncio.Event()
        # None while the connection is lost.
        self._socket: ClientConnection | None = None
        self._writer: asyncio.Task[None] | None = None
        # Messages as text, each with whether it counts, that no connection has been given yet.
        self._outgoing: deque[tuple[str, bool]] = deque()
        # Bytes of them.
        self._outgoing_size = 0
        # A pong is among them: one is enough, however many pings come.
        self._pong_waits = False
        # There were too many: some of our messages are lost.
        self._overflowed = False
        self._wake_writer = asyncio.Event()
        self._leaving = False
        # Messages of this session: those given to a connection, and how many were taken from one.
        self._sent = Tail()
        self._received = 0
        # While the connection is lost: since when, and how often we have tried.
        self._lost_at = 0.0
        # When we were there last, by the clock that goes on in sleep; None while the connection is there.
        self._away_since: float | None = None
        self._tries = 0
        # When the network changed last, as far as we know.
        self._changed_at = -EAGER_TIME
        # The last fatal error that the server told: it explains the close that follows.
        self._told: ErrorData | None = None
        # Receivers that have paired, for as long as they are in the room: the server keeps their places.
        self._paired: set[str] = set()
        # Why we leave, for the peers; set before the end.
        self.farewell = ""
        # How our transfer went, for the server's statistics; set before the end by who received.
        self.outcome: Outcome | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._enter()
        except TryAgain as failed:
            # Nobody waits for us in a new room: fail at once.
            raise failed.error from failed.__cause__
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._parting is not None:
            await self._parting
        if self._socket is None:
            return
        self.post(Disconnect(data=DisconnectData(reason=self.farewell, outcome=self.outcome)))
        self._leaving = True
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_TIMEOUT):
                # Not by the writer: at the end of asyncio.run() that is cancelled, as all tasks are.
                await self._write(self._socket)
        await _close_soon(self._socket, CloseCode.NORMAL)
        await self._drop_socket()

    async def receive(self) -> Message | Interrupted | Restored:
        """Return the next message that is about peers, or what has become of the connection.

        Pings are answered, errors kept for the end. May be cancelled and called again.

        Raises:
            SignalingError: our place in the room is lost, or cannot be reached any more.
        """
        while True:
            if self._socket is None:
                return await self._restore()
            try:
                message = await self._hear(self._socket)
            except TryAgain as lost:
                await self._drop_socket()
                self._lost_at, self._tries = time.monotonic(), 0
                if self._away_since is None:
                    self._away_since = boot_time()
                return Interrupted(str(lost.error.fields["reason"]))
            match message:
                case Ping():
                    if not self._pong_waits:
                        self._pong_waits = True
                        self.post(Pong())
                case messages.Error(data=data):
                    if data.fatal:
                        self._told = data
                case Pong():
                    pass
                case RefreshIceServers(data=data):
                    check_ice_servers(data.ice_servers, message.type)
                    self._take_ice_servers(data.ice_servers, data.ice_servers_ttl)
                case Join() | Offer() | Answer() | IceCandidate() | Disconnect():
                    check_message(message, self._role)
                    self._received += 1
                    return message
                case messages.Joined() | Paired():
                    raise ServerProtocolError(reason=f"`{message.type}` in the middle")
                case _:
                    assert_never(message)

    def _take_ice_servers(self, servers: tuple[IceServer, ...], ttl: float | None) -> None:
        """Use these from now on, and ask for newer ones in time: the ttl is the credentials' (s)."""
        self.ice_servers = servers
        if self._refresh is not None:
            self._refresh.cancel()
            self._refresh = None
        if ttl is not None:
            pause = max(ttl / 2, MIN_REFRESH_PAUSE)
            self._refresh = asyncio.get_running_loop().call_later(pause, self._ask_ice_servers, ttl)

    def _ask_ice_servers(self, ttl: float) -> None:
        self.post(RefreshIceServers())
        # If no answer comes, we ask again.
        self._take_ice_servers(self.ice_servers, ttl)

    def tell_paired(self, client_id: str) -> None:
        """Tell the server that a receiver has paired: it keeps its place, also when the room is full."""
        self._paired.add(client_id)
        if self.joined.wants_paired:
            self.post(Paired(data=PairedData(target_id=client_id)))

    def _tell_all_paired(self) -> None:
        """Say that we tell which receivers have paired, and name those that have until now."""
        self._paired &= {peer.client_id for peer in self.joined.peers}
        for client_id in (None, *sorted(self._paired)):
            self.post(Paired(data=PairedData(target_id=client_id)))

    def post(self, message: Message) -> None:
        """Send a message soon, in order; while the connection is lost, when it is there again.

        If too many wait (MAX_OUTGOING_LENGTH), they are dropped and the connection with them:
        Restored(recovered=False) follows.
        """
        counts = isinstance(message, Offer | Answer | IceCandidate | Paired)
        text = messages.serialize(message)
        logger.debug("server > %s", message.type)
        self._outgoing.append((text, counts))
        self._outgoing_size += encoded_size(text)
        if len(self._outgoing) > MAX_OUTGOING_LENGTH or self._outgoing_size > MAX_OUTGOING_SIZE:
            self._drop_outgoing()
            self._overflowed = True
            if self._socket is not None:
                # receive() sees it.
                self._socket.transport.abort()
        self._wake_writer.set()

    def _drop_outgoing(self) -> None:
        self._outgoing.clear()
        self._outgoing_size = 0
        self._pong_waits = False

    def _next_outgoing(self) -> tuple[str, bool]:
        text, counts = self._outgoing.popleft()
        self._outgoing_size -= encoded_size(text)
        return text, counts

    async def _enter(self) -> None:
        """Take a new place in the room."""
        self._wanted = Wanted(self._url, self._room_id, self._is_new or self._room_id is None, self._role)
        path = "/ws" if self._wanted.is_new else f"/ws/{self._room_id}"
        name = f"room={self._room_id}&" if self._is_new else ""
        # An older server knows nothing of `hold`, and holds our place as long as any.
        socket = await self._connect(f"{path}?{name}role={self._role}&hold={self._hold:.0f}")
        self._adopt(socket, await self._expect_joined(socket))

    async def _restore(self) -> Restored:
        pause = self._retry.pause(self._tries)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._hurry.wait()
            self._hurry.clear()
            self._tries += 1
            try:
                return await self._go_back_unless_hurried()
            except TryAgain as failed:
                limit = max(self._retry.limit, min(self._hold, self.joined.limits.grace))
                left = self._lost_at + limit - time.monotonic()
                if left <= failed.error.retry_after:
                    raise failed.error from failed.__cause__
                if time.monotonic() < self._changed_at + EAGER_TIME:
                    # It is our network that is to blame, and no server's other clients come at the same time.
                    self._tries = 0
                pause = failed.error.retry_after + self._retry.pause(self._tries)

    async def _go_back_unless_hurried(self) -> Restored:
        """Go back; begin again when the network changes: the way that is being tried may lead nowhere."""
        while True:
            going = asyncio.create_task(self._go_back())
            hurried = asyncio.create_task(self._hurry.wait())
            try:
                await asyncio.wait((going, hurried), return_when=asyncio.FIRST_COMPLETED)
                if going.done():
                    return going.result()
            finally:
                for task in (going, hurried):
                    task.cancel()
                await asyncio.gather(going, hurried, return_exceptions=True)
            self._hurry.clear()

    def network_changed(self, change: Change) -> None:
        """Something has happened to this computer: do now what would be done later."""
        slept_long = isinstance(change, Slept) and change.seconds >= PING_TIMEOUT
        if isinstance(change, Slept) and (slept_long or self._socket is None):
            before = boot_time() - change.seconds
            self._away_since = before if self._away_since is None else min(before, self._away_since)
        if self._socket is None:
            self._hurry.set()
        elif slept_long:
            self._part("this computer slept, or this program was stopped")
        elif self._route is not None and self._route.look() is not RouteState.SAME:
            # A FIN would be sent again and again from an address that is not the way out any more.
            self._part("the network of this computer has changed", silently=True)
        else:
            return
        self._changed_at = time.monotonic()

    def begin_anew(self) -> None:
        """Have our peers begin again with us: Restored(recovered=False) follows, once the server is there."""
        self._drop_outgoing()
        self._overflowed = True
        self._part("a new connection is asked for")

    def _part(self, reason: str, *, silently: bool = False) -> None:
        """Give the connection up, for this reason, and come back at once over another one."""
        self._hurry.set()
        if self._socket is not None and self._socket is not self._parted:
            self._told, self._parted = ErrorData(code="", message=reason, fatal=True), self._socket
            self.there.clear()
            if silently:
                reset(self._socket)
            else:
                self._parting = asyncio.create_task(_close_soon(self._socket, _GOING_AWAY))

    async def _go_back(self) -> Restored:
        """Take our place again, or a new one if it is gone and there is one."""
        # A room that we would create is not the one in which our peer waits.
        self._room_id = self.joined.room_id
        try:
            return await self._resume(None if self._overflowed else self._received)
        except NoSuchRoom:
            pass
        try:
            await self._enter()
        except NoSuchRoom as error:
            hint = ASK_FOR_ANOTHER if self._role is Role.RECEIVER else None
            raise RoomLost(reason=self._why_forgotten(), hint=hint) from error
        return Restored(recovered=False, rejoined=True)

    def _why_forgotten(self) -> str:
        """Say why the room may be gone. Who was away the clock does not tell, but for how long."""
        now = boot_time()
        away, held = now - (self._away_since or now), self.joined.limits.grace
        if away <= held:
            return "the server has forgotten it, as when it is restarted without --state, or has closed it"
        return f"the connection to the server was lost for {away:.0f} s; it holds a place for {held:.0f} s"

    async def _resume(self, received: int | None) -> Restored:
        self._wanted = Wanted(self._url, self._room_id, False, self._role)
        socket = await self._connect(f"/ws/{self._room_id}?resume=1")
        claim = JoinData(
            client_id=self.joined.client_id, resume_token=self.joined.resume_token, received=received
        )
        # The token is new whatever comes of it.
        self.joined = await self._expect_joined(socket, claim)
        if self.joined.recovered and (self._overflowed or self._sent.since(self.joined.received) is None):
            # The server lacks something that we have no longer, or begin_anew() was called meanwhile: it must
            # begin anew with us and our peers.
            await socket.close(_GOING_AWAY)
            return await self._resume(None)
        self._adopt(socket, self.joined)
        return Restored(self.joined.recovered)

    async def open(self, path: str) -> ClientConnection:
        """Open another WebSocket to the server, as that of the room was.

        Raises:
            SignalingError: it cannot be had.
        """
        try:
            return await self._connect(path)
        except TryAgain as failed:
            raise failed.error from failed.__cause__

    async def _connect(self, path: str) -> ClientConnection:
        try:
            return await open_websocket(self._url + path, self._headers, direct=self._direct)
        except (OSError, WebSocketException) as error:
            raise TryAgain(unreachable(self._url, error)) from error

    async def _expect_joined(self, socket: ClientConnection, claim: JoinData | None = None) -> JoinedData:
        """Say who we are, if we were here before, and take the answer. The socket closes if that fails.

        Raises:
            ServerProtocolError: the answer is not what a flyx server could say to what was asked.
        """
        try:
            async with asyncio.timeout(JOINED_TIMEOUT):
                if claim is not None:
                    await self._say(socket, messages.serialize(Join(data=claim)))
                while isinstance(first := await self._hear(socket), messages.Error):
                    self._told = first.data
                if isinstance(first, messages.Joined):
                    check_joined(first.data, self._room_id, self._role, claim)
        except TimeoutError:
            await socket.close(_GOING_AWAY)
            reason = "it accepts connections but says nothing"
            raise TryAgain(ServerUnreachable(url=self._url, reason=reason)) from None
        except BaseException:
            await socket.close(_GOING_AWAY)
            raise
        if not isinstance(first, messages.Joined):
            await socket.close(_GOING_AWAY)
            raise ServerRefused(reason="it did not let us join", hint="is this a flyx server?")
        return first.data

    def _adopt(self, socket: ClientConnection, joined: JoinedData) -> None:
        """Speak over this socket from now on, first what the server has not taken from the one before."""
        if joined.recovered:
            missing = self._sent.since(joined.received) or ()
            self._outgoing.extendleft((text, True) for text in reversed(missing))
            self._outgoing_size += sum(map(encoded_size, missing))
        else:
            self._drop_outgoing()
            self._received = 0
            self._overflowed = False
        self._sent = Tail(joined.received)
        self.joined, self._socket, self._told, self._away_since = joined, socket, None, None
        self._wanted = Wanted(self._url, joined.room_id, False, self._role)
        if joined.wants_paired and not joined.recovered:
            self._tell_all_paired()
        ends = socket.local_address, socket.remote_address
        # Through a proxy that is spoken to by TLS it is not a network's: then nothing can be watched.
        self._route = Route(*ends) if all(isinstance(end, tuple) for end in ends) else None
        self._take_ice_servers(joined.ice_servers, joined.ice_servers_ttl)
        self.there.set()
        self._writer = asyncio.create_task(self._write(socket))
        logger.debug("in the room as its %s%s", joined.role, ", again" if joined.recovered else "")

    async def _drop_socket(self) -> None:
        socket, writer = self._socket, self._writer
        self._socket = self._writer = None
        self.there.clear()
        # Those of the next `joined` are new.
        self._take_ice_servers(self.ice_servers, None)
        if writer is not None:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        if socket is not None:
            await socket.close()

    async def _write(self, socket: ClientConnection) -> None:
        # receive() sees it as well.
        with suppress(ConnectionClosed):
            while True:
                while self._outgoing:
                    text, counts = self._next_outgoing()
                    if counts:
                        self._sent.append(text)
                    await socket.send(text)
                self._pong_waits = False
                if self._leaving:
                    return
                self._wake_writer.clear()
                await self._wake_writer.wait()

    async def _say(self, socket: ClientConnection, text: str) -> None:
        try:
            await socket.send(text)
        except ConnectionClosed as closed:
            raise error_of_close(closed, self._wanted, self._told) from closed

    async def _hear(self, socket: ClientConnection) -> Message:
        try:
            message = messages.parse_untrusted(await socket.recv())
        except RemoteProtocolError as error:
            raise ServerProtocolError(reason=str(error.fields["reason"])) from error
        except ConnectionClosed as closed:
            raise error_of_close(closed, self._wanted, self._told) from closed
        logger.debug("server < %s", message.type)
        return message


async def _close_soon(socket: ClientConnection, code: int) -> None:
    """Close with a close frame, if it still goes: without, the server would think that we have died."""
    try:
        async with asyncio.timeout(PARTING_TIMEOUT):
            await socket.close(code)
    except TimeoutError:
        socket.transport.abort()
