"""The tunnel: how two clients of a room exchange datagrams through the server, when nothing else is left.

A server that offers it (`flyx serve --relay`) puts a token into `joined`. Each of the two then opens a second
WebSocket, `/relay/{room_id}`, also in the subprotocol `flyx.v1`:

    tunnel          client -> server, the first frame, text
        client_id     text      from `joined`
        peer_id       text      the other one: for a receiver the sender, for the sender a receiver
        token         text      from `joined`

    tunnel          server -> client, text, when the other one is there as well; data is empty

From then on each binary frame is a datagram of 1 to MAX_DATAGRAM_SIZE bytes, either way. It may be lost, as
datagrams may: the server passes on so many bytes a second, keeps 0.15 s of them (and 32 KiB at any rate) and
drops what is beyond. What is in them is the business of the two: STUN and DTLS, as through a TURN server.

When one side goes, the other one's WebSocket is closed. Refusals are `error` and a close code, as everywhere
(flyx.signaling.messages). This module does no I/O.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flyx.errors import RemoteProtocolError
from flyx.signaling.messages import MAX_CLIENT_ID_LENGTH, MAX_MESSAGE_SIZE, ErrorCode, Token

MAX_DATAGRAM_SIZE: Final = 2048
"""Bytes. Datagrams of paths have 1,500 at most, and nobody looks for a larger path MTU here."""

PATH: Final = "/relay"

OPENED: Final = '{"type":"tunnel","data":{}}'
"""What the server says when both sides are there."""


class TunnelClaim(BaseModel):
    """Who wants to exchange datagrams with whom."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    client_id: str = Field(min_length=1, max_length=MAX_CLIENT_ID_LENGTH)
    peer_id: str = Field(min_length=1, max_length=MAX_CLIENT_ID_LENGTH)
    token: Token


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    type: Literal["tunnel"] = "tunnel"
    data: TunnelClaim


def serialize_claim(claim: TunnelClaim) -> str:
    """Return the first frame of a client."""
    return _Message(data=claim).model_dump_json()


def parse_claim_untrusted(text: str) -> TunnelClaim:
    """Return what the first frame of a client says.

    Raises:
        RemoteProtocolError: It is no such frame; `code` is an ErrorCode.
    """
    if len(text) > MAX_MESSAGE_SIZE:
        raise RemoteProtocolError(reason="a message that is too long", code=ErrorCode.MESSAGE_TOO_BIG)
    try:
        return _Message.model_validate_json(text).data
    except ValidationError as error:
        # Its text would repeat what the client wrote.
        reason = "the first message of a tunnel says who it is for"
        raise RemoteProtocolError(reason=reason, code=ErrorCode.BAD_MESSAGE) from error
