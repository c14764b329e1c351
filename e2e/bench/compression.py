"""Where does compression pay? Whole transfers with `flyx send --compress off`, `auto` and `on`.

    python -m e2e.bench.compression [--links 5,50,500,none] [--contents text,random] [--runs 3]

Through emulated links (e2e/link) of so many Mbit/s with a round trip of 20 ms, and without any, over the
machine's own address. Text is the source code of Python's standard library in a tar. A figure is MB/s (10^6
bytes of the file) from the acceptance to the end, by the receiver's account: the median of the rounds, with
the least and the most; `ratio` is to `off` of the same round. CPU seconds are those of both ends. Links need
root, iproute2 and a C compiler.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from e2e.bench.throughput import FLYX, ended, line_of
from e2e.link import Host, Link, missing
from e2e.processes import write_random

DELAY_MS = 10.0
SIZES = {"5": 8_000_000, "50": 100_000_000, "500": 500_000_000, "none": 1_000_000_000}
"""Bytes of a file, by the link: some ten seconds where nothing is compressed, less on the fast ones."""

MODES = ("off", "auto", "on")

On = Callable[[Host, list[str]], list[str]]
"""Returns the command that runs this one on a host."""


def here(host: Host, command: list[str]) -> list[str]:
    """Where there is no link, both hosts are this machine."""
    return command


@dataclass(frozen=True)
class Run:
    """One transfer: bytes a second of the file, and CPU seconds of both ends."""

    rate: float
    cpu: float


def write_text(path: Path, size: int) -> Path:
    """Write so many bytes of source code, the same again and again: each block is compressed by itself."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for source in sorted(Path(sysconfig.get_path("stdlib")).glob("**/*.py")):
            if "site-packages" not in source.parts:
                tar.add(source, recursive=False)
    text = buffer.getvalue()
    with path.open("wb") as file:
        for start in range(0, size, len(text)):
            file.write(text[: size - start])
    return path


def measure(server: str, on: On, source: Path, target: Path, mode: str) -> Run:
    """Send a file once, and remove what arrived."""
    send = subprocess.Popen(
        on("left", [*FLYX, "send", "--server", server, "--quiet", "--compress", mode, str(source)]),
        stdout=subprocess.PIPE,
        text=True,
    )
    code = line_of(send).split()[-1]
    receive = subprocess.Popen(
        on("right", [*FLYX, "receive", "--server", server, "--json", "--yes", "-o", str(target), code]),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert receive.stdout is not None
    events = [json.loads(line) for line in receive.stdout]
    cpu = sum(ended(process)[0] for process in (send, receive))
    done = next(event for event in events if event["event"] == "done")
    subprocess.run(["rm", "-r", target], check=True)
    return Run(done["bytes"] / done["seconds"], cpu)


@contextlib.contextmanager
def hosts(link: str) -> Iterator[tuple[str, On]]:
    """Yield the URL of a server, and how to run a command on either host."""
    with contextlib.ExitStack() as stack:
        address, on = "127.0.0.1", here
        if link != "none":
            made = stack.enter_context(Link(rate_mbit=float(link), delay_ms=DELAY_MS))
            address, on = made.address("left"), made.on
        command = [*FLYX, "serve", "--host", address, "--port", "0", "--stun", "none"]
        server = stack.enter_context(
            subprocess.Popen(
                on("left", command), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        )
        stack.callback(server.terminate)
        yield line_of(server).split()[-1], on


def main() -> None:
    """Measure and print the table."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--links", default=",".join(SIZES), help="Mbit/s, or none")
    parser.add_argument("--contents", default="text,random")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--scratch", type=Path, help="directory to read from and write to; default: a new one"
    )
    arguments = parser.parse_args()
    links = arguments.links.split(",")
    if (lacking := missing()) and links != ["none"]:
        sys.exit(f"this needs {lacking}")
    # Bytecode is kept, as in use.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    writers = {"text": write_text, "random": write_random}
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        for link, content in itertools.product(links, arguments.contents.split(",")):
            source = writers[content](Path(scratch, content), SIZES[link])
            with hosts(link) as (server, on):
                rounds = [
                    {mode: measure(server, on, source, Path(scratch, "received"), mode) for mode in MODES}
                    for _ in range(arguments.runs)
                ]
            for mode in MODES:
                rates = [each[mode].rate / 1e6 for each in rounds]
                ratio = statistics.median(each[mode].rate / each["off"].rate for each in rounds)
                cpu = statistics.median(each[mode].cpu for each in rounds)
                print(
                    f"{link:>5} {content:7} {mode:5} {statistics.median(rates):8.2f} MB/s"
                    f" ({min(rates):.2f} to {max(rates):.2f})  {ratio:5.2f} x off, CPU {cpu:.1f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
