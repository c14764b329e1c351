"""What it means that the server has closed the connection, or has refused it. Pure."""

from __future__ import annotations

from msgspec import Struct
from websockets.exceptions import ConnectionClosed

from flyx.client.websocket import MAX_WANTED_PAUSE
from flyx.errors import (
    ASK_FOR_ANOTHER,
    FlyxError,
    NoSuchRoom,
    RoomFull,
    RoomTaken,
    ServerClosed,
    ServerProtocolError,
    ServerRefused,
    SignalingError,
)
from flyx.signaling.messages import CLOSE_CODES, CloseCode, ErrorCode, ErrorData, Role

_BROKEN = {1002: "it breaks RFC 6455", 1007: "a text frame is not UTF-8", 1009: "a message is too large"}
"""What this side closes a connection with whose other side breaks RFC 6455, or sends what is too large."""


class TryAgain(Exception):
    """There is no connection at the moment; `error` is what that would be called if it were the end."""

    def __init__(self, error: SignalingError) -> None:
        super().__init__()
        self.error = error


class Wanted(Struct, frozen=True):
    """What we asked the server for.

    Attributes:
        url: of the server.
        room_id: None: a new room.
        is_new: the room is to be made.
        role: what we are there.
    """

    url: str
    room_id: str | None
    is_new: bool
    role: Role


def error_of_close(closed: ConnectionClosed, wanted: Wanted, told: ErrorData | None) -> FlyxError | TryAgain:
    """Return what to raise for a connection that was closed.

    Args:
        closed: what websockets says of it.
        wanted: what the connection was for.
        told: the last fatal error that came before; None if none did.
    """
    if closed.sent and not closed.rcvd_then_sent and (broken := _BROKEN.get(closed.sent.code)):
        return ServerProtocolError(reason=broken)
    code = closed.rcvd.code if closed.rcvd else None
    if code == CloseCode.NO_SUCH_ROOM and wanted.is_new:
        # What we have asked for was taken for a room.
        hint = "give the server without /ws and what follows it"
        return ServerRefused(reason=f"no room can be made at {wanted.url}", hint=hint)
    if code == CloseCode.NO_SUCH_ROOM:
        return NoSuchRoom(room_id=wanted.room_id)
    if code == CloseCode.ROOM_FULL:
        return RoomFull(room_id=wanted.room_id)
    if told is not None and told.code == ErrorCode.ROOM_TAKEN and wanted.room_id is not None:
        return RoomTaken(room_id=wanted.room_id)
    meaning = CLOSE_CODES.get(code) if code is not None else None
    reason = told.message if told else (meaning.meaning if meaning else "the connection was lost")
    if meaning is None or meaning.retry:
        error = ServerClosed(reason=reason)
        error.retry_after = min((told.retry_after or 0.0) if told else 0.0, MAX_WANTED_PAUSE)
        return TryAgain(error)
    if code == CloseCode.ROOM_CLOSED:
        is_receiver = wanted.role is Role.RECEIVER
        hint = ASK_FOR_ANOTHER if is_receiver else "run `flyx send` again, for a new code"
        return ServerClosed(reason=reason, hint=hint)
    return ServerRefused(reason=reason)
