"""What the association and a congestion controller tell each other.

A controller owns two numbers: cwnd, how many bytes may be in flight, and pacing_rate, how fast they may
leave. The association owns everything else: it counts what is delivered, takes delivery-rate samples
(draft-ietf-ccwg-bbr, "Delivery Rate Sampling"), detects loss by time (RACK) and tells what happened once per
SACK or per burst, never per packet. Bytes are bytes of DATA chunks; times are monotonic seconds. No clock and
no randomness of its own: a controller that wants randomness is given a source of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class AckSample:
    """What one SACK has told.

    Attributes:
        acked: bytes newly acknowledged, by cumulative ack or gap blocks.
        lost: bytes newly declared lost while handling this SACK.
        delivered: bytes delivered over the connection's life, this SACK included (C.delivered).
        prior_delivered: the same when the newest of the newly acked packets was sent (P.delivered); decides
            whether a round trip has gone by.
        delivery_rate: bytes a second over the sample's interval; None if no valid sample could be taken.
        is_app_limited: the sample's packets were sent while the application had too little to send.
        rtt: seconds, of the newest acked packet that was sent only once; None if there was none.
        tx_in_flight: bytes in flight right after the newest acked packet was sent (P.tx_in_flight).
        lost_since: bytes declared lost since that packet was sent (C.lost - P.lost).
        in_flight: bytes in flight now, what was acked and lost taken off.
        cwnd_limited: cwnd was what limited sending in the round that this SACK ends.
        sent_at: when the newest of the newly acked packets was last sent: tells whether what is acked left
            before or after a recovery began.
    """

    acked: int
    lost: int
    delivered: int
    prior_delivered: int
    delivery_rate: float | None
    is_app_limited: bool
    rtt: float | None
    tx_in_flight: int
    lost_since: int
    in_flight: int
    cwnd_limited: bool
    sent_at: float


@dataclass(frozen=True, slots=True)
class Loss:
    """A run of packets sent in one burst and declared lost together.

    Attributes:
        size: bytes.
        burst: bytes that left in that burst.
        sent_at: when the burst left.
        tx_in_flight: bytes in flight right after it left.
        lost_since: bytes declared lost since it left, these included.
        is_app_limited: as in AckSample.
    """

    size: int
    burst: int
    sent_at: float
    tx_in_flight: int
    lost_since: int
    is_app_limited: bool


class CongestionController(ABC):
    """Decides how much may be in flight, and how fast it may leave."""

    # Bytes that may be in flight.
    cwnd: int
    # Bytes a second; inf: as fast as cwnd allows.
    pacing_rate: float = inf
    # Bytes that may leave back to back, if the path has a buffer that holds no more; None: as pacing has it.
    max_burst: int | None = None

    @property
    @abstractmethod
    def phase(self) -> str:
        """The state that it is in, by the name in its source: PROBE_BW_UP, say."""

    @abstractmethod
    def expect_round_trip(self, rtt: float) -> None:
        """The path was asked before anything is sent, and the answer took so many seconds."""

    @abstractmethod
    def on_sent(self, now: float, size: int, in_flight: int, is_app_limited: bool) -> None:
        """A burst of `size` bytes has left; in_flight counts it already."""

    @abstractmethod
    def on_ack(self, now: float, sample: AckSample) -> None:
        """A SACK has been handled; on_loss has been called before if it revealed losses."""

    @abstractmethod
    def on_loss(self, now: float, losses: list[Loss], in_flight: int) -> None:
        """Packets have been declared lost; in_flight no longer counts them."""

    @abstractmethod
    def on_timeout(self, now: float, in_flight: int) -> None:
        """T3-rtx has expired: everything in flight counts as lost (RFC 9260 §6.3.3, §7.2.3).

        Called instead of on_loss() for those bytes. in_flight no longer counts them: 0, unless some are kept.
        """

    @abstractmethod
    def on_spurious_loss(self, now: float) -> None:
        """Everything that the last recovery was about turned out to have arrived."""

    @abstractmethod
    def on_max_packet_size(self, size: int) -> None:
        """The largest payload chunk has a new size, by path-MTU discovery."""
