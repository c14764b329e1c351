"""The REST interface of rooms: make one, ask after one, close it; for the operator, see all of them."""

from __future__ import annotations

from http import HTTPStatus
from math import ceil
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from flyx.errors import InputError, NoSuchRoom
from flyx.server.config import (
    MAX_IDLE_TIMEOUT,
    MAX_MAX_CLIENTS,
    MAX_PERSISTENT_TTL,
    MAX_TTL,
    MIN_IDLE_TIMEOUT,
    MIN_MAX_CLIENTS,
    MIN_TTL,
)
from flyx.server.http.dependencies import HubOfApp, address_of
from flyx.server.http.errors import ApiFailure, bearer, errors, require_token, token_is, unavailable
from flyx.server.limits import Limit, LimitReached
from flyx.server.rooms.store import BudgetSpent, StoreFull
from flyx.signaling.codes import normalise_room_id
from flyx.signaling.config import RoomConfig
from flyx.signaling.messages import ErrorCode
from flyx.signaling.room import Room, RoomStatus

router = APIRouter()
admin = APIRouter()

_DEFAULT_PAGE, _MAX_PAGE = 100, 1000
"""Rooms in one answer of GET /rooms."""

RoomId = Annotated[str, Field(examples=["K7M2QX"], description="Six characters of Crockford's base32.")]
UnixTime = Annotated[float | None, Field(description="Unix time in seconds; null: never.")]


def _whole(value: object) -> object:
    """JSON has one kind of number: 600.0 is 600."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_WHOLE = BeforeValidator(_whole)


class RoomRequest(BaseModel):
    """What may be chosen about a new room; the server's defaults stand for what is left out."""

    # As _only_persistent_rooms_live_long has it.
    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"persistent": {"const": True}}, "required": ["persistent"]},
                {
                    "properties": {
                        "ttl": {"anyOf": [{"type": "null"}, {"type": "integer", "maximum": MAX_TTL}]}
                    }
                },
            ]
        }
    )

    max_clients: Annotated[int | None, Field(ge=MIN_MAX_CLIENTS, le=MAX_MAX_CLIENTS, strict=True), _WHOLE] = (
        None
    )
    ttl: Annotated[
        int | None,
        Field(
            ge=MIN_TTL,
            le=MAX_PERSISTENT_TTL,
            strict=True,
            description="Seconds until the room ends, unless its sender is inside; above "
            f"{MAX_TTL} only if it is persistent.",
        ),
        _WHOLE,
    ] = None
    idle_timeout: Annotated[
        int | None,
        Field(
            ge=MIN_IDLE_TIMEOUT,
            le=MAX_IDLE_TIMEOUT,
            strict=True,
            description="Seconds that the room is kept without anybody inside, unless it is persistent.",
        ),
        _WHOLE,
    ] = None
    persistent: Annotated[
        bool,
        Field(
            strict=True,
            description="The room outlives its sender and waits for the next one. It ends soon if no client "
            "ever enters it.",
        ),
    ] = False

    @model_validator(mode="after")
    def _only_persistent_rooms_live_long(self) -> RoomRequest:
        if self.ttl is not None and self.ttl > MAX_TTL and not self.persistent:
            raise ValueError(f"a ttl above {MAX_TTL} needs persistent")
        return self

    def outlasts(self, default: RoomConfig) -> bool:
        """Tell whether the room would be kept empty for longer than is usual."""
        longer = self.idle_timeout is not None and self.idle_timeout > default.idle_timeout
        return self.persistent or longer

    def config(self, default: RoomConfig, unused_timeout: float) -> RoomConfig:
        """Return what was asked for, completed from what the server has chosen."""
        default_ttl: float | None = MAX_PERSISTENT_TTL if self.persistent else default.ttl
        return RoomConfig(
            max_clients=default.max_clients if self.max_clients is None else self.max_clients,
            ttl=default_ttl if self.ttl is None else self.ttl,
            idle_timeout=default.idle_timeout if self.idle_timeout is None else self.idle_timeout,
            persistent=self.persistent,
            grace=default.grace,
            max_hold=default.max_hold,
            unused_timeout=unused_timeout if self.persistent else None,
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


def _info(room: Room) -> dict[str, object]:
    """Return the fields of a RoomInfo."""
    return {
        "room_id": room.room_id,
        "status": room.status,
        "created_at": room.created_at,
        "expires_at": room.expires_at,
        "persistent": room.config.persistent,
        "has_sender": room.sender is not None,
        "receivers": len(room.receivers),
        "max_clients": room.config.max_clients,
    }


class RoomEntry(RoomInfo):
    """What the operator may know besides."""

    entered: Annotated[bool, Field(description="Whether any client has ever been inside.")]
    empty_since: Annotated[
        float | None, Field(description="Unix time since which nobody is inside; null: somebody is.")
    ]
    creator: Annotated[
        str | None,
        Field(
            description="Address (of IPv6 the network of 64 bits) of the maker of a room that is persistent, "
            "kept for long with nobody inside, or holds places for long; null: of no such room."
        ),
    ]


class RoomList(BaseModel):
    """A page of the server's rooms, by id."""

    rooms: list[RoomEntry]


@router.post(
    "/room",
    status_code=HTTPStatus.CREATED,
    responses=errors(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def create_room(
    request: Request,
    hub: HubOfApp,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    wishes: RoomRequest | None = None,
) -> RoomCreated:
    """Make a room; the first client to connect to it becomes its sender."""
    # In this order, or tokens could be guessed as fast as one likes.
    await hub.admission.rates.create(address_of(request))
    require_token(hub.config.api_token, credentials)
    wishes = wishes or RoomRequest()
    config = wishes.config(hub.config.room, hub.config.unused_timeout)
    creator = address_of(request) if wishes.outlasts(hub.config.room) else None
    try:
        if hub.stopping:
            raise unavailable(ErrorCode.SERVER_STOPPING, "the server is stopping")
        created = await hub.create_room(config, creator=creator)
    except StoreFull as error:
        raise unavailable(ErrorCode.TOO_MANY_ROOMS, "the server has as many rooms as it may have") from error
    except BudgetSpent as error:
        reason = "your address has as many persistent and long-kept rooms as it may have; close one"
        # Those of its rooms that no client has entered have ended by then.
        raise LimitReached(Limit.PERSISTENT, ceil(hub.config.unused_timeout), reason) from error
    room_id = created.room.room_id
    assert created.owner_token is not None
    scheme = "wss" if request.url.scheme == "https" else "ws"
    return RoomCreated(
        room_id=room_id,
        owner_token=created.owner_token,
        expires_at=created.room.expires_at,
        ws_url=str(request.url.replace(scheme=scheme, path=f"/ws/{room_id}", query="")),
    )


# The framework documents 422 for every path with a parameter; so it had better have the right body.
@router.get(
    "/room/{room_id}",
    responses=errors(
        HTTPStatus.NOT_FOUND,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def room_info(request: Request, hub: HubOfApp, room_id: str) -> RoomInfo:
    """Tell whether a room is there and how it stands."""
    address = address_of(request)
    await hub.admission.rates.look(address)
    try:
        room = await hub.find_room(normalise_room_id(room_id))
    except (InputError, NoSuchRoom) as error:
        await hub.admission.rates.miss(address)
        raise _missing() from error
    return RoomInfo.model_validate(_info(room))


def _missing() -> ApiFailure:
    """One answer for an id without a room, an impossible id, and a room of another owner."""
    return ApiFailure(HTTPStatus.NOT_FOUND, ErrorCode.NO_SUCH_ROOM, "there is no such room")


@router.delete(
    "/room/{room_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=errors(
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def close_room(
    request: Request,
    hub: HubOfApp,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    room_id: str,
) -> None:
    """Close a room and tell everybody inside; with its owner token, or the operator's, as `Bearer`."""
    if credentials is None:
        message = "this needs the room's owner token, as Authorization: Bearer"
        raise ApiFailure(
            HTTPStatus.UNAUTHORIZED, ErrorCode.BAD_TOKEN, message, **{"WWW-Authenticate": "Bearer"}
        )
    address = address_of(request)
    await hub.admission.rates.look(address)
    token = credentials.credentials
    is_admin = hub.config.admin_token is not None and token_is(hub.config.admin_token, token)
    try:
        await hub.close_room(normalise_room_id(room_id), None if is_admin else token)
    except (InputError, NoSuchRoom) as error:
        await hub.admission.rates.miss(address)
        raise _missing() from error


@admin.get(
    "/rooms",
    responses=errors(
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def list_rooms(
    request: Request,
    hub: HubOfApp,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    after: Annotated[str, Query(description="The last room id of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = _DEFAULT_PAGE,
) -> RoomList:
    """List the server's rooms; with the operator's token as `Authorization: Bearer`."""
    # Like looking for a room, or the token could be guessed as fast as one likes.
    address = address_of(request)
    await hub.admission.rates.look(address)
    try:
        require_token(hub.config.admin_token, credentials)
    except ApiFailure:
        await hub.admission.rates.miss(address)
        raise
    rooms = await hub.list_rooms(after, limit)
    return RoomList(
        rooms=[
            RoomEntry.model_validate(
                {
                    **_info(room),
                    "entered": room.entered,
                    "empty_since": room.empty_since,
                    "creator": room.creator,
                }
            )
            for room in rooms
        ]
    )
