"""Waiting for a room that is not there yet: how often to look, what ends that, what the person sees."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec.structs import replace

from flyx.client import events
from flyx.client.local import Room, Tell, find_rooms
from flyx.client.signaling import RetryPolicy
from flyx.errors import (
    FlyxError,
    ServerClosed,
    ServerProtocolError,
    ServerRefused,
    ServerUnreachable,
    SignalingError,
)

PAUSES = RetryPolicy(first_pause=4.0, longest_pause=20.0)
"""From one look to the next: in the long run six a minute. By default a server grants an address 20 that find
nothing, so that three can wait behind it."""

LONGEST_PAUSE = 120.0
"""Seconds that longest_pause grows to when there are more."""

LOOK_AROUND_FOR = 30.0
"""Seconds of one look at the local network. A sender that comes meanwhile is heard at once. Questions to all
become rare within a look; the next one begins anew, on the interfaces that there are then."""


class Pace:
    """When to look next."""

    def __init__(self) -> None:
        self._retry = PAUSES
        self._tries = 0

    def pause(self, wanted: float) -> float:
        """Return the seconds from the beginning of one look to that of the next.

        Args:
            wanted: what the server asks for; 0 if it asks for nothing.
        """
        if wanted:
            # The server refuses all clients behind our address that look too often: all slow down.
            longest = min(2 * self._retry.longest_pause, LONGEST_PAUSE)
            self._retry = replace(self._retry, longest_pause=longest)
        self._tries += 1
        return wanted + self._retry.pause(self._tries - 1)


class Waiting:
    """Waits for the sender of a room, for as long as it takes."""

    def __init__(self, room_id: str, server: str | None, tell: Tell, *, local: bool, hold: float) -> None:
        """Args:
        room_id, server, local, hold: as for find_rooms().
        tell: called with what is waited for, and whether the server is there.
        """
        self._room_id = room_id
        self._server = server
        self._tell = tell
        self._local = local
        self._hold = hold
        # The person knows what we wait for, and that the server is out of reach.
        self._has_said = False
        self._is_away = False
        # The server has been one of flyx.
        self._was_there = False
        # The last room has ended in a way that another one may follow.
        self._goes_on = True

    async def rooms(self) -> AsyncGenerator[Room, None]:
        """Join the room as find_rooms() does, once it is there; when it has ended, the next one.

        Tell outlasts() of each that has ended. To be closed after use (contextlib.aclosing).

        Raises:
            SignalingError: it is no use to wait.
        """
        pace = Pace()
        while True:
            began_at, wanted = time.monotonic(), 0.0
            try:
                async with aclosing(self._look()) as rooms:
                    async for room in rooms:
                        self._reached()
                        yield room
            except SignalingError as error:
                if not self._may_pass(error):
                    raise
                self._missed(error)
                wanted = error.retry_after
            else:
                if not self._goes_on:
                    return
            await asyncio.sleep(began_at + pace.pause(wanted) - time.monotonic())

    def _look(self) -> AsyncGenerator[Room, None]:
        return find_rooms(
            self._room_id,
            self._server,
            lambda _: self._say(),
            local=self._local,
            hold=self._hold,
            look_for=LOOK_AROUND_FOR,
        )

    def outlasts(self, error: FlyxError) -> bool:
        """Return whether another room is waited for after this end of one whose sender had not paired.

        The person is told if it is.
        """
        self._goes_on = self._may_pass(error)
        if self._goes_on:
            waiting = f"Waiting for another sender under the code {self._room_id}."
            self._tell(events.Notice(f"{str(error).rstrip('.')}. {waiting}"))
        return self._goes_on

    def _may_pass(self, error: FlyxError) -> bool:
        match error:
            case SignalingError() if self._local:
                # Nobody has named what is found there.
                return True
            case ServerRefused() | ServerProtocolError():
                return False
            case ServerUnreachable():
                # Where a flyx server was, there is something else for a while: a page to log in to a network.
                return error.may_pass or self._was_there
            case _:
                return isinstance(error, SignalingError)

    def _missed(self, error: SignalingError) -> None:
        self._say()
        match error:
            case ServerUnreachable() if not self._is_away:
                self._is_away = True
                self._tell(events.server_lost(str(error.fields["reason"])))
            case ServerUnreachable() | ServerClosed():
                pass
            case _:
                self._reached()

    def _reached(self) -> None:
        self._was_there = True
        if self._is_away:
            self._is_away = False
            self._tell(events.SERVER_BACK)

    def _say(self) -> None:
        if not self._has_said:
            self._has_said = True
            self._tell(events.Notice(f"Waiting for a sender under the code {self._room_id}"))
