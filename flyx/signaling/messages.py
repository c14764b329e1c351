"""The signaling protocol, version 1: every message, its limits, the error codes and the close codes.

A client connects to `/ws/{room_id}` to join a room, or to `/ws` to create one and join it as its sender. The
first client of a room is its sender, later ones are receivers; `?role=sender` or `?role=receiver` insists on
one of the two and is refused rather than given the other. `/ws?room=ID` creates the room of this id, or is
refused if that is taken (`room_taken`, 4401); either way it counts like a look for a room that is not there.
An older server knows nothing of `room` and draws an id. `/ws/{room_id}?resume=1` brings back a client whose
connection was lost: it must say who it is with `join`, its first message, before it hears anything. With
`hold=SECONDS` a client that comes in says how long it wants its place held after its connection was lost, as
it may sleep meanwhile: the server decides (`limits.grace`), and an older one does not know. The WebSocket
subprotocol is `flyx.v1`.

Each message is one text frame of at most 64 KiB holding a JSON object:

    message       = { "type": TYPE, "data": { ... } }

    joined          server -> the client that connected; always the first message
        room_id       text      as the server writes it
        client_id     text      UUID, made by the server
        role          "sender" | "receiver"
        resume_token  text      secret: brings this client back after its connection was lost; new each time
        recovered     bool      true: an earlier session goes on and nothing that was said is lost
        received      int       messages of this client that the server has taken in this session
        expires_at    number | null   Unix time in seconds from which the room is over when it has no sender;
                                null: never
        peers         [ { client_id, role, away?: true } ]   those this client can talk to: a receiver sees
                                the sender only; away: the connection is lost and may come back
        ice_servers   [ { urls: [text], username?: text, credential?: text } ]   as RTCIceServer
        ice_servers_ttl? number   seconds for which the credentials in ice_servers are good: the server
                                answers `ice_servers` with new ones. Absent: they do not end
        tunnel?       { token }     secret: for a tunnel, which this server offers; see flyx.signaling.tunnel
        wants_paired? true      the server wants to hear `paired` of this client, which is the sender
        limits        { max_message_size: bytes, max_clients: int, grace: seconds }
                      grace: how long the place of this client is held after its connection was lost

    join            server -> sender, for each receiver present or arriving
                    server -> receivers, when the sender arrives
        client_id, role
        recovered?    true      it is back and lacks nothing; absent: it is new or has lost messages, and what
                                was agreed with it before is void

    join            client -> server, the first message after ?resume=1 and never else
        client_id     text      from `joined`
        resume_token  text      the newest one
        received?     int       messages that the client has taken in this session

    offer           sender -> receivers
        client_id     text      the speaker: written by the server over whatever the client put there
        sdp           text
        target_id?    text      one receiver; absent: all of them

    answer          receiver -> sender
        client_id, sdp

    ice_candidate   either way; from a receiver always to the sender
        client_id
        candidate     { candidate, sdpMid?, sdpMLineIndex?, usernameFragment? } | null   null: no more follow
        target_id?    text      one receiver; absent: all of them

    paired          sender -> server, if `joined` said wants_paired
        target_id?    text      a receiver that has shown that it belongs here: it keeps its place also when
                                the room is full. Absent: from now on, the sender tells of each one

    ice_servers     client -> server, if `joined` had ice_servers_ttl; data is empty
                    server -> client, the answer
        ice_servers, ice_servers_ttl?   as in `joined`

    disconnect      client -> server, to leave; server -> its peers, when a client has gone
        client_id
        reason        text      for people
        away?         true      only its connection is lost: it may come back, which is told by `join`, or
                                not, which is told by another `disconnect`
        outcome?      "direct" | "relayed" | "failed"   from a receiver, for the server's statistics: how its
                                transfer went, and whether through a TURN server

    ping, pong      either way; data is empty. A ping is answered with a pong
    error           server -> client
        code          text      see ErrorCode; a client meets unknown ones calmly
        message       text      a sentence for people
        fatal         bool      true: a close frame follows
        retry_after?  number    seconds after which it may be asked again

A session begins with a `joined` that says `recovered: false`. From there both sides count what they take of
offer, answer and ice_candidate, the server of paired and the client of join and disconnect; what was answered
with `error` counts, what was no message does not. A client that comes back says how many it has taken. Where
the server has kept the rest, it says `recovered: true` and sends it at once, and the client sends again what
comes after `received`. Otherwise it says `recovered: false`, the count starts anew, and `join` follows for
each peer as on the first day. It is the same without `received`.

A room that is full takes a further receiver in the place of one that has not paired, if its sender tells who
has; flyx.signaling.places says which one. That one is closed with 4413.

A close frame with 1000 is a goodbye like `disconnect`: the client's place is free at once. Any other end of
its connection leaves the place held for `grace` seconds - or for the server's own grace time, if TCP ends
without a close frame while pings are answered, as when a program dies. An older connection that is still open
when its client comes back is closed with 4409.

Unknown fields are ignored. An unknown type or a malformed message is answered with `error`, and too many of
them with a close.

This module does no I/O. Text from the other side goes through `parse_untrusted` and nowhere else.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated, Final

from msgspec import Meta, Struct
from msgspec.json import Decoder, encode
from msgspec.structs import force_setattr

from flyx.errors import RemoteProtocolError
from flyx.grammar import MALFORMED, JsonMessage, JsonObject, fault_in, is_json, written
from flyx.signaling.config import MAX_MESSAGE_SIZE

SUBPROTOCOL: Final = "flyx.v1"

MAX_SDP_SIZE: Final = 60 * 1024
"""Bytes of JSON in UTF-8. Leaves room for what the server adds: a message that may be sent can be relayed."""

MAX_CLIENT_ID_LENGTH: Final = 64
MAX_REASON_LENGTH: Final = 200
MAX_TOKEN_LENGTH: Final = 256
"""Characters. A UUID has 36; later versions may choose something longer."""


class Role(StrEnum):
    """What a client is in its room."""

    SENDER = "sender"
    RECEIVER = "receiver"


class Outcome(StrEnum):
    """How a transfer went, in the words of its receiver."""

    DIRECT = "direct"  # complete, over a path between the two
    RELAYED = "relayed"  # complete, over a TURN server
    FAILED = "failed"  # not complete, or not connected


class ErrorCode(StrEnum):
    """The stable `code` of an `error` message and of an HTTP error body."""

    BAD_JSON = "bad_json"  # not UTF-8, or not JSON
    BAD_MESSAGE = "bad_message"  # JSON, but not as the grammar has it
    BAD_REQUEST = "bad_request"  # an HTTP body or a query parameter that cannot be used
    BAD_TOKEN = "bad_token"  # noqa: S105  # the code of an HTTP request without the token that it needs
    BINARY_MESSAGE = "binary_message"  # only text frames carry messages
    DISPLACED = "displaced"  # the room is full, and it had waited longest without pairing
    FORBIDDEN_HOST = "forbidden_host"  # the request names a host that this server is not
    FORBIDDEN_ORIGIN = "forbidden_origin"  # a web page from elsewhere
    JOIN_TIMEOUT = "join_timeout"  # came to resume and sent no join
    MESSAGE_TOO_BIG = "message_too_big"
    METHOD_NOT_ALLOWED = "method_not_allowed"  # an HTTP path that does not take this method
    NO_SUCH_PEER = "no_such_peer"  # no client in the room to which the message could go
    NO_SUCH_ROOM = "no_such_room"
    NO_SUCH_SESSION = "no_such_session"  # nothing to resume: place or room are gone, or the token is bad
    NOT_FOUND = "not_found"  # an HTTP path that leads nowhere
    REPLACED = "replaced"  # a newer connection of the same client
    RATE_LIMITED = "rate_limited"  # too much from this client or its address; later again
    REQUEST_TIMEOUT = "request_timeout"  # a request that did not come to its end
    ROLE_TAKEN = "role_taken"  # asked to be the sender of a room that has one
    RESYNC = "resync"  # messages between servers were lost: what the client knows may be out of date
    ROOM_CLOSED = "room_closed"  # its sender left, or its owner closed it
    ROOM_EXPIRED = "room_expired"  # it grew too old
    ROOM_FULL = "room_full"
    ROOM_TAKEN = "room_taken"  # asked to create a room under an id that another one has
    SERVER_STOPPING = "server_stopping"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    TOO_MANY_ERRORS = "too_many_errors"
    TOO_MANY_ROOMS = "too_many_rooms"
    TOO_SLOW = "too_slow"  # messages for this client piled up
    UNAVAILABLE = "unavailable"  # the server cannot do it at the moment; later again
    UNEXPECTED_TYPE = "unexpected_type"  # a type that only the server sends
    UNKNOWN_TYPE = "unknown_type"
    UNSUPPORTED_PROTOCOL = "unsupported_protocol"
    WEBSOCKET_NEEDED = "websocket_needed"  # a request where WebSockets begin, as by a proxy without them
    WRONG_ROLE = "wrong_role"  # an offer by a receiver, an answer by the sender


class CloseCode(IntEnum):
    """WebSocket close codes that the server sends on purpose; CLOSE_CODES has what each one asks for."""

    NORMAL = 1000
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_MESSAGE = 4400
    NOT_ALLOWED = 4401
    NO_SUCH_ROOM = 4404
    TIMED_OUT = 4408
    REPLACED = 4409
    ROOM_CLOSED = 4410
    ROOM_FULL = 4413
    TOO_MANY_REQUESTS = 4429


class CloseMeaning(Struct, frozen=True):
    """What a close code tells a client.

    Attributes:
        code: the code itself; its name is the one to show.
        retry: True: connecting again, after a pause, may work. False: final.
        meaning: a clause for people.
    """

    code: CloseCode
    retry: bool
    meaning: str


CLOSE_CODES: Final[dict[int, CloseMeaning]] = {
    row.code: row
    for row in (
        CloseMeaning(CloseCode.NORMAL, False, "the client had said that it leaves"),
        CloseMeaning(CloseCode.SERVICE_RESTART, True, "the server is stopping or restarting"),
        CloseMeaning(CloseCode.TRY_AGAIN_LATER, True, "the server has no room for more at the moment"),
        CloseMeaning(CloseCode.BAD_MESSAGE, False, "the client does not speak this protocol"),
        CloseMeaning(CloseCode.NOT_ALLOWED, False, "the client may not do this here"),
        CloseMeaning(CloseCode.NO_SUCH_ROOM, False, "there is no such room, or no sender in it"),
        CloseMeaning(CloseCode.TIMED_OUT, True, "the client was too slow to answer or to read"),
        CloseMeaning(CloseCode.REPLACED, False, "a newer connection of the same client took its place"),
        CloseMeaning(CloseCode.ROOM_CLOSED, False, "the room is closed: its sender left, or it grew too old"),
        CloseMeaning(CloseCode.ROOM_FULL, False, "the room is full, or the client made way for another"),
        CloseMeaning(CloseCode.TOO_MANY_REQUESTS, True, "the client asks too often"),
    )
}


def encoded_size(text: str) -> int:
    """Return the bytes that text takes as UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _check_sdp(sdp: str) -> None:
    # As it stands between quotes in JSON: the end of a line takes two bytes, a control character six.
    if len(sdp) * 6 > MAX_SDP_SIZE and len(encode(sdp)) - 2 > MAX_SDP_SIZE:
        raise ValueError(f"longer than {MAX_SDP_SIZE} bytes")


# That of a speaker is empty until the server writes it: a client need not say who it is, and is not believed.
ClientId = Annotated[str, Meta(max_length=MAX_CLIENT_ID_LENGTH)]
Sdp = Annotated[str, Meta(min_length=1)]
Natural = Annotated[int, Meta(ge=0)]
# Within what a double holds: JavaScript counts in those.
Count = Annotated[int, Meta(ge=0, le=2**53)]
Token = Annotated[str, Meta(min_length=1, max_length=MAX_TOKEN_LENGTH)]
Seconds = Annotated[float, Meta(ge=0)]


class Peer(JsonObject):
    """Another client in the room; away: its connection is lost and its place is held."""

    client_id: ClientId
    role: Role
    away: bool = False


class IceServer(JsonObject):
    """A STUN or TURN server, in the form of the browsers' RTCIceServer."""

    urls: Annotated[tuple[Annotated[str, Meta(max_length=512)], ...], Meta(max_length=16)]
    username: Annotated[str, Meta(max_length=512)] | None = None
    credential: Annotated[str, Meta(max_length=512)] | None = None


class Limits(JsonObject):
    """What the server puts up with, so that clients need not find out by trying.

    Attributes:
        max_message_size: bytes of a message as UTF-8.
        max_clients: clients of this room, its sender included.
        grace: seconds for which the place of this client is held after its connection was lost.
    """

    max_message_size: Natural
    max_clients: Natural
    grace: Seconds = written(0.0)


class Tunnel(JsonObject):
    """What a client needs for a tunnel (flyx.signaling.tunnel)."""

    token: Token
    # Every server takes as much, also one that does not say so.
    max_datagram_size: Annotated[int, Meta(ge=2048)] = written(2048)


IceServers = Annotated[tuple[IceServer, ...], Meta(max_length=16)]
IceServersTtl = Annotated[float, Meta(gt=0)] | None


class IceServersData(JsonObject):
    """Of the server's `ice_servers`, and of the client's, which has none.

    Attributes:
        ice_servers: what a connection may ask.
        ice_servers_ttl: seconds for which their credentials are good; None: they do not end.
    """

    ice_servers: IceServers = written(())
    ice_servers_ttl: IceServersTtl = None


NO_ICE_SERVERS: Final = IceServersData()


class JoinedData(JsonObject, kw_only=True):
    room_id: Annotated[str, Meta(max_length=64)]
    client_id: ClientId
    role: Role
    resume_token: Token | None = written(None)
    recovered: bool = written(False)
    received: Count = written(0)
    expires_at: float | None = written(None)
    peers: Annotated[tuple[Peer, ...], Meta(max_length=1024)] = written(())
    ice_servers: IceServers = written(())
    ice_servers_ttl: IceServersTtl = None
    tunnel: Tunnel | None = None
    wants_paired: bool = False
    limits: Limits


class JoinData(JsonObject):
    """Of the server's `join`, with a role, or of the client's, with a token."""

    client_id: ClientId
    role: Role | None = None
    recovered: bool = False
    resume_token: Token | None = None
    received: Count | None = None

    def __post_init__(self) -> None:
        if (self.role is None) == (self.resume_token is None):
            raise ValueError("either role or resume_token")


class OfferData(JsonObject, kw_only=True):
    client_id: ClientId = ""
    sdp: Sdp
    target_id: ClientId | None = None

    def __post_init__(self) -> None:
        _check_sdp(self.sdp)


class AnswerData(JsonObject, kw_only=True):
    client_id: ClientId = ""
    sdp: Sdp

    def __post_init__(self) -> None:
        _check_sdp(self.sdp)


class IceCandidateInit(JsonObject):
    """The browsers' RTCIceCandidateInit; an empty candidate ends one generation of candidates."""

    candidate: Annotated[str, Meta(max_length=2048)]
    sdp_mid: Annotated[str, Meta(max_length=64)] | None = written(None, name="sdpMid")
    sdp_m_line_index: Annotated[int, Meta(ge=0, le=65535)] | None = written(None, name="sdpMLineIndex")
    # RFC 8839 §5.4: an ice-ufrag has at most 256 characters.
    username_fragment: Annotated[str, Meta(max_length=256)] | None = written(None, name="usernameFragment")


class IceCandidateData(JsonObject, kw_only=True):
    client_id: ClientId = ""
    candidate: IceCandidateInit | None
    target_id: ClientId | None = None


class PairedData(JsonObject):
    target_id: ClientId | None = None


class DisconnectData(JsonObject):
    client_id: ClientId = ""
    reason: Annotated[str, Meta(max_length=MAX_REASON_LENGTH)] = written("")
    away: bool = False
    outcome: Outcome | None = None


class ErrorData(JsonObject):
    """`code` is text and not ErrorCode: a client may be older than its server."""

    code: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=500)]
    fatal: bool
    retry_after: Seconds | None = None


class NoData(JsonObject):
    """The data of a message whose type is all of it."""


class Joined(JsonMessage, tag="joined"):
    """Server to a client: you are in."""

    data: JoinedData


class Join(JsonMessage, tag="join"):
    """Server to a client: somebody to talk to is here. Client to server: it is me again."""

    data: JoinData


class Offer(JsonMessage, tag="offer"):
    """Sender to receivers."""

    data: OfferData


class Answer(JsonMessage, tag="answer"):
    """Receiver to sender."""

    data: AnswerData


class IceCandidate(JsonMessage, tag="ice_candidate"):
    """Either way, between a sender and its receivers."""

    data: IceCandidateData


class Paired(JsonMessage, tag="paired"):
    """Sender to server: this receiver belongs here."""

    data: PairedData = written(PairedData())


class RefreshIceServers(JsonMessage, tag="ice_servers"):
    """Client to server: give me newer credentials. Server to the client: here they are."""

    data: IceServersData = written(NO_ICE_SERVERS)


class Disconnect(JsonMessage, tag="disconnect"):
    """Client to server: I leave. Server to a client: a peer has gone."""

    data: DisconnectData = written(DisconnectData())


class Ping(JsonMessage, tag="ping"):
    """Are you there? For those who cannot see WebSocket pings."""

    data: NoData = written(NoData())


class Pong(JsonMessage, tag="pong"):
    """Yes."""

    data: NoData = written(NoData())


class Error(JsonMessage, tag="error"):
    """Server to a client: this did not work."""

    data: ErrorData


Relayed = Offer | Answer | IceCandidate

Message = (
    Joined
    | Join
    | Offer
    | Answer
    | IceCandidate
    | Paired
    | RefreshIceServers
    | Disconnect
    | Ping
    | Pong
    | Error
)

_DECODER: Final = Decoder[Message](Message)


def error_message(
    code: ErrorCode, message: str, *, fatal: bool = False, retry_after: float | None = None
) -> Error:
    """Return the `error` that tells a client, in a sentence, what did not work."""
    return Error(data=ErrorData(code=code, message=message, fatal=fatal, retry_after=retry_after))


def serialize(message: Message) -> str:
    """Return message as the text of one frame."""
    return encode(message).decode()


def parse_untrusted(text: str | bytes, speaker: str = "") -> Message:
    """Return the message that a frame from the other side holds.

    Args:
        text: the frame.
        speaker: for the server: who says it, put over what an offer, an answer or a candidate itself says of
            that. A room still makes sure, and need not write it again.

    Raises:
        RemoteProtocolError: It holds none. The field `code` is the ErrorCode to answer with; the text never
            repeats what the frame held.
    """
    try:
        size = len(text) if isinstance(text, bytes) or text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        raise _refusal(ErrorCode.BAD_JSON, "the message is not Unicode") from error
    if size > MAX_MESSAGE_SIZE:
        raise _refusal(ErrorCode.MESSAGE_TOO_BIG, f"the message has more than {MAX_MESSAGE_SIZE} bytes")
    try:
        message = _DECODER.decode(text)
    except MALFORMED as error:
        raise _refusal(*_explain(text, error)) from error
    if speaker and isinstance(message, Relayed):
        # Nobody else has seen it yet.
        force_setattr(message.data, "client_id", speaker)
    return message


def _explain(text: str | bytes, error: Exception) -> tuple[ErrorCode, str]:
    place, fault = fault_in(error)
    # The decoder stops at the first thing that breaks the grammar, whatever follows.
    if not is_json(text):
        return ErrorCode.BAD_JSON, "the message is not JSON"
    if place == "type":
        return ErrorCode.UNKNOWN_TYPE, "the message has a type that this version does not know"
    return ErrorCode.BAD_MESSAGE, f"{place or 'the message'}: {fault}"


def _refusal(code: ErrorCode, reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(code=code, reason=reason)
