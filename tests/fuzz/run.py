"""Fuzz with coverage as the guide, from the corpus that is kept.

    pip install atheris
    python -m tests.fuzz.run                            a minute each
    python -m tests.fuzz.run --seconds 600 pairing      one of them, for longer
    python -m tests.fuzz.run --keep                     and keep in the corpus what reached further

A target fails with any exception, and with an input that costs more steps than its bound (work.py). What
fails is written to `--findings`, and `python -m tests.fuzz.run TARGET --replay FILE` shows it again, without
atheris; put it into the corpus once it is mended: a unit test replays that. Targets run in processes of their
own, as many at a time as there are processors.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from tests.fuzz import target
from tests.fuzz.target import CORPUS, MODULES
from tests.fuzz.work import lines

MAX_INPUT = 4096
"""Bytes of an input."""

MAX_SECONDS_AN_INPUT = 20
MAX_MEMORY_MB = 1024


def fuzz_here(name: str, arguments: list[str]) -> None:
    """Run libFuzzer in this process, which it ends."""
    import atheris

    with atheris.instrument_imports(include=["flyx"]):
        loaded = target.load(name)
    atheris.Setup([sys.argv[0], *arguments], loaded.check)
    atheris.Fuzz()


def fuzz(name: str, seconds: int, findings: Path, keep: bool) -> tuple[str, int, str]:
    """Fuzz one target in a process of its own; return its name, exit status and output."""
    kept = CORPUS / name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        options = [
            f"-max_total_time={seconds}",
            f"-max_len={MAX_INPUT}",
            f"-timeout={MAX_SECONDS_AN_INPUT}",
            f"-rss_limit_mb={MAX_MEMORY_MB}",
            f"-artifact_prefix={findings}/{name}-",
            "-print_final_stats=1",
        ]
        status, output = _child(name, [*options, scratch, str(kept)])
        if keep and status == 0:
            _keep(name, Path(scratch), kept)
    return name, status, output


def _keep(name: str, found: Path, kept: Path) -> None:
    """Replace a corpus by the smallest inputs that reach as many lines as it and what was found do."""
    loaded = target.load(name)
    inputs = {path.read_bytes() for directory in (kept, found) for path in directory.iterdir()}
    chosen: list[bytes] = []
    reached: set[tuple[str, int]] = set()
    for data in sorted(inputs, key=lambda data: (len(data), data)):
        new = lines(lambda data=data: loaded.one_input(data)) - reached
        if new:
            reached |= new
            chosen.append(data)
    # Not before all have run: one that fails leaves the corpus as it is.
    shutil.rmtree(kept)
    kept.mkdir()
    for data in chosen:
        (kept / sha256(data).hexdigest()[:12]).write_bytes(data)


def _child(name: str, arguments: list[str]) -> tuple[int, str]:
    command = [sys.executable, "-u", "-m", "tests.fuzz.run", "--here", name, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


def main() -> int:
    """Run what the command line asks for."""
    if sys.argv[1:2] == ["--here"]:
        fuzz_here(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(MODULES)}; or all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-failures"), help="for inputs that fail")
    parser.add_argument("--keep", action="store_true", help="add to the corpus what reached further")
    parser.add_argument("--replay", type=Path, help="try this input instead, and say what it costs")
    options = parser.parse_args()
    names = options.targets or list(MODULES)
    if options.replay:
        say(f"{target.load(names[0]).check(options.replay.read_bytes())} steps")
        return 0
    options.findings.mkdir(parents=True, exist_ok=True)
    failed = False
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda name: fuzz(name, options.seconds, options.findings, options.keep), names)
        for name, status, output in results:
            failed |= status != 0
            said = output.splitlines()
            say(f"{name}: {'FAILED' if status else 'fine'}")
            for line in said[-60:] if status else [line for line in said if "executed_units" in line]:
                say(f"  {line}")
    return int(failed)


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
