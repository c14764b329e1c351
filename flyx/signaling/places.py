"""Who keeps a place in a room: how long one is held for its client, and who gives way when all are taken.

The server does not see which receivers pair, so the sender tells it (`paired`). A receiver that has paired
keeps its place, whatever comes. Of the others, one makes way for each newcomer:

    - of the address that has the most of them, the newcomer counted in: a client with one address displaces
      its own before it displaces another's;
    - there, the one that has been in the room longest.

So connections that say nothing keep out no receiver, however many they are and whatever their addresses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from flyx.signaling.members import Member


def held_for(member: Member, grace: float) -> float:
    """Return the seconds for which the place of a client is held once its connection is lost.

    Args:
        member: with what it was granted when it came.
        grace: of the room; 0: no place is held.
    """
    return max(grace, member.hold) if grace else 0.0


def who_gives_way(receivers: Iterable[Member], address: str) -> Member | None:
    """Return the receiver that makes way for a new one; None if all have paired.

    Args:
        receivers: of a full room, in order of arrival.
        address: of the newcomer.
    """
    unpaired = [member for member in receivers if not member.paired]
    places = Counter(member.address for member in unpaired)
    places[address] += 1
    # Of several with the same count, max() takes the first: the one that came first.
    return max(unpaired, key=lambda member: places[member.address], default=None)
