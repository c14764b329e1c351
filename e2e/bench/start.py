"""How long does it take to begin: from starting `flyx` to its answer, or to the first verified byte?

    python -m e2e.bench.start [--rows help,version,one-block,1MB] [--runs 7]

    help, version  `flyx --help` and `flyx --version`, from starting them to their end
    one-block      a file of one block, which is there already when its sender waits: from starting `flyx
                   receive` to the first verified byte
    1MB            the same of a file of 1 MB, and to the end of both programs

Everything on one machine; sender and receiver share its cores. The rows take turns in each round. Medians
(least to most) in milliseconds: of time, and of the CPU, user and system, that each program took until its
end, which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from e2e.bench.throughput import FLYX, Bench, Figures, signaling_server
from e2e.processes import write_random

SIZES = {"one-block": 1_000, "1MB": 1_000_000}


def answer(option: str) -> Figures:
    """What `flyx` takes to answer an option."""
    started = time.perf_counter()
    process = subprocess.Popen([*FLYX, option], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    elapsed = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return {"to the end": elapsed, "CPU": usage.ru_utime + usage.ru_stime}


def transfer(bench: Bench, size: int) -> Figures:
    """What both sides of a small transfer take."""
    source = bench.scratch / f"{size}.bin"
    if not source.exists():
        write_random(source, size)
    run = bench.flyx(source)
    return {
        "to the first verified byte": run.first_byte,
        "to the end of both": run.whole,
        "CPU of the sender": run.cpu[0],
        "CPU of the receiver": run.cpu[1],
    }


def measure(bench: Bench, row: str) -> Figures:
    """One round of a row: seconds by what they are."""
    return transfer(bench, SIZES[row]) if row in SIZES else answer(f"--{row}")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default="help,version,one-block,1MB")
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    # Bytecode is kept, as it is of the other programs, which pip has compiled.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    figures: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch, signaling_server() as server:
        bench = Bench(Path(scratch), server, max(SIZES.values()), arguments.runs)
        for row in arguments.rows.split(","):
            # The bytecode, and what the system keeps of files.
            measure(bench, row)
        for _ in range(arguments.runs):
            for row in arguments.rows.split(","):
                for name, seconds in measure(bench, row).items():
                    figures[row, name].append(seconds * 1000)
    for (row, name), values in figures.items():
        spread = f"({min(values):.0f} to {max(values):.0f})"
        print(f"{row:12} {statistics.median(values):8.0f} {spread:22} {name}, ms", flush=True)


if __name__ == "__main__":
    main()
