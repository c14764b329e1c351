"""A network in memory under ICE connections, and an event loop whose clock jumps to what happens next."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from aioice import Candidate, Connection
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import StunProtocol

Address = tuple[str, int]
Delay = Callable[[Address, Address, float], float | None]
"""(from, to, seconds since the start) -> seconds to the arrival of what leaves now; None: it is lost."""


class JumpingLoop(asyncio.SelectorEventLoop):
    """Waits for nothing but its own timers, and so takes no time."""

    def __init__(self) -> None:
        super().__init__(_JumpingSelector(self))
        self.now = 0.0

    def time(self) -> float:
        return self.now


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events:
            assert timeout is not None, "everybody waits, and nothing is to come"
            # Never nothing, which a rounded sum could be.
            self._loop.now += max(timeout, 1e-6)
        return events


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on a JumpingLoop."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(scenario)


class Wires:
    """Carries datagrams between the candidates of connections."""

    def __init__(self, delay: Delay) -> None:
        self.delay = delay
        self.protocols: dict[Address, StunProtocol] = {}
        # (from, to) of each datagram sent.
        self.sent: list[tuple[Address, Address]] = []

    def attach(self, connection: Connection, kind: str, address: Address) -> Candidate:
        """Give a connection a local candidate, and those remote candidates that it knows pairs with it."""
        protocol = StunProtocol(connection)
        priority = candidate_priority(1, kind, 65535 - len(connection._protocols))
        foundation = candidate_foundation(kind, "udp", address[0])
        candidate = Candidate(foundation, 1, "udp", priority, *address, type=kind)
        protocol.local_candidate = candidate
        self.open(protocol, address)
        connection._protocols.append(protocol)
        connection._local_candidates.append(candidate)
        connection._local_candidates_end = True
        for remote in connection.remote_candidates:
            connection._pair_remote_candidate(remote)
        connection.sort_check_list()
        return candidate

    def open(self, protocol: StunProtocol, address: Address) -> None:
        """Give a protocol a port of this address."""
        protocol.connection_made(_Port(self, address, protocol))
        self.protocols[address] = protocol

    def arrive(self, data: bytes, source: Address, target: Address) -> None:
        """A datagram has come to this port, if there is one by now."""
        if protocol := self.protocols.get(target):
            protocol.datagram_received(data, source)


class _Port(asyncio.DatagramTransport):
    def __init__(self, wires: Wires, address: Address, protocol: StunProtocol) -> None:
        super().__init__({"sockname": address})
        self._wires = wires
        self._address = address
        self._protocol = protocol

    def sendto(self, data: Any, addr: Any = None) -> None:
        loop = asyncio.get_running_loop()
        self._wires.sent.append((self._address, addr))
        delay = self._wires.delay(self._address, addr, loop.time())
        if delay is not None:
            loop.call_later(delay, self._wires.arrive, bytes(data), self._address, addr)

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = self._wires.protocols[self._address] = protocol

    def close(self) -> None:
        self._wires.protocols.pop(self._address, None)
        asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self._address not in self._wires.protocols


def introduce(left: Connection, right: Connection) -> None:
    """Tell each the credentials of the other, and which role it has: left controls."""
    left.ice_controlling, right.ice_controlling = True, False
    for one, other in ((left, right), (right, left)):
        one.remote_username, one.remote_password = other.local_username, other.local_password


async def tell(left: Connection, right: Connection, *, end: bool = True) -> None:
    """Tell each the candidates of the other, and whether these are all."""
    for one, other in ((left, right), (right, left)):
        for candidate in other.local_candidates:
            await one.add_remote_candidate(candidate)
        if end:
            await one.add_remote_candidate(None)
