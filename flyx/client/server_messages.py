"""What a server may send to its client: less than the grammar allows. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flyx.errors import ServerProtocolError
from flyx.signaling.codes import is_room_id
from flyx.signaling.messages import (
    Answer,
    Disconnect,
    IceCandidate,
    IceServer,
    Join,
    JoinData,
    JoinedData,
    Offer,
    Role,
)

MAX_ICE_URLS = 32
MAX_PEERS = 256
"""Of one `joined`: what a flyx server can be told to hand out, and the clients that its rooms can have."""

# A UUID, or what a later version takes instead.
_CLIENT_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_TOKEN = re.compile(r"[!-~]+")
_ICE_URL = re.compile(r"(stun|turn)s?:[!-~]+")
"""RFC 7064 and RFC 7065, as far as it matters here: what the connection cannot use, it leaves out."""


def check_joined(joined: JoinedData, room_id: str | None, role: Role, claim: JoinData | None) -> None:
    """Check that this answers our request: its fields are shown, connected to, and sent when we come back.

    Args:
        joined: as the grammar has it (flyx.signaling.messages).
        room_id: the room that was asked for; None for a new one.
        role: what was asked for.
        claim: what was said to get an earlier place back; None for a new one.

    Raises:
        ServerProtocolError: it does not. The reason never repeats what the server wrote.
    """
    limits = joined.limits
    ids = [joined.client_id, *(peer.client_id for peer in joined.peers)]
    # What can have been taken from us of an earlier session; of a new one nothing.
    resumable = claim is not None and claim.received is not None
    faults = {
        "a room_id that is no room id": not is_room_id(joined.room_id),
        "another room than was asked for": room_id is not None and joined.room_id != room_id,
        "another role than was asked for": joined.role is not role,
        "a client_id that is none": not all(_CLIENT_ID.fullmatch(text) for text in ids),
        "the client_id of somebody else": claim is not None and joined.client_id != claim.client_id,
        "one client_id twice": len(set(ids)) < len(ids),
        "no resume_token that can be used": not _TOKEN.fullmatch(joined.resume_token or ""),
        "a session that was not there": joined.recovered and not resumable,
        "messages that were never sent": joined.received > 0 and not joined.recovered,
        "a time of expiry that is none": not 0 <= (joined.expires_at or 0) < 2**53,
        "peers of the same role": any(peer.role is role for peer in joined.peers),
        "too many peers": len(joined.peers) > (MAX_PEERS if role is Role.SENDER else 1),
        "a token of a tunnel that cannot be used": joined.tunnel is not None
        and not _TOKEN.fullmatch(joined.tunnel.token),
        "limits that let nothing through": limits.max_message_size < 1 or limits.max_clients < 2,
    }
    for fault, there in faults.items():
        if there:
            raise ServerProtocolError(reason=f"its `joined` has {fault}")
    check_ice_servers(joined.ice_servers, "joined")


def check_ice_servers(servers: Sequence[IceServer], kind: str) -> None:
    """Check what the server has our connections ask.

    Args:
        servers: as the grammar has them.
        kind: type of the message that they came in.

    Raises:
        ServerProtocolError: no server can mean that.
    """
    urls = [url for server in servers for url in server.urls]
    credentials = [text for server in servers for text in (server.username, server.credential)]
    faults = {
        "too many ICE servers": len(urls) > MAX_ICE_URLS,
        "the URL of an ICE server that is none": not all(_ICE_URL.fullmatch(url) for url in urls),
        "credentials that are not text": not all((text or "").isprintable() for text in credentials),
    }
    for fault, there in faults.items():
        if there:
            raise ServerProtocolError(reason=f"its `{kind}` has {fault}")


def check_message(message: Join | Offer | Answer | IceCandidate | Disconnect, role: Role) -> None:
    """Check that a server can say this to a client of this role.

    Raises:
        ServerProtocolError: it cannot.
    """
    match message:
        case Join(data=data):
            meant = data.role is not None and data.role is not role
        case Offer():
            meant = role is Role.RECEIVER
        case Answer():
            meant = role is Role.SENDER
        case IceCandidate() | Disconnect():
            meant = True
    if not meant:
        raise ServerProtocolError(reason=f"`{message.type}` to a {role}")
    if not _CLIENT_ID.fullmatch(message.data.client_id):
        raise ServerProtocolError(reason=f"`{message.type}` without the client_id of anybody")
