"""How fast is a data channel, memory to memory, beside other stacks in the same run?

    python -m e2e.bench.channel [--size 300MB] [--runs 5] [--stacks flyx,flyx-1200,libwebrtc,aiortc]

Two processes on one machine over its own address, one reliable ordered channel, one way. Rates are MB/s (10^6
bytes) from the first byte sent to the receiver's word that it has all; CPU is of each whole process, in
seconds a GB, start-up included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time

from e2e.bench.stacks import BUFFERED_HIGH, MESSAGE_SIZE, End, cost, make_end
from flyx.cli.demo import parse_size
from flyx.net.loop import new_event_loop


async def send(stack: str, size: int) -> dict[str, float]:
    """Be the sending end; return rate, CPU of both and memory of both."""
    receiver = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "e2e.bench.stacks", stack, str(size)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    assert receiver.stdin is not None
    assert receiver.stdout is not None
    end = make_end(stack)
    receiver.stdin.write(json.dumps(await end.offer()).encode() + b"\n")
    await end.accept(json.loads(await receiver.stdout.readline()))
    await end.opened.wait()
    seconds = await push(end, size)
    theirs = json.loads(await receiver.stdout.readline())
    ours = cost()
    await end.close()
    receiver.kill()
    await receiver.wait()
    gigabytes = size / 1e9
    return {
        "rate": size / seconds / 1e6,
        "send_cpu": ours["cpu"] / gigabytes,
        "receive_cpu": theirs["cpu"] / gigabytes,
        "send_rss": ours["rss"],
        "receive_rss": theirs["rss"],
    }


async def push(end: End, size: int) -> float:
    """Send size bytes; return the seconds until the receiver has them."""
    message = os.urandom(MESSAGE_SIZE)
    started = time.perf_counter()
    sent = 0
    while sent < size:
        end.writable.clear()
        while sent < size and end.buffered() < BUFFERED_HIGH:
            end.send(message[: size - sent])
            sent += MESSAGE_SIZE
        if sent < size:
            await end.writable.wait()
    await end.complete.wait()
    return time.perf_counter() - started


def measure(stack: str, size: int) -> dict[str, float]:
    """Measure in a process of its own, so that CPU and memory are those of one run."""
    command = [sys.executable, "-m", "e2e.bench.channel", "--one", stack, "--size", str(size)]
    figures: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return figures


def main() -> None:
    """Measure and print the table."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--size", default="300MB")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--stacks", default="flyx,flyx-1200,libwebrtc,aiortc")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    size = parse_size(arguments.size)
    if arguments.one:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            print(json.dumps(runner.run(send(arguments.one, size))))
        return
    stacks = arguments.stacks.split(",")
    figures: dict[str, list[dict[str, float]]] = {stack: [] for stack in stacks}
    for _ in range(arguments.runs):
        for stack in stacks:
            # The slow one gets less to do: its rate does not depend on it.
            figures[stack].append(measure(stack, size // 6 if stack == "aiortc" else size))
    print(f"{size / 1e6:g} MB, {arguments.runs} rounds; median (least to most), ratio to {stacks[-1]}")
    for stack, runs in figures.items():
        rates = [run["rate"] for run in runs]
        ratios = [run["rate"] / base["rate"] for run, base in zip(runs, figures[stacks[-1]], strict=True)]
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        print(
            f"{stack:10} {middle['rate']:7.1f} MB/s ({min(rates):.1f} to {max(rates):.1f})"
            f"  x{statistics.median(ratios):.2f}"
            f"  CPU s a GB {middle['send_cpu']:.2f} + {middle['receive_cpu']:.2f}"
            f"  RSS {middle['send_rss']:.0f} + {middle['receive_rss']:.0f} MB"
        )


if __name__ == "__main__":
    main()
