"""The tunnel: how two clients of a room exchange datagrams through the server, when nothing else is left.

A server that offers it (`flyx serve --relay`) puts into `joined` a token and `max_datagram_size`, the bytes
that a datagram may have: 2,048 unless it says more. Each of the two then opens a second WebSocket,
`/relay/{room_id}`, also in the subprotocol `flyx.v1`:

    tunnel          client -> server, the first frame, text
        client_id     text      from `joined`
        peer_id       text      the other one: for a receiver the sender, for the sender a receiver
        token         text      from `joined`

    tunnel          server -> client, text, when the other one is there as well; data is empty

From then on each binary frame is a datagram of 1 to `max_datagram_size` bytes, either way. It may be lost, as
datagrams may: the server passes on so many bytes a second, keeps 0.15 s of them (and 32 KiB at any rate) and
drops what is beyond. What is in them is the business of the two: STUN and DTLS, as through a TURN server.

When one side goes, the other one's WebSocket is closed. Refusals are `error` and a close code, as everywhere
(flyx.signaling.messages). This module does no I/O.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta
from msgspec.json import Decoder, encode

from flyx.errors import RemoteProtocolError
from flyx.grammar import MALFORMED, JsonMessage, JsonObject
from flyx.signaling.config import MAX_MESSAGE_SIZE
from flyx.signaling.messages import MAX_CLIENT_ID_LENGTH, ErrorCode, Token

LARGEST_DATAGRAMS: Final = 2048, 16 * 1024
"""The least and the most that `max_datagram_size` ever is. A tunnel has no path MTU, and each datagram costs
every program on the way the same, however large it is; but one must not keep others waiting for long."""

DATAGRAM_TIME: Final = 0.001
"""Seconds of the rate that a datagram takes at most, within LARGEST_DATAGRAMS."""

PATH: Final = "/relay"

OPENED: Final = '{"type":"tunnel","data":{}}'
"""What the server sends when both sides are there."""


def max_datagram_size(rate: float) -> int:
    """Return the bytes that a datagram may have in a tunnel of so many bytes a second."""
    least, most = LARGEST_DATAGRAMS
    return max(least, min(int(rate * DATAGRAM_TIME), most))


_Claimed = Annotated[str, Meta(min_length=1, max_length=MAX_CLIENT_ID_LENGTH)]


class TunnelClaim(JsonObject):
    """Who wants to exchange datagrams with whom."""

    client_id: _Claimed
    peer_id: _Claimed
    token: Token


class _Message(JsonMessage, tag="tunnel"):
    data: TunnelClaim


_DECODER: Final = Decoder(_Message)


def serialize_claim(claim: TunnelClaim) -> str:
    """Return the first frame of a client."""
    return encode(_Message(claim)).decode()


def parse_claim_untrusted(text: str) -> TunnelClaim:
    """Return what the first frame of a client claims.

    Raises:
        RemoteProtocolError: It is no such frame; `code` is an ErrorCode.
    """
    if len(text) > MAX_MESSAGE_SIZE:
        raise RemoteProtocolError(reason="a message that is too long", code=ErrorCode.MESSAGE_TOO_BIG)
    try:
        return _DECODER.decode(text).data
    except MALFORMED as error:
        # Its text would repeat what the client wrote.
        reason = "the first message of a tunnel says who it is for"
        raise RemoteProtocolError(reason=reason, code=ErrorCode.BAD_MESSAGE) from error
