"""Protocol parameters of an association (RFC 9260 §16), and where ours differ and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DTLS_MTU = 1200
"""Bytes of a UDP datagram that every path takes (RFC 8831 §5: PMTU 1200 without discovery)."""


class Congestion(StrEnum):
    """The names of what flyx.sctp.congestion has, in the order to show them in."""

    BBR = "bbr"
    CUBIC = "cubic"


DEFAULT_CONGESTION: Final = Congestion.BBR


@dataclass(frozen=True, slots=True)
class Config:
    """Everything tunable; times in seconds, sizes in bytes.

    Attributes:
        packet_overhead: bytes of a datagram that are not SCTP packet: UDP and IP are not counted, DTLS is.
        initial_packet_size: largest SCTP packet before the path MTU is known.
        max_packet_size: largest SCTP packet ever: a DTLS record holds 2^14 bytes (RFC 9147 §4).
        receive_window: a_rwnd when nothing waits: what is buffered until it is in order and whole. Messages
            that have been delivered do not count: a data channel pushes them, and the application alone knows
            what it has used. Transfers push back by credit (flyx/transfer/receiver.py, WINDOW) and end with a
            sender that exceeds it, so memory is bounded by the two windows together.
        max_message_size: largest message that we take (a=max-message-size).
        streams: streams offered and taken in each direction (RFC 8831 §6.2 asks for all).
        init_retries: Max.Init.Retransmits.
        max_retries: Association.Max.Retrans: T3-rtx expiries in a row, or unanswered stream resets. RFC 9260
            says 10; with an RTO floor below its 1 s, more of them make up about the same time, 55 s: longer
            than what uses the association waits for a peer that is silent.
        sack_delay: SACK.Delay: 200 ms in RFC 9260 §6.2; acknowledgements are what tells us the path's
            round trip, so they wait no longer than 20 ms here.
        sack_every: packets after which a SACK leaves at once. RFC 9260 §6.2 says 2 (SHOULD). Packets that
            came together get as many as if they had not, in one packet: browsers (dcSCTP) answer each with
            4 packets at most, whatever cwnd says, and would never have more than that under way. The end of
            a message waits for no second packet: aiortc sends nothing more before that is acknowledged.
        sack_stretch: seconds between two SACKs, at least, while data comes in order, and fast or in packets
            larger than DTLS_MTU: each costs both sides as much as a dozen packets do.
        sack_stretch_rate: bytes a second that are fast. Who sends a few packets a SACK (RFC 9260 §6.1 D,
            Max.Burst) stays below, and is not held up; nobody does so in packets larger than DTLS_MTU.
        zero_checksum: offer RFC 9653: DTLS authenticates every packet, so CRC32c adds nothing but work.
    """

    packet_overhead: int = 37
    initial_packet_size: int = DTLS_MTU - 37
    max_packet_size: int = 16384
    receive_window: int = 16 << 20
    max_message_size: int = 262144
    streams: int = 65535
    init_retries: int = 8
    max_retries: int = 17
    sack_delay: float = 0.02
    sack_every: int = 2
    sack_stretch: float = 0.001
    sack_stretch_rate: float = 64e6
    zero_checksum: bool = True
