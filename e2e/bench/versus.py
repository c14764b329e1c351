"""Is this faster than it was? A revision and this checkout, by the same bench in turns.

    python -m e2e.bench.versus [--runs 5] [--pure] REVISION [BENCH [its arguments]]

such as `python -m e2e.bench.versus v1.0 throughput --rows disk --size 1GB`; without BENCH it is channel, with
flyx's own stacks. Both are installed as by `pip install`, each into an environment of its own that has the
libraries of this one: REVISION from git, and this checkout with what is not committed yet. Each runs the
bench that belongs to it, which knows its innards, one round at a time.

Every line that the bench prints becomes a heading with a # for each figure that ever changes. Below it a row
for each: the median of REVISION with the least and the most, that of this checkout, and how many times as
much that is, the median of the rounds.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEFAULT = ["channel", "--stacks", "flyx,flyx-1200"]

_SPREAD = re.compile(r"\([\d.]+ to [\d.]+\)")
"""What a bench says of a single run: twice the same."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")

Line = tuple[str, int]
"""The words of a line, with # for each number, and how often they came before in the same output."""
Output = dict[Line, list[str]]
"""The numbers of each line."""


@dataclass(frozen=True)
class Built:
    """A flyx that is installed, and the place to run its benches from."""

    python: Path
    source: Path

    def run(self, bench: list[str]) -> Output:
        """Run one round of a bench."""
        name, *arguments = bench
        command = [str(self.python), "-m", f"e2e.bench.{name}", *arguments, "--runs", "1"]
        return read(_output(command, self.source))


def _output(command: Sequence[str | Path], directory: Path, **variables: str) -> str:
    """Run a command that finds no other flyx than that of its environment."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")} | variables
    return subprocess.run(
        command, cwd=directory, env=environment, stdout=subprocess.PIPE, check=True, text=True
    ).stdout


def take_revision(revision: str, source: Path) -> None:
    """Put the files of a revision there."""
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "x", "-C", source], input=archive.stdout, check=True)


def take_checkout(source: Path) -> None:
    """Put the files of this checkout there, as they are now."""
    listed = _output(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name, follow_symlinks=False)


def build(place: Path, *, pure: bool) -> Built:
    """Install what is in place/source into an environment in place."""
    source, environment = place / "source", place / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python3*/site-packages")
    # What is named in such a file is searched, but its own such files are not: none leads to the checkout.
    shared = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "shared.pth").write_text("\n".join(shared))
    python = environment / "bin" / "python"
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", *options, str(source)]
    _output(install, place, **({"FLYX_PURE": "1"} if pure else {}))
    # Only what is installed is left to import.
    shutil.rmtree(source / "flyx")
    return Built(python, source)


def read(output: str) -> Output:
    """Take the numbers out of what a bench has printed."""
    lines: Output = {}
    seen: Counter[str] = Counter()
    for line in output.splitlines():
        words = " ".join(_SPREAD.sub("", line).split())
        shape = _NUMBER.sub("#", words)
        lines[shape, seen[shape]] = _NUMBER.findall(words)
        seen[shape] += 1
    return lines


def report(before: list[Output], after: list[Output]) -> str:
    """Return the table of so many rounds each."""
    table = []
    for line in before[0]:
        if not all(line in output for output in (*before, *after)):
            continue
        heading, rows = line[0].split("#"), []
        columns = zip(*(output[line] for output in (*before, *after)), strict=True)
        for number, column in enumerate(columns):
            if len(set(column)) == 1:
                # No figure, but one of the words.
                heading[number] += column[0]
            else:
                heading[number] += "#"
                rows.append(_row(column[: len(before)], column[len(before) :]))
        table += ["".join(heading), *rows]
    return "\n".join(table)


def _row(theirs: tuple[str, ...], ours: tuple[str, ...]) -> str:
    before, after = ([float(number.replace(",", "")) for number in numbers] for numbers in (theirs, ours))
    ratios = [new / old for old, new in zip(before, after, strict=True) if old]
    ratio = f"x{statistics.median(ratios):.2f}" if ratios else ""
    return f"    {_spread(before):32} {_spread(after):32} {ratio}"


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):10.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Build both, run the rounds, and print the table."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("revision")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--pure", action="store_true", help="build REVISION without compiling it")
    parser.add_argument("bench", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    bench = arguments.bench or DEFAULT
    with tempfile.TemporaryDirectory() as scratch:
        places = [Path(scratch, name) for name in ("before", "after")]
        for place in places:
            (place / "source").mkdir(parents=True)
        take_revision(arguments.revision, places[0] / "source")
        take_checkout(places[1] / "source")
        before = build(places[0], pure=arguments.pure)
        after = build(places[1], pure=False)
        outputs: dict[Built, list[Output]] = {before: [], after: []}
        for number in range(arguments.runs):
            # Whoever is first is now the one and now the other.
            for built in (before, after) if number % 2 else (after, before):
                outputs[built].append(built.run(bench))
        print(report(outputs[before], outputs[after]))


if __name__ == "__main__":
    main()
