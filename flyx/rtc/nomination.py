"""Which of the candidate pairs that work is to be the path, and how long to wait for a better one.

The controlling side decides (regular nomination, RFC 8445 §8.1.1). Aggressive nomination, which takes the
first pair that works, relays what could go directly whenever the relay is quicker to answer than two NATs are
to open: in 18 of 87 cases of a laboratory of networks. No clock, no sockets here.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

RELAY_PATIENCE = 1.0
"""Seconds from the first pair that works to the nomination of a relayed one, while others are being checked.

A check that comes before the other side's NAT has been opened is lost, and repeated after 0.5 s. Pion waits
2 s; here a direct path that comes later is gone over to.
"""

DIRECT_PATIENCE = 0.1
"""The same to the nomination of a direct pair through a NAT, for one between the hosts' own addresses."""

_RELAYED_PREFERENCE = 10
"""Type preferences up to this one are of relayed candidates: 0 in RFC 8445 §5.1.2.2, 0 to 2 in libwebrtc.

A peer's relay is known by it when its check comes before it is told of, and it is taken for peer-reflexive.
"""


class CandidateKind(Struct, frozen=True):
    """What counts of a candidate: its type (RFC 8445 §5.1.1) and its priority (§5.1.2)."""

    type: str
    priority: int

    @property
    def relayed(self) -> bool:
        """Whether what is sent to it, or from it, goes through a TURN server."""
        return self.type == "relay" or self.priority >> 24 <= _RELAYED_PREFERENCE


class Rank(Struct, frozen=True, order=True):
    """How good a pair is by its kind alone: the smaller the better.

    Attributes:
        relays: TURN servers on the way, 0 to 2.
        translated: a NAT is on the way, as far as is known.
    """

    relays: int
    translated: bool

    @property
    def patience(self) -> float:
        """Seconds to wait for a pair of better rank before one of this is nominated."""
        if self.relays:
            return RELAY_PATIENCE
        return DIRECT_PATIENCE if self.translated else 0.0


def rank(local: CandidateKind, remote: CandidateKind) -> Rank:
    """Return the rank of a candidate pair."""
    return Rank(local.relayed + remote.relayed, (local.type, remote.type) != ("host", "host"))


def nomination_delay(best: Rank, possible: Iterable[Rank], waited: float, *, more_to_come: bool) -> float:
    """Return in how many seconds to nominate the best pair that works; 0 is now.

    Args:
        best: its rank.
        possible: those of the pairs that are being checked or are to be.
        waited: seconds since the first pair worked.
        more_to_come: candidates are expected that would make other pairs.
    """
    better = any(other < best for other in possible) or (more_to_come and best.relays > 0)
    return max(0.0, best.patience - waited) if better else 0.0
