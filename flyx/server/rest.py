"""The REST interface: make a room, ask after one, ask after the server.

Every error has the body `{"code": …, "message": …}`, its code from `flyx.signaling.messages.ErrorCode`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, model_validator
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flyx import __version__
from flyx.errors import InputError, NoSuchRoom
from flyx.server.config import (
    MAX_BODY_SIZE,
    MAX_IDLE_TIMEOUT,
    MAX_MAX_CLIENTS,
    MAX_PERSISTENT_TTL,
    MAX_TTL,
    MIN_IDLE_TIMEOUT,
    MIN_MAX_CLIENTS,
    MIN_TTL,
)
from flyx.server.hub import Hub
from flyx.server.limits import LimitReached
from flyx.server.store import StoreFull
from flyx.server.websocket import HubOfApp, address_of
from flyx.signaling.codes import normalise_room_id
from flyx.signaling.messages import ErrorCode
from flyx.signaling.room import RoomConfig, RoomStatus

router = APIRouter()

# Seconds after which a client that was told 503 may try again: rooms come and go within minutes.
_RETRY_AFTER = 30
_FRAMEWORK_CODES: dict[int, ErrorCode] = {
    HTTPStatus.NOT_FOUND: ErrorCode.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED: ErrorCode.METHOD_NOT_ALLOWED,
}

RoomId = Annotated[str, Field(examples=["K7M2QX"], description="Six characters of Crockford's base32.")]
UnixTime = Annotated[float | None, Field(description="Unix time in seconds; null: never.")]


class ApiError(BaseModel):
    """What every error looks like."""

    code: Annotated[str, Field(description="Stable, for programs.")]
    message: Annotated[str, Field(description="A sentence, for people.")]


class RoomRequest(BaseModel):
    """What may be chosen about a new room; the server's defaults stand for what is left out."""

    max_clients: Annotated[int | None, Field(ge=MIN_MAX_CLIENTS, le=MAX_MAX_CLIENTS, strict=True)] = None
    ttl: Annotated[
        int | None,
        Field(
            ge=MIN_TTL,
            le=MAX_PERSISTENT_TTL,
            strict=True,
            description=f"Seconds until the room ends; above {MAX_TTL} only if it is persistent.",
        ),
    ] = None
    idle_timeout: Annotated[
        int | None,
        Field(
            ge=MIN_IDLE_TIMEOUT,
            le=MAX_IDLE_TIMEOUT,
            strict=True,
            description="Seconds that the room is kept without anybody inside, unless it is persistent.",
        ),
    ] = None
    persistent: Annotated[
        bool, Field(strict=True, description="The room outlives its sender and waits for the next one.")
    ] = False

    @model_validator(mode="after")
    def _only_persistent_rooms_live_long(self) -> RoomRequest:
        if self.ttl is not None and self.ttl > MAX_TTL and not self.persistent:
            raise ValueError(f"a ttl above {MAX_TTL} needs persistent")
        return self

    def config(self, default: RoomConfig) -> RoomConfig:
        """Return what was asked for, completed from default."""
        default_ttl: float | None = MAX_PERSISTENT_TTL if self.persistent else default.ttl
        return RoomConfig(
            max_clients=default.max_clients if self.max_clients is None else self.max_clients,
            ttl=default_ttl if self.ttl is None else self.ttl,
            idle_timeout=default.idle_timeout if self.idle_timeout is None else self.idle_timeout,
            persistent=self.persistent,
        )


class RoomCreated(BaseModel):
    """A room of one's own."""

    room_id: RoomId
    owner_token: Annotated[str, Field(description="Secret of the room's owner; it is not shown again.")]
    expires_at: UnixTime
    ws_url: Annotated[str, Field(description="Where the sender and the receivers connect.")]


class RoomInfo(BaseModel):
    """What strangers may know about a room; who is inside is not part of it."""

    room_id: RoomId
    status: Annotated[RoomStatus, Field(description="waiting: without a sender; open: with one.")]
    created_at: float
    expires_at: UnixTime
    persistent: bool
    has_sender: bool
    receivers: Annotated[int, Field(description="Receivers inside.")]
    max_clients: Annotated[int, Field(description="Most clients at a time, the sender included.")]


class ServerStatus(BaseModel):
    """How the server is."""

    version: str
    uptime: Annotated[float, Field(description="Seconds since the start.")]
    rooms: int
    clients: Annotated[int, Field(description="Clients connected to this process.")]


class Health(BaseModel):
    """The process answers."""

    status: str = "ok"


class ApiFailure(HTTPException):
    """An error with a code of its own."""

    def __init__(self, status: HTTPStatus, code: ErrorCode, message: str, **headers: str) -> None:
        super().__init__(status, message, headers)
        self.code = code


def _errors(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    return {int(status): {"model": ApiError, "description": status.phrase} for status in statuses}


@router.post(
    "/room",
    status_code=HTTPStatus.CREATED,
    responses=_errors(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def create_room(request: Request, hub: HubOfApp, wishes: RoomRequest | None = None) -> RoomCreated:
    """Make a room; the first client to connect to it becomes its sender."""
    await hub.door.rates.create(address_of(request))
    config = (wishes or RoomRequest()).config(hub.config.room)
    try:
        if hub.stopping:
            raise _unavailable(ErrorCode.SERVER_STOPPING, "the server is stopping")
        created = await hub.create_room(config)
    except StoreFull as exc:
        raise _unavailable(ErrorCode.TOO_MANY_ROOMS, "the server has as many rooms as it may have") from exc
    room_id = created.room.room_id
    scheme = "wss" if request.url.scheme == "https" else "ws"
    return RoomCreated(
        room_id=room_id,
        owner_token=created.owner_token,
        expires_at=created.room.expires_at,
        ws_url=str(request.url.replace(scheme=scheme, path=f"/ws/{room_id}", query="")),
    )


def _unavailable(code: ErrorCode, message: str) -> ApiFailure:
    return ApiFailure(HTTPStatus.SERVICE_UNAVAILABLE, code, message, **{"Retry-After": str(_RETRY_AFTER)})


# The framework documents 422 for every path with a parameter; so it had better have the right body.
@router.get(
    "/room/{room_id}",
    responses=_errors(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.TOO_MANY_REQUESTS),
)
async def room_info(request: Request, hub: HubOfApp, room_id: str) -> RoomInfo:
    """Tell whether a room is there and how it stands."""
    address = address_of(request)
    await hub.door.rates.look(address)
    try:
        room = await hub.find_room(normalise_room_id(room_id))
    except (InputError, NoSuchRoom) as exc:
        await hub.door.rates.miss(address)
        # One answer for an id that nobody has and one that nobody can have.
        raise ApiFailure(HTTPStatus.NOT_FOUND, ErrorCode.NO_SUCH_ROOM, "there is no such room") from exc
    return RoomInfo(
        room_id=room.room_id,
        status=room.status,
        created_at=room.created_at,
        expires_at=room.expires_at,
        persistent=room.config.persistent,
        has_sender=room.sender is not None,
        receivers=len(room.receivers),
        max_clients=room.config.max_clients,
    )


@router.get("/status")
async def server_status(hub: HubOfApp) -> ServerStatus:
    """Tell the version, the uptime and how much is going on."""
    return ServerStatus(
        version=__version__,
        uptime=hub.clock() - hub.started_at,
        rooms=await hub.room_count(),
        clients=hub.client_count,
    )


@router.get("/healthz")
async def health() -> Health:
    """Answer, and so show that the process is alive; nothing else is looked at."""
    return Health()


class BodyLimit:
    """ASGI middleware: no request body grows past MAX_BODY_SIZE, whatever its headers promise."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        size = 0

        async def receive_bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY_SIZE:
                reason = f"the body has more than {MAX_BODY_SIZE} bytes"
                raise ApiFailure(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ErrorCode.MESSAGE_TOO_BIG, reason)
            return message

        await self._app(scope, receive_bounded, send)


def add_error_handlers(app: FastAPI) -> None:
    """Give every error of app the body of an ApiError."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(LimitReached, _limit_reached)


async def _http_error(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)
    if isinstance(exc, ApiFailure):
        code = exc.code
    else:
        # From the framework; what is not in the table is a body that could not be read.
        code = _FRAMEWORK_CODES.get(exc.status_code, ErrorCode.BAD_REQUEST)
    body = ApiError(code=code, message=exc.detail)
    return JSONResponse(body.model_dump(), exc.status_code, headers=exc.headers)


async def _validation_error(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)
    first = exc.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    body = ApiError(code=ErrorCode.BAD_REQUEST, message=f"{place}: {first['msg']}")
    return JSONResponse(body.model_dump(), HTTPStatus.UNPROCESSABLE_ENTITY)


async def _limit_reached(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, LimitReached)
    hub: Hub = request.app.state.hub
    hub.door.turned_away(exc.limit)
    body = ApiError(code=ErrorCode.RATE_LIMITED, message=f"{exc.reason}; try again in {exc.retry_after} s")
    headers = {"Retry-After": str(exc.retry_after)}
    return JSONResponse(body.model_dump(), HTTPStatus.TOO_MANY_REQUESTS, headers)
