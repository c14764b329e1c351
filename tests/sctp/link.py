"""Two associations on a simulated link: clock, seeded loss, delay, reordering, duplication, MTU, rate."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

from google_crc32c import value as crc32c

from flyx.sctp.association import MAX_BURST_PACKETS, Association, Event
from flyx.sctp.config import Config
from flyx.sctp.congestion import make_controller
from flyx.sctp.reassembly import Message


@dataclass(frozen=True)
class Conditions:
    """How the link behaves, both ways. Seconds, bytes, bytes a second."""

    delay: float = 0.02
    jitter: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    mtu: int = 1 << 20
    rate: float | None = None
    queue: float = 0.5
    # From when to when nothing passes.
    outage: tuple[float, float] = (0.0, 0.0)


class Endpoint:
    """An association and what has come out of it."""

    def __init__(self, association: Association) -> None:
        self.association = association
        self.messages: list[Message] = []
        self.events: list[Event] = []
        self.departed = 0
        self.link_free_at = 0.0


class Link:
    """Drives two associations until both are quiet."""

    def __init__(
        self,
        conditions: Conditions | None = None,
        *,
        seed: int = 0,
        controller: str = "cubic",
        config: Config | None = None,
        initial_bits: Callable[[int], int] | None = None,
        right_config: Config | None = None,
    ) -> None:
        self.conditions = conditions or Conditions()
        self.random = random.Random(seed)
        self.now = 100.0
        draw = initial_bits or self.random.getrandbits
        config = config or Config()
        self.left, self.right = (
            Endpoint(
                Association(
                    config=own,
                    local_port=5000,
                    remote_port=5000,
                    controller=make_controller(controller, own.initial_packet_size - 28, self.random.random),
                    checksum=crc32c,
                    draw=draw,
                )
            )
            for own in (config, right_config or config)
        )
        self._due: list[tuple[float, int, Endpoint, bytes]] = []
        self._order = itertools.count()
        self.packets = 0
        # Called with every packet that leaves, to look at it or to drop it.
        self.filter: Callable[[Endpoint, bytes], bool] = lambda _, __: True

    def connect(self) -> None:
        self.left.association.connect(self.now)
        self.right.association.connect(self.now)

    def run(
        self, until: float | None = None, steps: int = 400_000, done: Callable[[], bool] | None = None
    ) -> None:
        """Go on until nothing is due before `until`, or done() says so."""
        still = 0
        for _ in range(steps):
            self.drain(self.left, self.right)
            self.drain(self.right, self.left)
            if done is not None and done():
                return
            times = [t for e in (self.left, self.right) if (t := e.association.next_timeout()) is not None]
            if self._due:
                times.append(self._due[0][0])
            if not times or (until is not None and min(times) > until):
                self.now = max(self.now, until or 0.0)
                return
            still = still + 1 if min(times) <= self.now else 0
            assert still < 1000, "time stands still"
            self.now = max(self.now, min(times))
            self._deliver()
            for endpoint in (self.left, self.right):
                deadline = endpoint.association.next_timeout()
                if deadline is not None and deadline <= self.now:
                    endpoint.association.handle_timeout(self.now)
        raise AssertionError("the associations do not come to rest")

    def drain(self, endpoint: Endpoint, other: Endpoint) -> None:
        association = endpoint.association
        while True:
            packets = association.packets_to_send(self.now)
            for packet in packets:
                self._send(endpoint, other, packet)
            if len(packets) < MAX_BURST_PACKETS:
                break
        endpoint.messages += association.take_messages()
        endpoint.departed += sum(size for _, size in association.take_departed())
        while (event := association.next_event()) is not None:
            endpoint.events.append(event)

    def _send(self, endpoint: Endpoint, other: Endpoint, packet: bytes) -> None:
        conditions, chance = self.conditions, self.random.random
        self.packets += 1
        too_large = len(packet) > conditions.mtu and not endpoint.association.needs_fragments
        if not self.filter(endpoint, packet) or too_large or chance() < conditions.loss:
            return
        if conditions.outage[0] <= self.now - 100.0 < conditions.outage[1]:
            return
        if chance() < conditions.corrupt:
            position = self.random.randrange(len(packet))
            packet = packet[:position] + bytes([packet[position] ^ 0x55]) + packet[position + 1 :]
        leaves = self.now
        if conditions.rate:
            if endpoint.link_free_at - self.now > conditions.queue:
                return
            leaves = max(self.now, endpoint.link_free_at) + len(packet) / conditions.rate
            endpoint.link_free_at = leaves
        for _ in range(2 if chance() < conditions.duplicate else 1):
            arrives = leaves + conditions.delay + chance() * conditions.jitter
            heapq.heappush(self._due, (arrives, next(self._order), other, packet))

    def deliver(self, endpoint: Endpoint, packet: bytes) -> None:
        """Let a packet arrive after the link's delay, whatever else its conditions are."""
        heapq.heappush(self._due, (self.now + self.conditions.delay, next(self._order), endpoint, packet))

    def _deliver(self) -> None:
        """Hand over what has arrived, together what arrived together."""
        arrived: dict[int, list[bytes]] = {}
        while self._due and self._due[0][0] <= self.now:
            _, _, endpoint, packet = heapq.heappop(self._due)
            arrived.setdefault(endpoint is self.right, []).append(packet)
        for is_right, packets in arrived.items():
            (self.right if is_right else self.left).association.receive_packets(packets, self.now)
