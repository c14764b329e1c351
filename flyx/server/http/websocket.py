"""`WS /ws`, `WS /ws/{room_id}`: from the handshake to the last frame of one client; `WS /relay/{room_id}`.

Refusals come after the handshake, as an `error` message and a close code: a browser cannot read the body of a
refused handshake, nor tell one refusal from another.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import assert_never
from urllib.parse import parse_qsl

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from flyx.errors import InputError, RemoteProtocolError, RoomTaken
from flyx.server.http.dependencies import address_of
from flyx.server.http.errors import ApiError, token_is
from flyx.server.limits import Limit, LimitReached, PairLimits, TokenBucket
from flyx.server.logs import get_logger, room_tag
from flyx.server.rooms.attachment import Attachment
from flyx.server.rooms.hub import Hub
from flyx.server.rooms.store import UNAVAILABLE, BudgetSpent, StoreFull, StoreUnavailable
from flyx.server.transport.connection import WIRE, Connection, Frame, Job
from flyx.server.tunnels import Half, Tunnels
from flyx.signaling.announcements import CLIENT_LEFT
from flyx.signaling.codes import normalise_room_id
from flyx.signaling.messages import (
    SUBPROTOCOL,
    Answer,
    CloseCode,
    Disconnect,
    Error,
    ErrorCode,
    IceCandidate,
    Join,
    Joined,
    Message,
    Offer,
    Paired,
    Ping,
    Pong,
    RefreshIceServers,
    Relayed,
    Role,
    error_message,
    parse_untrusted,
    serialize,
)
from flyx.signaling.refusals import MISSING_ROOM, MISSING_SESSION

log = get_logger("flyx.server.http.websocket")

_PONG = serialize(Pong())
_BEGINS = re.compile(r"/ws(/[^/]+)?|/relay/[^/]+")
_NO_WEBSOCKET = "no WebSocket has come: a proxy in between has to pass the header Upgrade on"
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,3})?", re.ASCII)


class _Refused(Exception):
    """This client is not let into a room."""

    def __init__(
        self, close_code: CloseCode, error_code: ErrorCode, reason: str, retry_after: int | None = None
    ) -> None:
        super().__init__(reason)
        self.close_code = close_code
        self.error_code = error_code
        self.reason = reason
        self.retry_after = retry_after


class WebSockets:
    """ASGI middleware: serves WebSockets, and lets the rest through.

    A WebSocket needs nothing of what the application has for requests, and pays for none of it.
    """

    def __init__(self, app: ASGIApp, hub: Hub) -> None:
        self._app = app
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _BEGINS.fullmatch(scope["path"]):
            body = ApiError(code=ErrorCode.WEBSOCKET_NEEDED, message=_NO_WEBSOCKET).model_dump()
            # RFC 9110 §15.5.22.
            headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
            await JSONResponse(body, HTTPStatus.UPGRADE_REQUIRED, headers)(scope, receive, send)
            return
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        match scope["path"].split("/"):
            case ["", "ws"]:
                await _accept(scope, receive, send)
                await _serve(scope, self._hub, None)
            case ["", "ws", room_text] if room_text:
                await _accept(scope, receive, send)
                await _serve(scope, self._hub, room_text)
            case ["", "relay", room_text] if room_text and self._hub.tunnels is not None:
                await _accept(scope, receive, send)
                await _serve_tunnel(scope, self._hub, self._hub.tunnels, room_text)
            case _:
                await WebSocketClose()(scope, receive, send)


async def _accept(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    subprotocol = SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None
    await send({"type": "websocket.accept", "subprotocol": subprotocol})


async def _serve(scope: Scope, hub: Hub, room_text: str | None) -> None:
    connection = Connection(
        scope["extensions"][WIRE],
        max_queue_size=hub.config.max_queue_size,
        close_timeout=hub.config.close_timeout,
    )
    request = HTTPConnection(scope)
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    session = _Session(hub, connection, address_of(request), token)

    async def enter() -> None:
        hub.connect(connection)
        try:
            _check_subprotocol(scope["subprotocols"])
            await session.begin(room_text, _wishes(scope["query_string"]))
        except _Refused as error:
            hub.metrics.join_ended(error.error_code)
            connection.close(error.close_code, error.error_code, error.reason, error.retry_after)

    await connection.run(session, enter())


async def _serve_tunnel(scope: Scope, hub: Hub, tunnels: Tunnels, room_text: str) -> None:
    connection = Connection(
        scope["extensions"][WIRE],
        max_queue_size=hub.config.max_queue_size,
        close_timeout=hub.config.close_timeout,
    )
    address = address_of(HTTPConnection(scope))
    half = Half(tunnels, connection, room_text, address)

    async def enter() -> None:
        try:
            _check_subprotocol(scope["subprotocols"])
            await hub.admission.rates.join(address)
            half.begin()
        except _Refused as error:
            half.refuse(error.close_code, error.error_code, error.reason)
        except LimitReached as error:
            hub.admission.rejected(error.limit)
            reason = f"{error.reason}; try again in {error.retry_after} s"
            half.refuse(CloseCode.TOO_MANY_REQUESTS, ErrorCode.RATE_LIMITED, reason)

    await connection.run(half, enter())


def _check_subprotocol(offered: list[str]) -> None:
    if offered and SUBPROTOCOL not in offered:
        reason = f"this server speaks only {SUBPROTOCOL}"
        raise _Refused(CloseCode.BAD_MESSAGE, ErrorCode.UNSUPPORTED_PROTOCOL, reason)


@dataclass(frozen=True, slots=True)
class _Wishes:
    """The query of the URL: what the client wants to be, or that it was here before.

    Attributes:
        new_room_id: what the room that it creates is to be called; None: nothing is said of that.
    """

    role: Role | None
    resume: bool
    hold: float
    new_room_id: str | None


_NO_WISHES = _Wishes(None, resume=False, hold=0.0, new_room_id=None)


def _wishes(query_string: bytes) -> _Wishes:
    if not query_string:
        return _NO_WISHES
    # Of what is said twice, the last counts.
    query = dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True))
    if query.get("resume") not in (None, "1"):
        raise _Refused(CloseCode.BAD_MESSAGE, ErrorCode.BAD_REQUEST, "resume must be 1")
    hold = query.get("hold", "0")
    if not _SECONDS.fullmatch(hold):
        raise _Refused(CloseCode.BAD_MESSAGE, ErrorCode.BAD_REQUEST, "hold must be a number of seconds")
    room, text = query.get("room"), query.get("role")
    try:
        new_room_id = None if room is None else normalise_room_id(room)
        role = None if text is None else Role(text)
    except InputError as error:
        reason = "room must be six characters of Crockford's base32"
        raise _Refused(CloseCode.BAD_MESSAGE, ErrorCode.BAD_REQUEST, reason) from error
    except ValueError as error:
        reason = "role must be sender or receiver"
        raise _Refused(CloseCode.BAD_MESSAGE, ErrorCode.BAD_REQUEST, reason) from error
    return _Wishes(role, "resume" in query, float(hold), new_room_id)


class _Session:
    """What one connection does here: enter one room or come back to it, talk in it, leave it."""

    def __init__(self, hub: Hub, connection: Connection, address: str, token: str) -> None:
        """Args:
        hub: all the rooms.
        connection: the client.
        address: what its address counts as.
        token: what it says to be the token for making rooms; empty if it says nothing.
        """
        self._hub = hub
        self._connection = connection
        self._address = address
        self._token = token
        self._log = log
        self._bad_messages = 0
        self._loop = asyncio.get_running_loop()
        limits = hub.config.limits
        self._bucket = TokenBucket(limits.message_rate, limits.message_burst, self._loop.time())
        # Set while we wait for the client to say who it is: the room that it was in, and the end of patience.
        self._expected_in: str | None = None
        self._patience: asyncio.TimerHandle | None = None
        # Set when the client is inside.
        self._attachment: Attachment | None = None

    async def begin(self, room_text: str | None, wishes: _Wishes) -> None:
        """Join the room that room_text names, or a new one if it is None; or wait for a client that resumes.

        Raises:
            _Refused: Before any room was asked. A room's own refusal closes the connection by itself.
        """
        rates = self._hub.admission.rates
        try:
            if room_text is None and not wishes.resume:
                await rates.create(self._address)
                self._check_token()
                if wishes.new_room_id is not None:
                    # Whether the id was free tells who guesses as much as a look for the room, and most are.
                    await rates.look(self._address)
                    await rates.miss(self._address)
            else:
                await rates.join(self._address)
                await rates.look(self._address)
        except LimitReached as error:
            self._hub.admission.rejected(error.limit)
            reason = f"{error.reason}; try again in {error.retry_after} s"
            raise _Refused(
                CloseCode.TOO_MANY_REQUESTS, ErrorCode.RATE_LIMITED, reason, error.retry_after
            ) from error
        if wishes.resume:
            self._expect(room_text)
            return
        room_id = await self._create(wishes) if room_text is None else await self._find(room_text)
        attachment = await self._hub.enter(
            self._connection, room_id, wishes.role, self._address, hold=wishes.hold
        )
        await self._attached(attachment)

    async def _attached(self, attachment: Attachment | None) -> None:
        refusal = self._connection.closed_for
        self._hub.metrics.join_ended(refusal)
        if attachment is not None:
            self._attachment = attachment
            self._log = log.bind(client=attachment.client_id[:8], room=room_tag(attachment.room_id))
            self._log.info("client connected")
        elif refusal in (ErrorCode.NO_SUCH_ROOM, ErrorCode.NO_SUCH_SESSION):
            await self._hub.admission.rates.miss(self._address)

    def _limits_of(self, attachment: Attachment, now: float) -> tuple[PairLimits, ...]:
        """Return what counts what a client says; all of it has to grant it."""
        book = self._hub.pairs
        own = book.of_client(attachment.client_id, now)
        if attachment.role is Role.SENDER:
            return (own,)
        return own, book.of_address(attachment.room_id, self._address, self._hub.config.room.max_clients, now)

    def _expect(self, room_text: str | None) -> None:
        if room_text is None:
            reason = "only a client of a room can resume: /ws/{room_id}?resume=1"
            raise _Refused(CloseCode.BAD_MESSAGE, ErrorCode.BAD_REQUEST, reason)
        self._expected_in = room_text
        reason = "the client did not say who it is"
        self._patience = self._loop.call_later(
            self._hub.config.join_timeout,
            self._connection.close,
            CloseCode.TIMED_OUT,
            ErrorCode.JOIN_TIMEOUT,
            reason,
        )

    async def _resume(self, room_text: str, message: Message) -> None:
        if isinstance(message, Ping):
            self._connection.send(_PONG)
            return
        self._cease_waiting()
        if not isinstance(message, Join) or message.data.resume_token is None:
            reason = "the first message of a client that resumes is join, with its resume_token"
            self._connection.close(CloseCode.BAD_MESSAGE, ErrorCode.UNEXPECTED_TYPE, reason)
            return
        attachment = None
        try:
            room_id = normalise_room_id(room_text)
        except InputError:
            refusal = MISSING_SESSION
            self._connection.close(refusal.close_code, refusal.error_code, refusal.reason)
        else:
            attachment = await self._hub.resume(self._connection, room_id, message.data)
        await self._attached(attachment)

    def _cease_waiting(self) -> None:
        self._expected_in = None
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _check_token(self) -> None:
        wanted = self._hub.config.api_token
        if wanted is not None and not token_is(wanted, self._token):
            reason = "making rooms here needs the token of the server (--api-token)"
            raise _Refused(CloseCode.NOT_ALLOWED, ErrorCode.BAD_TOKEN, reason)

    async def _create(self, wishes: _Wishes) -> str:
        if wishes.role is Role.RECEIVER:
            reason = "who creates a room is its sender"
            raise _Refused(CloseCode.NOT_ALLOWED, ErrorCode.WRONG_ROLE, reason)
        config = self._hub.config.room
        # For longer than an empty room is kept, places are held in a few rooms of each address.
        creator = self._address if wishes.hold > config.idle_timeout else None
        create = partial(self._hub.create_room, config, owned=False, wanted_id=wishes.new_room_id)
        try:
            try:
                created = await create(creator=creator)
            except BudgetSpent:
                created = await create()
        except RoomTaken as error:
            reason = "another room has this id"
            raise _Refused(CloseCode.NOT_ALLOWED, ErrorCode.ROOM_TAKEN, reason) from error
        except StoreFull as error:
            reason = "the server has as many rooms as it may have"
            raise _Refused(CloseCode.TRY_AGAIN_LATER, ErrorCode.TOO_MANY_ROOMS, reason) from error
        except StoreUnavailable as error:
            raise _Refused(CloseCode.TRY_AGAIN_LATER, ErrorCode.UNAVAILABLE, UNAVAILABLE) from error
        return created.room.room_id

    async def _find(self, room_text: str) -> str:
        try:
            return normalise_room_id(room_text)
        except InputError as error:
            await self._hub.admission.rates.miss(self._address)
            raise _Refused(MISSING_ROOM.close_code, MISSING_ROOM.error_code, MISSING_ROOM.reason) from error

    def handle(self, frame: Frame) -> Job | None:
        """Act on one frame; return what has to be waited for, if anything."""
        now = self._loop.time()
        if not self._bucket.take(now):
            self._hub.admission.rejected(Limit.MESSAGES)
            reason = "more messages than one client may send"
            self._connection.close(CloseCode.TOO_MANY_REQUESTS, ErrorCode.RATE_LIMITED, reason)
            return None
        if isinstance(frame, bytes):
            self._complain(ErrorCode.BINARY_MESSAGE, "messages are text frames")
            return None
        try:
            message = parse_untrusted(frame, "" if self._attachment is None else self._attachment.client_id)
        except RemoteProtocolError as error:
            self._complain(ErrorCode(str(error.fields["code"])), str(error.fields["reason"]))
            return None
        self._hub.metrics.messages[message.type] += 1
        if self._expected_in is not None:
            return self._resume(self._expected_in, message)
        match message:
            case Offer() | Answer() | IceCandidate() | Paired():
                # Without an attachment it has been refused, and is being told.
                if self._attachment is None:
                    return None
                if self._may_relay(self._attachment, message, now):
                    return self._hub.relay(self._attachment, message)
                self._attachment.count()
            case RefreshIceServers(data=data) if not data.ice_servers:
                if self._attachment is not None:
                    servers = self._hub.ice_servers(self._attachment.client_id)
                    self._connection.send(serialize(RefreshIceServers(data=servers)))
            case Ping():
                self._connection.send(_PONG)
            case Pong():
                pass
            case Disconnect():
                if message.data.outcome is not None:
                    self._hub.metrics.transfer_ended(message.data.outcome)
                self._connection.leave(message.data.reason or CLIENT_LEFT)
            case Join() if message.data.role is None:
                self._complain(ErrorCode.UNEXPECTED_TYPE, "join resumes a session, as the first message")
            case Joined() | Join() | RefreshIceServers() | Error():
                self._complain(ErrorCode.UNEXPECTED_TYPE, f"clients do not send {message.type}")
            case _:
                assert_never(message)
        return None

    def _may_relay(self, attachment: Attachment, message: Relayed | Paired, now: float) -> bool:
        if not self._hub.pairs.counting or isinstance(message, Paired):
            return True
        # A receiver has one peer, whatever it writes.
        peer: str | None = None
        members: Collection[str] = ()
        if attachment.role is Role.SENDER:
            members = self._hub.members_of(attachment.room_id)
            if not isinstance(message, Answer):
                peer = message.data.target_id
        if isinstance(message, IceCandidate):
            limit = Limit.CANDIDATES
            granted = all(pairs.trickle(peer, members, now) for pairs in self._limits_of(attachment, now))
        else:
            limit = Limit.OFFERS
            granted = all(pairs.describe(peer, members, now) for pairs in self._limits_of(attachment, now))
        if not granted:
            self._hub.admission.rejected(limit)
            if peer is None or peer in members:
                self._complain(ErrorCode.RATE_LIMITED, f"too many {limit.value} for one peer")
            else:
                # No fault of the client: those to whom it speaks may have left a moment ago, on purpose.
                reason = f"too many {limit.value} for clients that are not here"
                self._connection.send(serialize(error_message(ErrorCode.RATE_LIMITED, reason)))
        return granted

    def _complain(self, code: ErrorCode, reason: str) -> None:
        self._hub.metrics.messages["invalid"] += 1
        self._bad_messages += 1
        if self._bad_messages > self._hub.config.max_bad_messages:
            self._log.info("client closed", reason=ErrorCode.TOO_MANY_ERRORS.value, last=code.value)
            reason = "too many messages that this server cannot use"
            self._connection.close(CloseCode.BAD_MESSAGE, ErrorCode.TOO_MANY_ERRORS, reason)
        else:
            self._connection.send(serialize(error_message(code, reason)))

    async def end(self) -> None:
        """Leave the room, or have the place held. The connection is over, ended by either side."""
        if self._connection.closed_for is ErrorCode.TOO_SLOW:
            self._hub.metrics.slow_consumers += 1
        self._cease_waiting()
        attachment = self._attachment
        if attachment is None:
            return
        farewell = self._connection.farewell
        if self._connection.final:
            await self._hub.leave(attachment, farewell)
        else:
            await self._hub.lose(attachment, farewell, died=self._connection.died)
        self._log.info("client gone", reason=farewell, held=not self._connection.final)

    def gone(self) -> None:
        """The connection is over for good."""
        self._hub.disconnect(self._connection)
