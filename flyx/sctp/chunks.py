"""Chunks and their parameters: RFC 9260 §3.3, RFC 3758 §3, RFC 6525 §4, RFC 4820, RFC 9653.

Each parse_*_untrusted takes a chunk's value, the bytes after its header, and raises only RemoteProtocolError.
Serial numbers here are as on the wire. DATA chunks are missing on purpose: association.py packs and unpacks
them in one go with the common header, since there are thousands of them for each of the others.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import wraps
from typing import ParamSpec, TypeVar

from flyx.errors import RemoteProtocolError
from flyx.sctp.packet import (
    CHUNK_HEADER_SIZE,
    COMMON_HEADER_SIZE,
    serialize_chunk,
    serialize_parameters,
    split_parameters_untrusted,
)
from flyx.sctp.serial import widen


class ChunkType(IntEnum):
    """Chunk types (IANA registry). The two high bits say what those who do not know a type do with it."""

    DATA = 0
    INIT = 1
    INIT_ACK = 2
    SACK = 3
    HEARTBEAT = 4
    HEARTBEAT_ACK = 5
    ABORT = 6
    SHUTDOWN = 7
    SHUTDOWN_ACK = 8
    ERROR = 9
    COOKIE_ECHO = 10
    COOKIE_ACK = 11
    SHUTDOWN_COMPLETE = 14
    RE_CONFIG = 130
    PAD = 132
    FORWARD_TSN = 192


class ParameterType(IntEnum):
    """Parameters of INIT, INIT ACK and RE-CONFIG."""

    HEARTBEAT_INFO = 1
    STATE_COOKIE = 7
    OUTGOING_RESET_REQUEST = 13
    INCOMING_RESET_REQUEST = 14
    RECONFIG_RESPONSE = 16
    ADD_STREAMS_REQUEST = 17
    ZERO_CHECKSUM_ACCEPTABLE = 0x8001
    SUPPORTED_EXTENSIONS = 0x8008
    FORWARD_TSN_SUPPORTED = 0xC000


class CauseCode(IntEnum):
    """Error causes of ABORT and ERROR (RFC 9260 §3.3.10)."""

    STALE_COOKIE = 3
    UNRECOGNIZED_CHUNK_TYPE = 6
    NO_USER_DATA = 9
    USER_INITIATED_ABORT = 12
    PROTOCOL_VIOLATION = 13


ZERO_CHECKSUM_DTLS = 1
"""Error detection method identifier of RFC 9653 §8: DTLS below."""

T_BIT = 1
"""Flag of ABORT and SHUTDOWN COMPLETE: the verification tag is reflected (RFC 9260 §8.5.1)."""

P = ParamSpec("P")
R = TypeVar("R")


def _untrusted(parse: Callable[P, R]) -> Callable[P, R]:
    """Make a parser of the peer's bytes raise RemoteProtocolError and nothing else."""

    @wraps(parse)
    def parse_untrusted(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return parse(*args, **kwargs)
        except (struct.error, IndexError, ValueError) as error:
            raise RemoteProtocolError(reason=f"a malformed SCTP chunk ({parse.__name__})") from error

    return parse_untrusted


@dataclass(frozen=True, slots=True)
class Init:
    """INIT and INIT ACK (RFC 9260 §3.3.2, §3.3.3).

    Attributes:
        cookie: of INIT ACK; None in INIT.
        forward_tsn: it has the parameter of RFC 3758 §3.1.
        extensions: chunk types that the peer knows (RFC 5061 §4.2.7).
        zero_checksum: it accepts packets without a checksum (RFC 9653 §4).
    """

    initiate_tag: int
    a_rwnd: int
    outbound_streams: int
    inbound_streams: int
    initial_tsn: int
    cookie: bytes | None = None
    forward_tsn: bool = False
    zero_checksum: bool = False
    extensions: frozenset[int] = frozenset()

    @property
    def takes_forward_tsn(self) -> bool:
        """Whether messages may be abandoned; pion tells that among its extensions alone."""
        return self.forward_tsn or ChunkType.FORWARD_TSN in self.extensions


_INIT = struct.Struct("!IIHHI")


@_untrusted
def parse_init_untrusted(value: memoryview) -> Init:
    """Parse INIT or INIT ACK; unknown parameters are skipped, as their high bits mostly ask."""
    tag, a_rwnd, outbound, inbound, initial_tsn = _INIT.unpack_from(value)
    cookie = None
    forward_tsn = zero_checksum = False
    extensions: frozenset[int] = frozenset()
    for kind, parameter in split_parameters_untrusted(value[_INIT.size :]):
        match kind:
            case ParameterType.STATE_COOKIE:
                cookie = bytes(parameter)
            case ParameterType.FORWARD_TSN_SUPPORTED:
                forward_tsn = True
            case ParameterType.SUPPORTED_EXTENSIONS:
                extensions = frozenset(parameter)
            case ParameterType.ZERO_CHECKSUM_ACCEPTABLE:
                zero_checksum = struct.unpack_from("!I", parameter)[0] == ZERO_CHECKSUM_DTLS
    if not tag or not outbound or not inbound:
        raise RemoteProtocolError(reason="an INIT without tag or streams")
    return Init(tag, a_rwnd, outbound, inbound, initial_tsn, cookie, forward_tsn, zero_checksum, extensions)


def serialize_init(init: Init) -> bytes:
    """Return INIT, or INIT ACK if there is a cookie."""
    fixed = _INIT.pack(
        init.initiate_tag, init.a_rwnd, init.outbound_streams, init.inbound_streams, init.initial_tsn
    )
    parameters = [(ParameterType.SUPPORTED_EXTENSIONS, bytes(sorted(init.extensions)))]
    if init.forward_tsn:
        parameters.insert(0, (ParameterType.FORWARD_TSN_SUPPORTED, b""))
    if init.zero_checksum:
        parameters.append((ParameterType.ZERO_CHECKSUM_ACCEPTABLE, struct.pack("!I", ZERO_CHECKSUM_DTLS)))
    if init.cookie is None:
        return serialize_chunk(ChunkType.INIT, 0, fixed + serialize_parameters(parameters))
    parameters.append((ParameterType.STATE_COOKIE, init.cookie))
    return serialize_chunk(ChunkType.INIT_ACK, 0, fixed + serialize_parameters(parameters))


@dataclass(frozen=True, slots=True)
class Sack:
    """SACK (RFC 9260 §3.3.4); gap offsets are relative to cumulative_tsn_ack."""

    cumulative_tsn_ack: int
    a_rwnd: int
    gap_ack_blocks: Sequence[tuple[int, int]] = ()
    duplicate_tsns: Sequence[int] = ()


_SACK = struct.Struct("!IIHH")
_SACK_AT = COMMON_HEADER_SIZE + CHUNK_HEADER_SIZE
_SACK_PACKET_SIZE = _SACK_AT + _SACK.size
MAX_GAP_ACK_BLOCKS = 200
"""Gap ack blocks in our SACKs: 800 bytes, which fit every packet. The lowest are told, as first repaired."""

MAX_DUPLICATE_TSNS = 64
"""Duplicates in our SACKs: 256 bytes, which fit beside the gap ack blocks."""


@_untrusted
def parse_sack_untrusted(value: memoryview) -> Sack:
    """Parse SACK. Gap ack blocks come out in order and apart, as RFC 9260 wants but does not demand them."""
    cumulative_tsn_ack, a_rwnd, gap_count, duplicate_count = _SACK.unpack_from(value)
    if not gap_count and not duplicate_count:
        return Sack(cumulative_tsn_ack, a_rwnd)
    numbers = struct.unpack_from(f"!{2 * gap_count}H{duplicate_count}I", value, _SACK.size)
    gaps = list(zip(numbers[0 : 2 * gap_count : 2], numbers[1 : 2 * gap_count : 2], strict=True))
    last = 0
    for start, end in gaps:
        if not last < start <= end:
            gaps = _sorted_gaps(gaps)
            break
        last = end
    return Sack(cumulative_tsn_ack, a_rwnd, gaps, numbers[2 * gap_count :])


def is_told_again(packets: Sequence[bytes], index: int) -> bool:
    """Whether a packet is a SACK alone, without gaps and duplicates, that the SACK in the next one includes.

    So libwebrtc and others answer packets that have come together: with a SACK for each two of them.
    """
    if index + 1 == len(packets):
        return False
    packet, following = packets[index : index + 2]
    if not len(packet) == _SACK_PACKET_SIZE <= len(following) or packet[:8] != following[:8]:
        return False
    if not packet[COMMON_HEADER_SIZE] == following[COMMON_HEADER_SIZE] == ChunkType.SACK:
        return False
    cumulative: int
    cumulative, _, gap_count, duplicate_count = _SACK.unpack_from(packet, _SACK_AT)
    if gap_count or duplicate_count:
        return False
    return widen(_SACK.unpack_from(following, _SACK_AT)[0], cumulative) >= cumulative


def _sorted_gaps(gaps: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return gap ack blocks in order, those that touch as one."""
    tidy: list[tuple[int, int]] = []
    for start, end in sorted(gaps):
        if not 0 < start <= end:
            raise ValueError("a gap ack block of nothing")
        if tidy and start <= tidy[-1][1] + 1:
            tidy[-1] = (tidy[-1][0], max(tidy[-1][1], end))
        else:
            tidy.append((start, end))
    return tidy


def serialize_sack(sack: Sack) -> bytes:
    """Return SACK."""
    gaps, duplicates = sack.gap_ack_blocks, sack.duplicate_tsns
    value = _SACK.pack(sack.cumulative_tsn_ack, sack.a_rwnd, len(gaps), len(duplicates))
    if gaps or duplicates:
        offsets = [offset for gap in gaps for offset in gap]
        value += struct.pack(f"!{len(offsets)}H{len(duplicates)}I", *offsets, *duplicates)
    return serialize_chunk(ChunkType.SACK, 0, value)


@dataclass(frozen=True, slots=True)
class ForwardTsn:
    """FORWARD TSN (RFC 3758 §3.2): all up to here was abandoned; the last (stream, SSN) skipped in each."""

    new_cumulative_tsn: int
    streams: Sequence[tuple[int, int]] = ()


@_untrusted
def parse_forward_tsn_untrusted(value: memoryview) -> ForwardTsn:
    """Parse FORWARD TSN."""
    count = (len(value) - 4) // 4
    numbers = struct.unpack_from(f"!I{2 * count}H", value)
    return ForwardTsn(numbers[0], list(zip(numbers[1::2], numbers[2::2], strict=True)))


def serialize_forward_tsn(forward: ForwardTsn) -> bytes:
    """Return FORWARD TSN."""
    numbers = [number for pair in forward.streams for number in pair]
    value = struct.pack(f"!I{len(numbers)}H", forward.new_cumulative_tsn, *numbers)
    return serialize_chunk(ChunkType.FORWARD_TSN, 0, value)


@dataclass(frozen=True, slots=True)
class OutgoingReset:
    """Outgoing SSN Reset Request (RFC 6525 §4.1): the peer has stopped sending on these streams."""

    request: int
    response: int
    last_tsn: int
    streams: Sequence[int]


@dataclass(frozen=True, slots=True)
class IncomingReset:
    """Incoming SSN Reset Request (RFC 6525 §4.2): the peer wants us to reset these streams of ours."""

    request: int
    streams: Sequence[int]


@dataclass(frozen=True, slots=True)
class ReconfigResponse:
    """Re-configuration Response (RFC 6525 §4.4)."""

    response: int
    result: int


class ReconfigResult(IntEnum):
    """Results of RFC 6525 §4.4."""

    NOTHING_TO_DO = 0
    PERFORMED = 1
    DENIED = 2
    WRONG_SSN = 3
    REQUEST_IN_PROGRESS = 4
    BAD_SEQUENCE_NUMBER = 5
    IN_PROGRESS = 6


ReconfigParameter = OutgoingReset | IncomingReset | ReconfigResponse


@dataclass(frozen=True, slots=True)
class Reconfig:
    """RE-CONFIG (RFC 6525 §3.1). `unknown` has the request numbers of what we do not do, to be denied."""

    parameters: Sequence[ReconfigParameter]
    unknown: Sequence[int] = field(default=())


@_untrusted
def parse_reconfig_untrusted(value: memoryview) -> Reconfig:
    """Parse RE-CONFIG, of one parameter or two (RFC 6525 §3.1)."""
    parameters: list[ReconfigParameter] = []
    unknown: list[int] = []
    for count, (kind, parameter) in enumerate(split_parameters_untrusted(value)):
        if count == 2:
            # Each may name all streams with 16 bytes.
            raise ValueError("more than two parameters")
        match kind:
            case ParameterType.OUTGOING_RESET_REQUEST:
                request, response, last_tsn = struct.unpack_from("!III", parameter)
                parameters.append(OutgoingReset(request, response, last_tsn, _streams(parameter[12:])))
            case ParameterType.INCOMING_RESET_REQUEST:
                (request,) = struct.unpack_from("!I", parameter)
                parameters.append(IncomingReset(request, _streams(parameter[4:])))
            case ParameterType.RECONFIG_RESPONSE:
                parameters.append(ReconfigResponse(*struct.unpack_from("!II", parameter)))
            case _:
                unknown.append(struct.unpack_from("!I", parameter)[0])
    return Reconfig(parameters, unknown)


def _streams(view: memoryview) -> Sequence[int]:
    return struct.unpack(f"!{len(view) // 2}H", view)


def serialize_reconfig(parameters: Iterable[OutgoingReset | ReconfigResponse]) -> bytes:
    """Return RE-CONFIG."""
    bodies = []
    for parameter in parameters:
        match parameter:
            case OutgoingReset(request, response, last_tsn, streams):
                body = struct.pack(f"!III{len(streams)}H", request, response, last_tsn, *streams)
                bodies.append((ParameterType.OUTGOING_RESET_REQUEST, body))
            case ReconfigResponse(response, result):
                bodies.append((ParameterType.RECONFIG_RESPONSE, struct.pack("!II", response, result)))
    return serialize_chunk(ChunkType.RE_CONFIG, 0, serialize_parameters(bodies))


def serialize_abort(cause: CauseCode, text: bytes = b"") -> bytes:
    """Return ABORT with one cause (RFC 9260 §3.3.7)."""
    return serialize_chunk(ChunkType.ABORT, 0, serialize_parameters([(cause, text)]))


def serialize_error(cause: CauseCode, value: bytes) -> bytes:
    """Return ERROR with one cause (RFC 9260 §3.3.10)."""
    return serialize_chunk(ChunkType.ERROR, 0, serialize_parameters([(cause, value)]))


def serialize_pad(size: int) -> bytes:
    """Return PAD (RFC 4820) of this size, its header included; at least four bytes, a multiple of four."""
    return serialize_chunk(ChunkType.PAD, 0, bytes(size - 4))
