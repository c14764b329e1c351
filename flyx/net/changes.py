"""Changes of this computer's networks, noticed when they happen; and its sleep.

NetworkWatch reports that something may have changed, a Route whether that matters to one path:

    the kernel --addresses, links, routes--> NetworkWatch --Moved--> Route.look() --> SAME, BACK or GONE
    the clock  --a gap-->                    NetworkWatch --Slept-->

Linux reports changes by itself (rtnetlink, RFC 3549 §3). Elsewhere, and where a sandbox forbids that, the
addresses are compared every second.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Callable
from enum import Enum, auto

from msgspec import Struct

from flyx.net.interfaces import ELSEWHERE, Address, read, source_towards, udp_socket

TICK = 1.0
"""Seconds between two looks at the clock, and at the addresses where the kernel does not tell of them."""

SETTLE, LONGEST_SETTLE = 0.1, 0.4
"""Seconds without news after which a change is over, and after which it is told all the same: an interface
that comes up is told of in five to ten messages."""

GAP = 2.0
"""Seconds that a tick is late when the computer has slept, or this program stood still; load makes less."""

# linux/rtnetlink.h: RTMGRP_LINK, and those of IPv4 and IPv6 for IFADDR and ROUTE.
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
_LARGEST_NEWS = 1 << 16


class Moved(Struct, frozen=True):
    """Addresses or routes of this computer may have changed."""


class Slept(Struct, frozen=True):
    """This program stood still for so many seconds: the computer slept, or a person stopped the program."""

    seconds: float


Change = Moved | Slept


class NetworkWatch:
    """Tells of changes until it is closed. Use as an async context manager."""

    def __init__(
        self,
        on_change: Callable[[Change], None],
        *,
        netlink: bool = True,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Args:
        on_change: called in the event loop.
        netlink: False looks at the addresses also where the kernel would tell.
        clock: returns seconds that go on while the computer sleeps.
        """
        self._clock = clock or boot_time
        self._on_change = on_change
        self._netlink = _open_netlink() if netlink else None
        # While news come in: when they began, and what ends the wait for more.
        self._since = 0.0
        self._settling: asyncio.TimerHandle | None = None
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> NetworkWatch:
        if self._netlink is not None:
            asyncio.get_running_loop().add_reader(self._netlink.fileno(), self._read)
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._settling is not None:
            self._settling.cancel()
        if self._netlink is not None:
            asyncio.get_running_loop().remove_reader(self._netlink.fileno())
            self._netlink.close()
        if self._ticking is not None:
            # Last, as this wait may be cancelled.
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)

    def _read(self) -> None:
        assert self._netlink is not None
        try:
            while self._netlink.recv(_LARGEST_NEWS):
                pass
        except BlockingIOError:
            pass
        except OSError as error:
            # More than the kernel could keep for us: also news.
            if error.errno != errno.ENOBUFS:
                raise
        self._settle()

    def _settle(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._settling is None:
            self._since = now
        else:
            self._settling.cancel()
        end = min(now + SETTLE, self._since + LONGEST_SETTLE)
        self._settling = loop.call_at(end, self._moved)

    def _moved(self) -> None:
        self._settling = None
        self._on_change(Moved())

    async def _tick(self) -> None:
        known = None if self._netlink else networks()
        before = self._clock()
        while True:
            await asyncio.sleep(TICK)
            now = self._clock()
            late = now - before - TICK
            before = now
            if late >= GAP:
                self._on_change(Slept(late))
            if self._netlink is None and (found := networks()) != known:
                known = found
                self._moved()


class RouteState(Enum):
    """What has become of a route since the last look."""

    SAME = auto()
    # There was no way to the other end, and there is one again: what was sent meanwhile is lost.
    BACK = auto()
    # What is sent from this address leaves it no more, or by another way than before.
    GONE = auto()


class Route:
    """The way from one of our addresses to another address, as the kernel chooses it."""

    def __init__(self, local: Address, remote: Address) -> None:
        """Args:
        local: of our socket.
        remote: where it sends to.
        """
        self.ends = local, remote
        self._source = source_towards(remote)
        # The last look found no way.
        self._cut = self._source is None

    def look(self) -> RouteState:
        """Compare with the last look."""
        local, remote = self.ends
        source = source_towards(remote)
        if not is_ours(local):
            return RouteState.GONE
        was_cut, self._cut = self._cut, source is None
        if source is None:
            return RouteState.SAME
        before, self._source = self._source, source
        if before is not None and source not in (before, local[0]):
            return RouteState.GONE
        return RouteState.BACK if was_cut else RouteState.SAME


def is_ours(address: Address) -> bool:
    """Tell whether a socket could have this address of ours now."""
    try:
        with udp_socket(address) as probe:
            probe.bind((address[0], 0, *address[2:]))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True


def networks() -> frozenset[str]:
    """Return the addresses of this computer's interfaces that are up and have a carrier, as those are what is
    offered to a peer; and those that it sends from to somewhere else."""
    found = set()
    # Where they cannot be listed, those that are used say enough.
    with contextlib.suppress(OSError):
        found = {f"{each.interface} {each.address}" for each in read() if each.up}
    return frozenset(found | {f"to {remote[0]} {source_towards(remote)}" for remote in ELSEWHERE.values()})


def boot_time() -> float:
    """Return seconds that go on while the computer sleeps, which those of time.monotonic() may not."""
    # On Linux CLOCK_MONOTONIC stops in sleep. On macOS that of the system goes on, Python's does not.
    clock = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def _open_netlink() -> socket.socket | None:
    """Return a socket that is told of changes; None where there is none."""
    if not hasattr(socket, "AF_NETLINK"):
        return None
    with contextlib.suppress(OSError):
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            opened.setblocking(False)
            opened.bind((0, _GROUPS))
        except OSError:
            opened.close()
            raise
        return opened
    return None
