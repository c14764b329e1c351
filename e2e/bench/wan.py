"""How fast is a data channel through a wide-area link, and how does it treat others there?

    python -m e2e.bench.wan [--rows clean,loss-1,...] [--stacks flyx,tcp-cubic] [--seconds 30] [--runs 5]

Two network namespaces joined by an emulated link (e2e/link), memory to memory. Rates are payload that
arrived within so many seconds of its first byte, the start of the flow included, as a part of the link's
rate. That carries headers too: 1,404 bytes of payload in packets of 1,500 are 93.6 %. A row's figure is the
median of the runs, with the least and the most. Needs root, iproute2 and a C compiler.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.bench.flow import BUCKET
from e2e.bench.throughput import FLYX, line_of
from e2e.link import Link, missing
from e2e.processes import write_random

PROBE_INTERVAL = 0.05
PROBE_PORT = 9999
SETTLED = 5.0
"""Seconds after which a flow is taken to have found its rate."""
DISTURBED_AT = 10.0
"""Seconds from the beginning to a disturbance."""
RECOVERY_WINDOW = 0.5
"""Seconds over which a rate is taken when looking for the recovery."""


@dataclass(frozen=True)
class Row:
    """One row of the table: a link, and how a run through it is made into a figure.

    Attributes:
        goal: for people.
        link: arguments of Link.
        measure: given the link, the stack and the seconds, returns a figure.
        unit: of the figure.
    """

    goal: str
    link: dict[str, float]
    measure: Callable[[Link, str, float, float], float]
    unit: str = "% of the link"


class Flow:
    """A flow from left to right: connected once made, sending from go() on."""

    def __init__(self, link: Link, stack: str, seconds: float) -> None:
        module = [sys.executable, "-m", "e2e.bench.flow", stack]
        # Nested: the sender starts its receiver on the other host.
        command = link.on("left", [*module, seconds, *link.on("right", module)])
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self._output.readline()
        # Set by go(), in monotonic seconds.
        self.began = 0.0

    def go(self) -> Flow:
        """Begin to send."""
        self.began = time.monotonic()
        print(file=self._input, flush=True)
        return self

    def finish(self) -> Timeline:
        """Wait for the end of it."""
        told = json.loads(self._output.readline())
        self._process.communicate()
        return Timeline(told["started"], told["buckets"])


@dataclass(frozen=True)
class Timeline:
    """What arrived when: bytes in each BUCKET from the first byte on."""

    started: float
    buckets: list[int]

    def rate(self, begin: float, end: float) -> float:
        """Bits a second between two moments, in monotonic seconds."""
        first, last = (round((moment - self.started) / BUCKET) for moment in (begin, end))
        return sum(self.buckets[max(first, 0) : last]) * 8 / ((last - first) * BUCKET)

    def part(self, rate_mbit: float, seconds: float) -> float:
        """Percent of the link's rate that arrived in so many seconds from the first byte."""
        return self.rate(self.started, self.started + seconds) / rate_mbit / 1e4


def share(link: Link, stack: str, seconds: float, rate_mbit: float) -> float:
    """The part of the link that one flow uses."""
    return Flow(link, stack, seconds).go().finish().part(rate_mbit, seconds)


def lesser_share_against(other: str) -> Callable[[Link, str, float, float], float]:
    """Measure the part of the link that the poorer of two flows gets."""

    def measure(link: Link, stack: str, seconds: float, rate_mbit: float) -> float:
        flows = [Flow(link, name, seconds) for name in (stack, other or stack)]
        for flow in flows:
            flow.go()
        lines = [flow.finish() for flow in flows]
        begin = max(line.started for line in lines)
        rates = [line.rate(begin, begin + seconds - 1) / rate_mbit / 1e4 for line in lines]
        print(f"  {stack} {rates[0]:.1f} %, {other or stack} {rates[1]:.1f} %", file=sys.stderr)
        return min(rates)

    return measure


def queueing(link: Link, stack: str, seconds: float, rate_mbit: float) -> float:
    """Milliseconds that a datagram beside the flow waits longer than it does alone."""
    echo = subprocess.Popen(
        link.on("right", [sys.executable, "-m", "e2e.bench.wan", "--echo"]), stdout=subprocess.PIPE, text=True
    )
    assert echo.stdout is not None
    echo.stdout.readline()
    try:
        alone = probe(link, 1.0)
        flow = Flow(link, stack, seconds).go()
        beside = probe(link, seconds)
        part = flow.finish().part(rate_mbit, seconds)
        print(f"  {stack} used {part:.1f} % meanwhile", file=sys.stderr)
    finally:
        echo.kill()
        echo.wait()
    return (statistics.mean(beside) - statistics.mean(alone)) * 1000


def probe(link: Link, seconds: float) -> list[float]:
    """Return the round trips of datagrams sent from the left host for so long."""
    command = [sys.executable, "-m", "e2e.bench.wan", "--probe", link.address("right"), "--seconds", seconds]
    run = subprocess.run(link.on("left", command), check=True, stdout=subprocess.PIPE, text=True)
    times: list[float] = json.loads(run.stdout)
    return times


def recovery_from(outage: float) -> Callable[[Link, str, float, float], float]:
    """Measure the seconds from the end of an outage to 80 % of the rate before it."""

    def measure(link: Link, stack: str, seconds: float, rate_mbit: float) -> float:
        flow = Flow(link, stack, seconds).go()
        _sleep_until(flow.began + DISTURBED_AT)
        link.cut()
        _sleep_until(flow.began + DISTURBED_AT + outage)
        link.mend()
        mended = time.monotonic()
        line = flow.finish()
        wanted = 0.8 * line.rate(flow.began + SETTLED, flow.began + DISTURBED_AT)
        moment = mended
        while line.rate(moment, moment + RECOVERY_WINDOW) < wanted:
            moment += BUCKET
            if moment > flow.began + seconds:
                return float("inf")
        return moment - mended

    return measure


def command(megabytes: int) -> Callable[[Link, str, float, float], float]:
    """Measure a file of so many MB from starting `flyx receive` to its end, in Mbit/s.

    The server is beside the sender: what the receiver says to it crosses the link as well.
    """

    def measure(link: Link, stack: str, seconds: float, rate_mbit: float) -> float:
        if stack != "flyx":
            raise ValueError(f"{stack} has no commands")
        server = ["--server", f"ws://{link.address('left')}:8000"]
        with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stop:
            source = write_random(Path(scratch, "random.bin"), megabytes * 1_000_000)
            serve = _start(link.on("left", [*FLYX, "serve", "--stun", "none"]), stop)
            line_of(serve)
            send = _start(link.on("left", [*FLYX, "send", *server, "--quiet", source]), stop)
            code = line_of(send).split()[-1]
            began = time.monotonic()
            receive = [*FLYX, "receive", *server, "--quiet", "--yes", "-o", Path(scratch, "received"), code]
            subprocess.run(link.on("right", receive), check=True, stdout=subprocess.DEVNULL)
            return megabytes * 8 / (time.monotonic() - began)

    return measure


def _start(command: list[str], stop: contextlib.ExitStack) -> subprocess.Popen[str]:
    """Start a program that is ended with the others."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    stop.callback(process.wait)
    stop.callback(process.terminate)
    return process


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def echo() -> None:
    """Send every datagram back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", PROBE_PORT))
        print("ready", flush=True)
        while True:
            sock.sendto(*sock.recvfrom(100))


def send_probes(address: str, seconds: float) -> None:
    """Print the round trips of a datagram every PROBE_INTERVAL."""
    times: list[float] = []
    count = int(seconds / PROBE_INTERVAL)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((address, PROBE_PORT))
        sock.settimeout(5.0)

        def listen() -> None:
            with contextlib.suppress(TimeoutError):
                while len(times) < count:
                    sent_at = float(sock.recv(100))
                    times.append(time.monotonic() - sent_at)

        listener = threading.Thread(target=listen)
        listener.start()
        started = time.monotonic()
        for number in range(count):
            _sleep_until(started + number * PROBE_INTERVAL)
            sock.send(repr(time.monotonic()).encode())
        # Those that the queue dropped never come back: the socket's timeout ends it.
        listener.join()
    print(json.dumps(times))


_LOSSY = {"rate_mbit": 100, "delay_ms": 25}
ROWS = {
    "clean": Row("92", {**_LOSSY}, share),
    "loss-0.1": Row("90", {**_LOSSY, "loss_percent": 0.1}, share),
    "loss-1": Row("80", {**_LOSSY, "loss_percent": 1}, share),
    "loss-3": Row("60", {**_LOSSY, "loss_percent": 3}, share),
    "far": Row("85", {"rate_mbit": 20, "delay_ms": 100, "loss_percent": 0.5}, share),
    "fast": Row("80", {"rate_mbit": 500, "delay_ms": 5}, share),
    "bursts": Row("no collapse", {**_LOSSY, "loss_percent": 1, "burst": 20}, share),
    "jitter": Row("no collapse", {**_LOSSY, "jitter_ms": 5}, share),
    "shallow": Row("85", {**_LOSSY, "queue_ms": 2}, share),
    "gigabit": Row("85", {"rate_mbit": 1000, "delay_ms": 1}, share),
    "deep": Row("below 60", {"rate_mbit": 20, "delay_ms": 10, "queue_ms": 1000}, queueing, "ms of queue"),
    "two": Row("25", {**_LOSSY}, lesser_share_against(""), "% for the poorer"),
    "beside-tcp": Row("25", {**_LOSSY}, lesser_share_against("tcp-cubic"), "% for the poorer"),
    "blackout-0.1": Row("at most 1.15", {**_LOSSY}, recovery_from(0.1), "s to recover"),
    "outage-2": Row("at most 1.15", {**_LOSSY}, recovery_from(2.0), "s to recover"),
    "60MB-0.1": Row("1.15 x", {**_LOSSY, "loss_percent": 0.1}, command(60), "Mbit/s"),
    "20MB-1": Row("1.4 x", {**_LOSSY, "loss_percent": 1}, command(20), "Mbit/s"),
}


def main() -> None:
    """Measure and print the table."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rows", default=",".join(ROWS), help="of " + ", ".join(ROWS))
    parser.add_argument("--stacks", default="flyx")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--echo", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.echo:
        echo()
    if arguments.probe:
        send_probes(arguments.probe, arguments.seconds)
        return
    if lacking := missing():
        sys.exit(f"this needs {lacking}")
    for name in arguments.rows.split(","):
        for stack in arguments.stacks.split(","):
            figures = [run(ROWS[name], stack, arguments.seconds, seed) for seed in range(arguments.runs)]
            spread = f"({min(figures):.2f} to {max(figures):.2f})"
            unit, goal = ROWS[name].unit, ROWS[name].goal
            print(
                f"{name:12} {stack:10} {statistics.median(figures):7.2f} {spread} {unit}; goal {goal}",
                flush=True,
            )


def run(row: Row, stack: str, seconds: float, seed: int) -> float:
    """Measure once, through a link of its own."""
    figures: dict[str, Any] = row.link
    with Link(**figures, seed=seed + 1) as link:
        return row.measure(link, stack, seconds, row.link["rate_mbit"])


if __name__ == "__main__":
    main()
