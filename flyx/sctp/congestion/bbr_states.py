"""The states of BBR, and the gains of each. Section numbers are of the draft that bbr.py names."""

from __future__ import annotations

from enum import Enum, auto


class BbrState(Enum):
    """BBR.state. §5.1.1."""

    STARTUP = auto()
    DRAIN = auto()
    PROBE_BW_DOWN = auto()
    PROBE_BW_CRUISE = auto()
    PROBE_BW_REFILL = auto()
    PROBE_BW_UP = auto()
    PROBE_RTT = auto()


class AckPhase(Enum):
    """What acks tell of bandwidth probing. §2.14."""

    INIT = auto()
    REFILLING = auto()
    PROBE_STARTING = auto()
    PROBE_FEEDBACK = auto()
    PROBE_STOPPING = auto()


# pacing_gain and cwnd_gain. §5.6.1.
GAINS = {
    BbrState.STARTUP: (2.77, 2.0),
    BbrState.DRAIN: (0.5, 2.0),
    BbrState.PROBE_BW_DOWN: (0.9, 2.0),
    BbrState.PROBE_BW_CRUISE: (1.0, 2.0),
    BbrState.PROBE_BW_REFILL: (1.0, 2.0),
    BbrState.PROBE_BW_UP: (1.25, 2.25),
    BbrState.PROBE_RTT: (1.0, 0.5),
}
PROBE_RTT_CWND_GAIN = GAINS[BbrState.PROBE_RTT][1]
PROBE_BW = {BbrState.PROBE_BW_DOWN, BbrState.PROBE_BW_CRUISE, BbrState.PROBE_BW_REFILL, BbrState.PROBE_BW_UP}
PROBE_FEEDBACK = {AckPhase.PROBE_STARTING, AckPhase.PROBE_FEEDBACK, AckPhase.PROBE_STOPPING}
"""Acks may tell of packets sent in order to find the path's limit."""

PROBING = {BbrState.STARTUP, BbrState.PROBE_BW_REFILL, BbrState.PROBE_BW_UP}
"""Sending so as to find out what the path can take: loss then bounds the long-term model, not the
short-term."""
