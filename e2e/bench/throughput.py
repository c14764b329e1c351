"""How fast is a transfer, beside the stock aiortc channel in the same run?

    python -m e2e.bench.throughput [--size 100MB] [--runs 5]

Each round measures both, one after the other, on loopback, two processes each:

    aiortc   a stock data channel on uvloop, memory to memory, from its opening to the peer's confirmation
    flyx     `flyx send` to `flyx receive`: a file, read, hashed, verified and written, from its acceptance to
             the confirmed digest
    command  the same transfer from starting `flyx receive` to its end

Figures are MB/s (10^6 bytes); CPU is user and system seconds a GB of both processes. Machines are noisy: the
ratio of each round is worth more than a figure.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from e2e.bench.channel import measure
from e2e.processes import write_random
from flyx.cli.demo import parse_size


@dataclass(frozen=True)
class Rate:
    """One measurement: seconds of the payload, of the whole command, and of CPU in both processes."""

    seconds: float
    command_seconds: float
    cpu_seconds: float


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure_stock(size: int) -> Rate:
    """Measure the stock channel."""
    started = time.perf_counter()
    figures = measure("aiortc", size)
    cpu = (figures["send_cpu"] + figures["receive_cpu"]) * size / 1e9
    return Rate(size / figures["rate"] / 1e6, time.perf_counter() - started, cpu)


@contextlib.contextmanager
def signaling_server() -> Iterator[str]:
    """Run `flyx serve`; yield its URL."""
    command = [sys.executable, "-m", "flyx", "serve", "--host", "127.0.0.1", "--port", "0", "--stun", "none"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()


def measure_flyx(server: str, source: Path, directory: Path) -> Rate:
    """Measure one transfer of a file."""
    before = _cpu()
    flyx = [sys.executable, "-m", "flyx"]
    send = [*flyx, "send", "--server", server, "--quiet", str(source)]
    with subprocess.Popen(send, stdout=subprocess.PIPE, text=True) as sender:
        assert sender.stdout is not None
        code = sender.stdout.readline().split()[-1]
        started = time.perf_counter()
        receive = [*flyx, "receive", "--server", server, "--json", "--yes", "-o", str(directory), code]
        output = subprocess.run(receive, check=True, stdout=subprocess.PIPE, text=True).stdout
        command_seconds = time.perf_counter() - started
    events = [json.loads(line) for line in output.splitlines()]
    done = next(event for event in events if event["event"] == "done")
    (directory / source.name).unlink()
    return Rate(done["seconds"], command_seconds, _cpu() - before)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="100MB")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    size = parse_size(arguments.size)
    stock: list[Rate] = []
    ours: list[Rate] = []
    with tempfile.TemporaryDirectory() as scratch, signaling_server() as server:
        source = write_random(Path(scratch, "random.bin"), size)
        for _ in range(arguments.runs):
            stock.append(measure_stock(size))
            ours.append(measure_flyx(server, source, Path(scratch, "received")))
    print(f"{size / 1e6:g} MB, {arguments.runs} rounds, median (least to most)")
    print_row("aiortc", [size / rate.seconds / 1e6 for rate in stock], "MB/s")
    print_row("flyx", [size / rate.seconds / 1e6 for rate in ours], "MB/s")
    print_row("command", [size / rate.command_seconds / 1e6 for rate in ours], "MB/s")
    print_row("ratio", [s.seconds / o.seconds for s, o in zip(stock, ours, strict=True)], "flyx to aiortc")
    print_row("aiortc", [rate.cpu_seconds / size * 1e9 for rate in stock], "CPU s a GB")
    print_row("flyx", [rate.cpu_seconds / size * 1e9 for rate in ours], "CPU s a GB")


def print_row(name: str, values: list[float], unit: str) -> None:
    """Print one line of the table."""
    print(f"{name:8} {statistics.median(values):8.2f} ({min(values):.2f} to {max(values):.2f}) {unit}")


if __name__ == "__main__":
    main()
