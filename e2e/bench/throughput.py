"""How fast are whole transfers, `flyx send` to `flyx receive`, beside other programs in the same run?

    python -m e2e.bench.throughput [--rows disk,memory,...] [--size 1GB] [--runs 5]

Everything on one machine, over its own addresses, a process each for server, sender and receivers. A figure
is the median of the rounds, with the least and the most; rates are MB/s (10^6 bytes). Machines are noisy: the
ratios, taken within each round, are worth more than the figures.

    disk         one random file, from starting the receiver to the end of both, hashing and start-up
                 included: flyx, flyx with packets of 1,200 bytes, and magic-wormhole (extra `bench`) between
                 the same two directories; and the bare data channel with packets of 1,200 bytes
    stock        the payload's rate alone, beside stock aiortc's channel on uvloop, memory to memory
    memory       peak memory (MB) of sender and receiver; take --size 10GB
    receivers    eight receivers of one sender at once: bytes a second in all while all of them run, beside
                 those to one receiver
    first-byte   seconds from starting `flyx receive` to the first verified byte
    small-files  10,000 files of 4 KB, beside one file of 40 MB plus `tar x` of the same tree; and the CPU
                 seconds that both programs take
    many-files   the same with 100,000 files
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO

from e2e.bench.channel import measure
from e2e.processes import write_random
from flyx.cli.demo import parse_size

Environment = dict[str, str]
Figures = dict[str, float]

FLYX = (sys.executable, "-m", "flyx")
# Its packets keep to 1,200 bytes, as on paths whose MTU is not known to be larger.
FLYX_1200 = (
    sys.executable,
    "-c",
    "import flyx.rtc.dtls as dtls; dtls.MAX_PACKET_SIZE = 1160; import flyx.__main__ as m; m.main()",
)
WORMHOLE = (sys.executable, "-m", "wormhole")

RECEIVERS = 8
SMALL_SIZE = 4_000


@dataclass(frozen=True)
class Run:
    """One transfer: seconds of the payload by the receiver's account, of both programs from the start of the
    receiver to their end, to the first verified byte, CPU seconds and peak memory (MB) of each.
    """

    payload: float
    whole: float
    first_byte: float
    cpu: tuple[float, float]
    peak: tuple[float, float]


class Bench:
    """What the rows share: a scratch directory, a server, and how much to send how often."""

    def __init__(self, scratch: Path, server: str, size: int, runs: int) -> None:
        self.scratch = scratch
        self.server = server
        self.size = size
        self.runs = runs

    def source(self) -> Path:
        """A random file of the size wanted."""
        path = self.scratch / "random.bin"
        return path if path.exists() else write_random(path, self.size)

    def send(
        self, source: Path, receivers: int = 1, *, program: Sequence[str] = FLYX
    ) -> tuple[subprocess.Popen[str], str]:
        """Start a sender; return it and its code."""
        options = ["--server", self.server, "--quiet", "--receivers", str(receivers)]
        process = subprocess.Popen(
            [*program, "send", *options, str(source)], stdout=subprocess.PIPE, text=True
        )
        return process, line_of(process).split()[-1]

    def receive(self, code: str, target: Path, *, program: Sequence[str] = FLYX) -> subprocess.Popen[str]:
        """Start a receiver, which prints its events."""
        options = ["--server", self.server, "--json", "--yes", "-o", str(target)]
        return subprocess.Popen([*program, "receive", *options, code], stdout=subprocess.PIPE, text=True)

    def flyx(self, source: Path, *, program: Sequence[str] = FLYX, keep: bool = False) -> Run:
        """Transfer something to one receiver, and remove what arrived, at the end of the bench if it is to be
        kept until then."""
        send, code = self.send(source, program=program)
        target = Path(tempfile.mkdtemp(dir=self.scratch)) if keep else self.scratch / "received"
        started_at, started = time.time(), time.perf_counter()
        receive = self.receive(code, target, program=program)
        assert receive.stdout is not None
        events = [json.loads(line) for line in receive.stdout]
        costs = [ended(process) for process in (send, receive)]
        whole = time.perf_counter() - started
        done = next(event for event in events if event["event"] == "done")
        first = next(event["time"] for event in events if event["event"] == "progress" and event["bytes"])
        if not keep:
            subprocess.run(["rm", "-r", target], check=True)
        return Run(
            done["seconds"],
            whole,
            first - started_at,
            (costs[0][0], costs[1][0]),
            (costs[0][1], costs[1][1]),
        )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def ended(process: subprocess.Popen[str]) -> tuple[float, float]:
    """Wait for a process; return its CPU seconds and peak memory in MB."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


# Rows: each returns figures of one round by name.


def disk(bench: Bench) -> Figures:
    """One file from disk to disk."""
    source = bench.source()
    megabytes = bench.size / 1e6
    ours = bench.flyx(source)
    small = bench.flyx(source, program=FLYX_1200)
    channel = measure("flyx-1200", bench.size // 2)["rate"]
    wormhole = megabytes / measure_wormhole(bench, source)
    return {
        "flyx, MB/s": megabytes / ours.whole,
        "flyx with packets of 1,200 bytes, MB/s": megabytes / small.whole,
        "magic-wormhole, MB/s": wormhole,
        "bare channel with packets of 1,200 bytes, MB/s": channel,
        "flyx to magic-wormhole (goal 2.5)": megabytes / ours.whole / wormhole,
        "1,200 bytes: flyx's payload to the bare channel (goal 0.7)": megabytes / small.payload / channel,
        "1,200 bytes: whole command to the bare channel": megabytes / small.whole / channel,
        "sender's CPU s a GB": ours.cpu[0] / megabytes * 1e3,
        "receiver's CPU s a GB": ours.cpu[1] / megabytes * 1e3,
    }


def measure_wormhole(bench: Bench, source: Path) -> float:
    """Seconds that magic-wormhole takes, from starting its receiver to the end of both."""
    with _wormhole_mailbox(bench.scratch) as mailbox:
        # Its transit relay is not needed on one machine, and is not to be looked for.
        common = [*WORMHOLE, "--relay-url", mailbox, "--transit-helper", "tcp:127.0.0.1:9"]
        send = subprocess.Popen(
            [*common, "send", "--hide-progress", "--no-qr", "--code", "7-bench-mark", str(source)],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert send.stderr is not None
        _wait_for(send.stderr, "wormhole receive")
        # Nobody else reads it, and it must not fill.
        threading.Thread(target=send.stderr.read, daemon=True).start()
        target = bench.scratch / "wormhole"
        target.mkdir()
        started = time.perf_counter()
        command = [*common, "receive", "--hide-progress", "--accept-file", "7-bench-mark"]
        receive = subprocess.Popen(
            command, cwd=target, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
        )
        for process in (receive, send):
            ended(process)
        seconds = time.perf_counter() - started
        subprocess.run(["rm", "-r", target], check=True)
        return seconds


@contextlib.contextmanager
def _wormhole_mailbox(scratch: Path) -> Iterator[str]:
    """Run magic-wormhole's own rendezvous server; yield its URL."""
    command = [sys.executable, "-m", "twisted", "wormhole-mailbox", "--port=tcp:0:interface=127.0.0.1"]
    with subprocess.Popen(
        command, cwd=scratch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout is not None
        try:
            port = _wait_for(server.stdout, r"starting on (\d+)")[1]
            threading.Thread(target=server.stdout.read, daemon=True).start()
            yield f"ws://127.0.0.1:{port}/v1"
        finally:
            server.terminate()


def _wait_for(stream: IO[str], pattern: str) -> re.Match[str]:
    said = ""
    for line in stream:
        if found := re.search(pattern, line):
            return found
        said += line
    raise RuntimeError(f"a program ended without saying {pattern!r}:\n{said}")


def stock(bench: Bench) -> Figures:
    """The payload alone beside the stock channel."""
    ours = bench.flyx(bench.source())
    theirs = measure("aiortc", min(bench.size, 50_000_000))["rate"]
    rate = bench.size / 1e6 / ours.payload
    return {"flyx, MB/s": rate, "aiortc's channel, MB/s": theirs, "ratio": rate / theirs}


def memory(bench: Bench) -> Figures:
    """Peak memory."""
    run = bench.flyx(bench.source())
    return {
        "sender, MB (goal 120)": run.peak[0],
        "receiver, MB (goal 120)": run.peak[1],
        "payload, MB/s": bench.size / 1e6 / run.payload,
    }


def receivers(bench: Bench) -> Figures:
    """Many receivers at once beside one."""
    one = _rate_while_all_run(_receive_together(bench, 1))
    timelines = _receive_together(bench, RECEIVERS)
    together = _rate_while_all_run(timelines)
    begin, end = min(line[0][0] for line in timelines), max(line[-1][0] for line in timelines)
    return {
        "one receiver, MB/s": one,
        f"{RECEIVERS} while all of them run, MB/s": together,
        "ratio (goal 0.8)": together / one,
        f"{RECEIVERS} from the first byte of the first to the last of the last, MB/s": RECEIVERS
        * bench.size
        / 1e6
        / (end - begin),
    }


Timeline = list[tuple[float, int]]
"""When a receiver had verified how many bytes, from the first to all."""


def _receive_together(bench: Bench, count: int) -> list[Timeline]:
    """Transfer the file to so many receivers, started at once; remove what arrived."""
    send, code = bench.send(bench.source(), count)
    targets = [bench.scratch / f"received-{number}" for number in range(count)]
    running = [bench.receive(code, target) for target in targets]
    outputs: list[str] = []
    listeners = [
        threading.Thread(target=lambda process=process: outputs.append(process.stdout.read()))
        for process in running
    ]
    for listener in listeners:
        listener.start()
    for listener in listeners:
        listener.join()
    for process in (*running, send):
        ended(process)
    for target in targets:
        subprocess.run(["rm", "-r", target], check=True)
    return [_timeline(output) for output in outputs]


def _timeline(output: str) -> Timeline:
    events = [json.loads(line) for line in output.splitlines()]
    return [(e["time"], e["bytes"]) for e in events if e["event"] in ("progress", "done") and e["bytes"]]


def _rate_while_all_run(timelines: list[Timeline]) -> float:
    """MB/s of all together, from when the last has begun until the first has ended.

    Programs that still load take a large part of two cores, which says nothing of transfers.
    """
    begin, end = max(line[0][0] for line in timelines), min(line[-1][0] for line in timelines)
    arrived = sum(_verified(line, end) - _verified(line, begin) for line in timelines)
    return arrived / 1e6 / (end - begin)


def _verified(timeline: Timeline, moment: float) -> float:
    """Bytes by then, as many a second between two events as between any other moments there."""
    for (earlier, old), (later, new) in pairwise(timeline):
        if earlier <= moment <= later:
            return old + (new - old) * (moment - earlier) / (later - earlier) if later > earlier else new
    raise ValueError("this receiver was not under way")


def first_byte(bench: Bench) -> Figures:
    """The start."""
    path = bench.scratch / "small.bin"
    if not path.exists():
        write_random(path, 3_000_000)
    run = bench.flyx(path)
    return {"to the first verified byte, s (goal 1.0)": run.first_byte, "to the end of both, s": run.whole}


def small_files(bench: Bench, count: int = 10_000) -> Figures:
    """A tree of many small files beside one file, and beside tar.

    Nothing is removed meanwhile: ext4 gives no new file the inode of one that was removed a short while ago,
    and to pass over 10,000 of those takes several times as long as to make a file. So between two runs on
    such a disk, wait for 5 minutes, or use --scratch.
    """
    scratch = bench.scratch / f"{count}"
    tree, one_file, archive = scratch / "tree", scratch / "one.bin", scratch / "tree.tar"
    if not scratch.exists():
        for number in range(count):
            write_random(tree / f"{number % 100}" / f"{number}", SMALL_SIZE)
        write_random(one_file, count * SMALL_SIZE)
        subprocess.run(["tar", "cf", archive, "-C", scratch, "tree"], check=True)
    many, one = bench.flyx(tree, keep=True), bench.flyx(one_file, keep=True)
    target = Path(tempfile.mkdtemp(dir=scratch))
    started = time.perf_counter()
    subprocess.run(["tar", "xf", archive, "-C", target], check=True)
    tar = time.perf_counter() - started
    return {
        "the files, s": many.whole,
        "one file, s": one.whole,
        "tar x, s": tar,
        "the files to one file and tar (goal 1)": many.whole / (one.whole + tar),
        "sender's CPU s": many.cpu[0],
        "receiver's CPU s": many.cpu[1],
    }


ROWS = {
    "disk": disk,
    "stock": stock,
    "memory": memory,
    "receivers": receivers,
    "first-byte": first_byte,
    "small-files": small_files,
    "many-files": partial(small_files, count=100_000),
}


@contextlib.contextmanager
def signaling_server() -> Iterator[str]:
    """Run `flyx serve`; yield its URL."""
    command = [*FLYX, "serve", "--host", "127.0.0.1", "--port", "0", "--stun", "none"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            yield line_of(server).split()[-1]
        finally:
            server.terminate()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--size", default="1GB")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--scratch", type=Path, help="directory to read from and write to; default: a new one"
    )
    arguments = parser.parse_args()
    # Bytecode is kept, as it is of the other programs, which pip has compiled.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch, signaling_server() as server:
        bench = Bench(Path(scratch), server, parse_size(arguments.size), arguments.runs)
        for name in arguments.rows.split(","):
            rounds = [ROWS[name](bench) for _ in range(bench.runs)]
            for figure in rounds[0]:
                values = [each[figure] for each in rounds]
                spread = f"({min(values):.2f} to {max(values):.2f})"
                print(f"{name:12} {statistics.median(values):8.2f} {spread:22} {figure}", flush=True)


if __name__ == "__main__":
    main()
