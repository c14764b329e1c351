"""Where rooms are kept: the interface, and the version in memory.

A store keeps `Room` values and nothing else. It does not know what a room means: `apply` runs the pure
`flyx.signaling.room.step` inside one compare-and-set, so that a version that shares its rooms with other
processes needs only the primitives below. tests/server/rooms/store_contract.py holds for every version.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from flyx.errors import NoSuchRoom
from flyx.signaling.commands import Command, Effects
from flyx.signaling.room import Room, step

UNAVAILABLE = "the server cannot reach its rooms at the moment"
"""What a client is told when StoreUnavailable was raised."""


class StoreFull(Exception):
    """The store has as many rooms as it may have."""


class BudgetSpent(Exception):
    """The creator of a room has as many rooms in its budget as one address may have."""


class StoreUnavailable(Exception):
    """The rooms cannot be reached at the moment. What was asked for may have been done or not."""


Dispatch = Callable[[Effects], None]
"""Carries out the effects of a command, without waiting for any client."""


def ignore_effects(effects: Effects) -> None:
    """Carry out nothing: no client is concerned."""


StillWanted = Callable[[], bool]
"""Tells whether a command is still to be run."""


def always_wanted() -> bool:
    """The client that gave the command need not be connected any more."""
    return True


@dataclass(frozen=True, slots=True)
class Stored:
    """A room as it was read, with the version that `replace` compares."""

    room: Room
    version: int


class RoomStore(ABC):
    """Rooms by their ids.

    Every method may suspend, and may raise StoreUnavailable. None may be cancelled half-way with a change
    half made.

    Effects are carried out in the order in which they were decided: from the moment at which `load` returns a
    change until `apply` has had its effects carried out, no other task of this process runs.
    """

    @property
    def ready(self) -> bool:
        """Whether rooms can be changed, as far as one knows without asking."""
        return True

    @abstractmethod
    async def open(self, now: float) -> None:
        """Make ready, before anything else; `now` is Unix time."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of what is held; nothing else is called afterwards."""

    @abstractmethod
    async def create(self, room: Room) -> bool:
        """Keep a new room; False, and nothing changed, if its id is taken.

        Raises:
            StoreFull: No further room is taken.
            BudgetSpent: None of this creator.
        """

    @abstractmethod
    async def load(self, room_id: str) -> Stored | None:
        """Return the room as it is now, or None."""

    def at_hand(self, room_id: str) -> Room | None:
        """Return what load() would, if that can be told without waiting; None if not, or there is no room.

        All clients in it are connected to this process.
        """
        return None

    def last_known(self, room_id: str) -> Room | None:
        """Return a room that a client of this process is in, as of the last change that this process knows.

        No client is told of a change before this shows it. None: nothing is known of such a room.
        """
        return self.at_hand(room_id)

    @abstractmethod
    async def replace(self, seen: Stored, room: Room) -> bool:
        """Put room in the place of the one seen, or forget it if it is closed.

        Returns:
            False, and nothing changed, if the room kept is no longer the one seen.
        """

    @abstractmethod
    async def due(self, now: float) -> list[str]:
        """Return the ids of the rooms whose deadline has passed at `now` (Unix time)."""

    @abstractmethod
    async def count(self) -> int:
        """Return how many rooms there are."""

    @abstractmethod
    async def room_ids(self) -> list[str]:
        """Return the ids of all rooms, in any order; some may be over already."""

    async def test_room(self) -> str | None:
        """Return the id of the room without an end or an owner that an earlier start has left, if one has."""
        return None

    async def apply(
        self,
        room_id: str,
        command: Command,
        now: float,
        dispatch: Dispatch = ignore_effects,
        still_wanted: StillWanted = always_wanted,
    ) -> Effects:
        """Run one command on a room as if no other were run meanwhile, and return its effects.

        Args:
            room_id: which room.
            command: what happened.
            now: Unix time.
            dispatch: carries them out, for clients of this process; called once before this returns, unless
                it raises StoreUnavailable: then perhaps later.
            still_wanted: asked right before the room is changed; if it returns False, nothing is done and
                there are no effects.

        Raises:
            NoSuchRoom: There is no such room.
        """
        while True:
            seen = await self.load(room_id)
            if seen is None:
                raise NoSuchRoom(room_id=room_id)
            after, effects = step(seen.room, command, now)
            if after is not seen.room and not still_wanted():
                return ()
            # Relaying changes nothing and is by far the most frequent command: it must not cost a write.
            if after is seen.room or await self.replace(seen, after):
                dispatch(effects)
                return effects


class MemoryRoomStore(RoomStore):
    """Rooms of one process, forgotten when it ends.

    No method suspends: what one caller does is done before the next one runs, and effects come out in the
    order in which they were decided.
    """

    def __init__(self, *, max_rooms: int, max_per_creator: int = 0) -> None:
        """Args:
        max_rooms: most rooms at a time.
        max_per_creator: of these, most that have the same creator; 0 is no limit.
        """
        self._max_rooms = max_rooms
        self._max_per_creator = max_per_creator
        self._rooms: dict[str, Stored] = {}

    async def open(self, now: float) -> None:
        pass

    async def close(self) -> None:
        pass

    async def create(self, room: Room) -> bool:
        if room.room_id in self._rooms:
            return False
        if len(self._rooms) >= self._max_rooms:
            raise StoreFull
        self._check_budget(room)
        self._rooms[room.room_id] = Stored(room, 1)
        return True

    def _check_budget(self, room: Room, arriving: int = 0) -> None:
        """Raise BudgetSpent if the creator of room has its rooms, of which so many are not kept yet."""
        if room.creator is None or not self._max_per_creator:
            return
        made = sum(kept.room.creator == room.creator for kept in self._rooms.values())
        if made + arriving >= self._max_per_creator:
            raise BudgetSpent

    async def load(self, room_id: str) -> Stored | None:
        return self._rooms.get(room_id)

    def at_hand(self, room_id: str) -> Room | None:
        kept = self._rooms.get(room_id)
        return None if kept is None else kept.room

    async def replace(self, seen: Stored, room: Room) -> bool:
        # By identity: an id that was forgotten and drawn again starts at version 1 like its predecessor.
        if self._rooms.get(room.room_id) is not seen:
            return False
        if room.closed:
            del self._rooms[room.room_id]
        else:
            self._rooms[room.room_id] = Stored(room, seen.version + 1)
        return True

    async def due(self, now: float) -> list[str]:
        return [room_id for room_id, kept in self._rooms.items() if kept.room.deadline <= now]

    async def count(self) -> int:
        return len(self._rooms)

    async def room_ids(self) -> list[str]:
        return list(self._rooms)
