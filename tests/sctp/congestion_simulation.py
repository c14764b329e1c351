"""Congestion controllers over a simulated bottleneck, on a virtual clock.

One link (rate, one-way delay, tail-drop buffer, random loss, jitter, outages) shared by flows that each send
bulk data, or as much as an application offers. A flow does what the association does: paces bursts with
Pacer, samples delivery rates (draft-ietf-ccwg-bbr-06 §4.1), finds loss by time (RACK), backs off timeouts
with RttEstimator, and talks to its controller once per burst and SACK. Lost packets are not repaired but
counted: a repair and a new packet weigh the same on the wire. Deterministic: same seed, same numbers.

Run it for the table of scenarios: python -m tests.sctp.congestion_simulation
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from flyx.sctp.config import Congestion
from flyx.sctp.congestion import make_controller
from flyx.sctp.congestion.base import AckSample, CongestionController, Loss
from flyx.sctp.pacing import Pacer
from flyx.sctp.rto import RttEstimator

PACKET = 1200
# Seconds between stalls, on the average.
STALL_INTERVAL = 0.05
# A receiver's SACK covers what arrived in one turn of its loop: seconds, and packets at most.
SACK_TURN = 0.001
SACK_PACKETS = 24
# Packets that are sent as one burst, at most: one segmentation-offload send.
BURST_PACKETS = 48
INFINITE = float("inf")


@dataclass
class Link:
    """A bottleneck with a buffer before it and delay behind it."""

    # Bytes a second; may be changed while the simulation runs.
    rate: float
    # Seconds one way, the same back.
    delay: float
    # Seconds of sending that the buffer holds.
    buffer: float = 0.05
    # Part of the packets lost at random, before the buffer.
    loss: float = 0.0
    # As many in a row at a time, on the average of all; 1: each by itself.
    loss_burst: int = 1
    # Seconds of extra delay behind the bottleneck, at most; reorders.
    jitter: float = 0.0
    # Nothing arrives while any of these (start, end) lasts.
    outages: tuple[tuple[float, float], ...] = ()
    # When the last byte in the buffer will have left.
    busy_until: float = 0.0
    # Seconds of queueing that packets met, summed; how many were carried; how many found the buffer full.
    queueing: float = 0.0
    packets: int = 0
    dropped: int = 0
    # Packets that a burst of losses has yet to take.
    burst_left: int = 0

    @property
    def mean_queueing(self) -> float:
        """Seconds that a packet waited, on the average."""
        return self.queueing / max(self.packets, 1)

    def loses(self, draw: Callable[[], float]) -> bool:
        """Whether the next packet is lost at random."""
        if not self.burst_left and self.loss and draw() < self.loss / self.loss_burst:
            self.burst_left = self.loss_burst
        if self.burst_left:
            self.burst_left -= 1
            return True
        return False

    def is_out(self, now: float) -> bool:
        return any(start <= now < end for start, end in self.outages)


@dataclass(slots=True)
class Burst:
    """What is remembered of packets sent together: the per-packet state of §4.1.2.1.2."""

    sent_at: float
    first_send_time: float
    delivered_time: float
    delivered: int
    lost: int
    tx_in_flight: int
    is_app_limited: bool
    # Number of its first packet, and how many there are.
    first: int
    size: int


@dataclass
class Flow:
    """A sender and its receiver."""

    controller: CongestionController
    # When it starts sending.
    start: float = 0.0
    # Bytes that the application has offered by this time; None: as many as can be sent.
    offered: Callable[[float], float] | None = None
    # (time, delivered bytes) a SACK; for looking back.
    history: list[tuple[float, int]] = field(default_factory=list)
    # Called after each event, with the time.
    check: Callable[[Flow, float], None] | None = None
    timeouts: int = 0
    # Its process is stopped now and then, for so many seconds at most: other processes want the processor.
    longest_stall: float = 0.0

    def __post_init__(self) -> None:
        self.pacer = Pacer(PACKET)
        self.rtt = RttEstimator()
        # Each packet's burst and fate, by number.
        self.by_packet: list[Burst] = []
        # 0: in flight, 1: delivered, 2: lost.
        self.fate = bytearray()
        self.first_open = 0
        self.in_flight = 0
        self.delivered = 0
        self.delivered_time = 0.0
        self.first_send_time = 0.0
        self.lost = 0
        self.app_limited_until = 0
        # Delivered bytes at which a round trip will have gone by since cwnd last stopped sending.
        self.cwnd_limited_until = 0
        self.newest_acked = -1
        self.sent = 0
        self.rto_at = INFINITE
        self.rack_at = INFINITE
        self.wake_at = INFINITE
        # When the next timer event is due.
        self.timer_at = INFINITE
        # What happens before this waits until then; when it will be stopped next.
        self.stalled_until = 0.0
        self.next_stall = 0.0

    # Sending

    def send(self, now: float) -> Burst | None:
        """Send one burst if window, pacer and application allow; set wake_at if only the pacer does not."""
        controller = self.controller
        self.wake_at = INFINITE
        window = controller.cwnd - self.in_flight
        if window < PACKET:
            self.cwnd_limited_until = self.delivered + self.in_flight
            return None
        if self.offered is not None:
            available = self.offered(now) - self.sent
            if available < PACKET:
                self.app_limited_until = max(self.delivered + self.in_flight, 1)
                self.wake_at = now + 0.001
                return None
            window = min(window, int(available))
        budget = self.pacer.budget(now, controller.pacing_rate)
        packets = min(window, budget) // PACKET
        if packets == 0:
            self.wake_at = self.pacer.next_send_time(now, controller.pacing_rate)
            return None
        packets = min(packets, BURST_PACKETS)
        size = packets * PACKET
        if self.in_flight == 0:
            self.first_send_time = self.delivered_time = now
        self.in_flight += size
        self.sent += size
        is_app_limited = self.app_limited_until > 0
        burst = Burst(
            now,
            self.first_send_time,
            self.delivered_time,
            self.delivered,
            self.lost,
            self.in_flight,
            is_app_limited,
            len(self.fate),
            packets,
        )
        self.fate += bytes(packets)
        self.by_packet += [burst] * packets
        self.pacer.on_sent(size)
        controller.on_sent(now, size, self.in_flight, is_app_limited)
        if self.rto_at == INFINITE:
            self.rto_at = now + self.rtt.rto
        self.wake_at = now
        return burst

    # Receiving

    def receive_sack(self, now: float, numbers: list[int]) -> None:
        fate = self.fate
        newly = [n for n in numbers if fate[n] == 0]
        # What was taken for lost and comes after all has been sent again: it counts for nothing.
        if not newly:
            return
        for n in newly:
            fate[n] = 1
        acked = PACKET * len(newly)
        self.in_flight -= acked
        self.delivered += acked
        self.delivered_time = now
        newest_number = max(newly)
        newest = self.by_packet[newest_number]
        self.newest_acked = max(self.newest_acked, newest_number)
        rtt = now - newest.sent_at
        self.rtt.update(rtt, now)
        self.pacer.on_round_trip(rtt, self.rtt.min_rtt or 0.0, self.rtt.queueing)
        send_elapsed = newest.sent_at - newest.first_send_time
        ack_elapsed = now - newest.delivered_time
        self.first_send_time = newest.sent_at
        interval = max(send_elapsed, ack_elapsed)
        rate = None
        if interval >= (self.rtt.min_rtt or 0.0) and interval > 0:
            rate = (self.delivered - newest.delivered) / interval
        if self.app_limited_until and self.delivered > self.app_limited_until:
            self.app_limited_until = 0
        lost = self.detect_loss(now)
        sample = AckSample(
            acked=acked,
            lost=lost,
            delivered=self.delivered,
            prior_delivered=newest.delivered,
            delivery_rate=rate,
            is_app_limited=newest.is_app_limited,
            rtt=rtt,
            tx_in_flight=newest.tx_in_flight,
            lost_since=self.lost - newest.lost,
            in_flight=self.in_flight,
            cwnd_limited=self.delivered - acked <= self.cwnd_limited_until,
            sent_at=newest.sent_at,
        )
        self.controller.on_ack(now, sample)
        self.rto_at = now + self.rtt.rto if self.in_flight else INFINITE
        self.history.append((now, self.delivered))

    def detect_loss(self, now: float) -> int:
        """Declare lost what was sent well before something that has arrived (RFC 8985 §6.2)."""
        self.rack_at = INFINITE
        if self.newest_acked < 0:
            return 0
        reordering = (self.rtt.min_rtt or 0.0) / 4
        deadline = now - (self.rtt.latest_rtt or 0.0) - reordering
        fate = self.fate
        by_burst: dict[int, tuple[Burst, int]] = {}
        n = self.first_open
        head = True
        while n <= self.newest_acked:
            if fate[n] == 0:
                burst = self.by_packet[n]
                if burst.sent_at > deadline:
                    # A little later, or rounding would have this look again and again.
                    self.rack_at = burst.sent_at + (now - deadline) + 1e-6
                    break
                fate[n] = 2
                by_burst[burst.first] = (burst, by_burst.get(burst.first, (burst, 0))[1] + 1)
            n += 1
            if head:
                self.first_open = n
        if not by_burst:
            return 0
        losses = []
        for burst, packets in by_burst.values():
            size = packets * PACKET
            self.in_flight -= size
            self.lost += size
            whole = PACKET * burst.size
            self.pacer.on_loss(now, self.controller.pacing_rate, whole, size)
            losses.append(
                Loss(
                    size,
                    whole,
                    burst.sent_at,
                    burst.tx_in_flight,
                    self.lost - burst.lost,
                    burst.is_app_limited,
                )
            )
        self.controller.on_loss(now, losses, self.in_flight)
        return sum(loss.size for loss in losses)

    def time_out(self, now: float) -> None:
        self.timeouts += 1
        for n in range(self.first_open, len(self.fate)):
            if self.fate[n] == 0:
                self.fate[n] = 2
        self.lost += self.in_flight
        self.in_flight = 0
        self.first_open = len(self.fate)
        self.rtt.back_off()
        self.controller.on_timeout(now, 0)
        self.rto_at = INFINITE
        self.rack_at = INFINITE

    def delivered_by(self, time: float) -> int:
        """Bytes acknowledged by this time."""
        n = bisect(self.history, (time, INFINITE))
        return self.history[n - 1][1] if n else 0

    def rate_between(self, start: float, end: float) -> float:
        """Bytes a second acknowledged in this time."""
        return (self.delivered_by(end) - self.delivered_by(start)) / (end - start)


class Simulation:
    """Flows over one link."""

    def __init__(self, link: Link, flows: list[Flow], seed: int = 1) -> None:
        self.link = link
        self.flows = flows
        self.random = random.Random(seed)
        self.now = 0.0
        self._order = count()
        # (time, order, what, flow, packets of a SACK)
        self._events: list[tuple[float, int, str, Flow, list[int]]] = []
        for flow in flows:
            self._push(flow.start, "wake", flow)

    def _push(self, time: float, what: str, flow: Flow, packets: list[int] | None = None) -> None:
        heapq.heappush(self._events, (time, next(self._order), what, flow, packets or []))

    def run(self, until: float) -> None:
        """Go on until this time."""
        events = self._events
        while events and events[0][0] <= until:
            now, _, what, flow, packets = heapq.heappop(events)
            self.now = now
            if flow.longest_stall and self._is_stalled(flow, now):
                self._push(flow.stalled_until, what, flow, packets)
                if what == "timer" and now == flow.timer_at:
                    flow.timer_at = flow.stalled_until
                continue
            if what == "sack":
                flow.receive_sack(now, packets)
            elif what == "timer":
                if now != flow.timer_at:
                    continue
                flow.timer_at = INFINITE
                if now >= flow.rto_at:
                    flow.time_out(now)
                elif now >= flow.rack_at:
                    flow.detect_loss(now)
            elif now < flow.wake_at < INFINITE and flow.sent:
                continue
            before = flow.wake_at
            while (burst := flow.send(now)) is not None:
                self._transmit(burst, flow)
            if flow.wake_at < INFINITE and flow.wake_at != before:
                self._push(flow.wake_at, "wake", flow)
            due = min(flow.rto_at, flow.rack_at)
            if due < flow.timer_at:
                # Events for later are void; an earlier one looks again when it fires.
                flow.timer_at = due
                self._push(due, "timer", flow)
            if flow.check is not None:
                flow.check(flow, now)
        self.now = until

    def _is_stalled(self, flow: Flow, now: float) -> bool:
        if now >= flow.next_stall:
            flow.stalled_until = now + flow.longest_stall * self.random.random()
            flow.next_stall = now + self.random.expovariate(1 / STALL_INTERVAL)
        return now < flow.stalled_until

    def _transmit(self, burst: Burst, flow: Flow) -> None:
        link, now, draw = self.link, self.now, self.random.random
        out = link.is_out(now)
        arrivals: list[tuple[float, int]] = []
        for n in range(burst.first, burst.first + burst.size):
            if out or link.loses(draw):
                continue
            wait = max(link.busy_until - now, 0.0)
            if wait > link.buffer:
                link.dropped += 1
                continue
            link.queueing += wait
            link.packets += 1
            link.busy_until = now + wait + PACKET / link.rate
            arrival = link.busy_until + link.delay
            if link.jitter:
                arrival += link.jitter * draw()
            arrivals.append((arrival, n))
        if link.jitter:
            arrivals.sort()
        for time, numbers in sack_groups(arrivals):
            self._push(time + link.delay, "sack", flow, numbers)


def sack_groups(arrivals: list[tuple[float, int]]) -> Iterator[tuple[float, list[int]]]:
    """Cut a burst's arrivals into SACKs, each with the time that it is sent."""
    group: list[int] = []
    since = 0.0
    last = 0.0
    for time, n in arrivals:
        if group and (time - since > SACK_TURN or len(group) >= SACK_PACKETS):
            yield last, group
            group = []
        if not group:
            since = time
        group.append(n)
        last = time
    if group:
        yield last, group


def bulk(name: str, seed: int = 1, start: float = 0.0) -> Flow:
    """A flow that always has something to send."""
    return Flow(make_controller(name, PACKET, random.Random(seed).random), start=start)


def megabits(rate: float) -> float:
    """Bytes a second of a rate in Mbit/s."""
    return rate * 1e6 / 8


def run_alone(
    name: str,
    rate: float,
    rtt: float,
    loss: float,
    seconds: float,
    *,
    seed: int = 1,
    buffer: float = 0.05,
    loss_burst: int = 1,
    longest_stall: float = 0.0,
) -> tuple[float, Link]:
    """Send in bulk over a link of its own: the used part of its rate (bytes a second), and the link."""
    link = Link(rate, rtt / 2, buffer, loss, loss_burst)
    flow = bulk(name, seed)
    flow.longest_stall = longest_stall
    Simulation(link, [flow], seed).run(seconds)
    return flow.rate_between(0.0, seconds) / rate, link


def run_together(
    names: list[str], rate: float, rtt: float, seconds: float, *, seed: int = 1, buffer: float = 0.05
) -> list[float]:
    """Send in bulk over one link, all from the beginning: the part of its rate that each has used."""
    flows = [bulk(name, seed + n) for n, name in enumerate(names)]
    Simulation(Link(rate, rtt / 2, buffer), flows, seed).run(seconds)
    return [flow.rate_between(0.0, seconds) / rate for flow in flows]


def run_outage(name: str, rate: float, rtt: float, start: float, end: float, *, seed: int = 1) -> float:
    """The rate in the second that begins 1 s + 3 RTT after an outage, in parts of that before it."""
    flow = bulk(name, seed)
    Simulation(Link(rate, rtt / 2, outages=((start, end),)), [flow], seed).run(end + 3 * rtt + 2)
    again = end + 3 * rtt + 1
    return flow.rate_between(again, again + 1) / flow.rate_between(start - 3, start)


def table() -> Iterator[str]:
    """What the controllers make of the scenarios of issue 3, seed by seed."""
    seeds = (1, 2, 3)
    for name in Congestion:
        for rate, rtt, loss in (
            *((100, 0.05, loss) for loss in (0, 0.001, 0.01, 0.03, 0.05)),
            (20, 0.2, 0.005),
            (500, 0.01, 0),
        ):
            runs = [run_alone(name, megabits(rate), rtt, loss, 20, seed=seed) for seed in seeds]
            used = " ".join(f"{100 * part:.1f}" for part, _ in runs)
            yield f"{name}, {rate} Mbit/s, {1000 * rtt:.0f} ms, {100 * loss:.1f} % loss: {used} %"
        for stall in (0.02, 0.05):
            runs = [
                run_alone(name, megabits(100), 0.05, 0.001, 20, seed=seed, longest_stall=stall)
                for seed in seeds
            ]
            used = " ".join(f"{100 * part:.1f}" for part, _ in runs)
            yield f"{name}, 0.1 % loss and stalls of up to {1000 * stall:.0f} ms: {used} %"
        used_part, link = run_alone(name, megabits(20), 0.02, 0, 30, buffer=1.0)
        yield f"{name}, 1 s of buffer: {100 * used_part:.1f} %, queueing {1000 * link.mean_queueing:.1f} ms"
        yield f"{name}, after an outage of 2 s: {100 * run_outage(name, megabits(100), 0.05, 6, 8):.0f} %"
    for names in (["bbr", "bbr"], ["bbr", "cubic"], ["cubic", "cubic"]):
        for rate, rtt in ((20, 0.04), (20, 0.05), (100, 0.05)):
            for buffer in (0.02, rtt, 4 * rtt):
                runs_together = [
                    run_together(names, megabits(rate), rtt, 30, seed=seed, buffer=buffer) for seed in seeds
                ]
                shares = " ".join("/".join(f"{100 * part:.0f}" for part in parts) for parts in runs_together)
                link_is = f"{rate} Mbit/s, {1000 * rtt:.0f} ms, buffer {1000 * buffer:.0f} ms"
                yield f"{' and '.join(names)}, {link_is}: {shares} %"


if __name__ == "__main__":
    for line in table():
        print(line, flush=True)  # noqa: T201
