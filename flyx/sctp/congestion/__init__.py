"""Congestion control behind one interface; chosen by name."""

from __future__ import annotations

from collections.abc import Callable

from flyx.sctp.config import Congestion
from flyx.sctp.congestion.base import CongestionController
from flyx.sctp.congestion.bbr import Bbr
from flyx.sctp.congestion.cubic import Cubic


def make_controller(name: str, max_packet_size: int, randomness: Callable[[], float]) -> CongestionController:
    """Make a controller for a new association.

    Args:
        name: one of Congestion.
        max_packet_size: bytes of the largest DATA chunk; on_max_packet_size() tells of changes.
        randomness: draws from [0, 1), such as random.Random().random.

    Raises:
        ValueError: no controller has this name.
    """
    if name == Congestion.BBR:
        return Bbr(max_packet_size, randomness)
    if name == Congestion.CUBIC:
        return Cubic(max_packet_size)
    raise ValueError(f"no congestion controller {name!r}: choose from {', '.join(Congestion)}")
