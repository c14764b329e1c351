"""How fast is a browser with `flyx` on the command line, and how much memory does its tab take?

    python -m e2e.bench.browser [--browser chromium] [--rows receive,kept,send,...] [--size 100MB] [--runs 3]

A browser, Chromium or Firefox, and the other end on one machine, over its own address; the rows take turns in
each round. Rates are MB/s (10^6 bytes) of the payload, from when it is accepted until both ends have
confirmed the digest.

    receive         `flyx send` to the page, which writes to a file as to one of the person's choice
    kept            the same, kept in the browser's own storage until it is complete, as a browser does that
                    does not let a page choose a file, as Firefox
    send            the page to `flyx receive`
    native-receive  a bare data channel from libwebrtc native (@roamhq/wrtc in Node) to a page in the same
                    browser: nothing is read, hashed or written
    native-send     the same from the page

Besides each rate: its ratio to the bare channel of that direction in the same round; the CPU seconds a GB of
all that takes part, and what part that is of all that the machine's processors had; the busiest thread, and
how much of one processor it had; and the peak memory of the tab's process that is its own (not that of files
and libraries, which others share). Each round is told on standard error. Needs Debian's chromium or
firefox-esr, and for the bare channel Node and `npm ci --prefix e2e/peers`. For the memory: --rows
receive,send --size 4GB --runs 1; it is tested (e2e/test_browsers_large.py).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from e2e.browsers import (
    CHROMIUM_FLAGS,
    DIALOGS,
    NO_DIALOGS,
    ChromiumTab,
    Firefox,
    Tab,
    click,
    page_of,
    pass_on,
    wait_for,
)
from e2e.peers.stacks import node_stack
from e2e.processes import Flyx, FlyxProcess, Server, clean_environment, write_random
from flyx.cli.demo import parse_size

MESSAGE_SIZE = 256 * 1024
SAMPLE_INTERVAL = 0.05
LONG = 1800.0
"""Seconds for any transfer."""

# Nobody at the other end of the bare channel resolves the names that stand for its addresses.
FLAGS = [*CHROMIUM_FLAGS, "--disable-features=WebRtcHideLocalIpsWithMdns"]

BARE = Path(__file__).parents[1] / "peers" / "bare.js"

EMPTY = """async () => {
    const root = await navigator.storage.getDirectory();
    for await (const name of root.keys()) await root.removeEntry(name, { recursive: true });
}"""
"""Removes all that the page keeps."""

NATIVE = {"receive": "native-receive", "kept": "native-receive", "send": "native-send"}
"""What a row is compared with."""

Threads = dict[tuple[str, int], float]
"""CPU seconds of a thread so far, by what it is called and its number."""


@dataclass
class Cost:
    """What has happened between two moments."""

    seconds: float
    cpu: float
    busiest: str
    busiest_cpu: float
    tab: float


class Watch:
    """Looks at all processes below this one while something is under way: their CPU, and the tab's memory."""

    def __init__(self) -> None:
        self._tabs = [process for process in _descendants() if _is_tab(_command(process))]
        self._peak = 0
        self._ended = threading.Event()
        self._before = _threads()
        self._begun = time.perf_counter()
        self._sampler = threading.Thread(target=self._sample)
        self._sampler.start()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_INTERVAL):
            for process in self._tabs:
                # One that was kept for the next page may end.
                with contextlib.suppress(psutil.NoSuchProcess):
                    memory = process.memory_info()
                    self._peak = max(self._peak, memory.rss - memory.shared)

    def end(self) -> Cost:
        """Look no more; return what was seen."""
        seconds = time.perf_counter() - self._begun
        self._ended.set()
        self._sampler.join()
        spent = {thread: cpu - self._before.get(thread, 0) for thread, cpu in _threads().items()}
        (name, _), most = max(spent.items(), key=lambda item: item[1])
        return Cost(seconds, sum(spent.values()), name, most, self._peak / 1e6)


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def _is_tab(command: list[str]) -> bool:
    """Whether a process is the one of a tab, of Chromium or of Firefox."""
    return "--type=renderer" in command or ("-contentproc" in command and command[-1] == "tab")


def _threads() -> Threads:
    found: Threads = {}
    for process in _descendants():
        with contextlib.suppress(psutil.Error, OSError):
            kinds = [
                word for word in process.cmdline() if word.startswith(("--type=", "--utility-sub-type="))
            ]
            kind = kinds[-1].rpartition("=")[2] if kinds else process.name()
            for thread in process.threads():
                name = Path(f"/proc/{process.pid}/task/{thread.id}/comm").read_text().strip()
                found[f"{kind}/{name}", thread.id] = thread.user_time + thread.system_time
    return found


@dataclass
class Run:
    """One transfer: seconds of its payload, and what was seen meanwhile."""

    payload: float
    cost: Cost


class Bench:
    """What the rows share: a browser, a server, a file and a scratch directory."""

    def __init__(self, scratch: Path, open_tab: Callable[[str], Tab], flyx: Flyx, size: int) -> None:
        """Args:
        scratch: where files are read from and written to.
        open_tab: opens a page in the browser, given what runs before all else in it.
        flyx: what speaks to it.
        size: bytes of each transfer.
        """
        self.scratch = scratch
        self.flyx = flyx
        self.size = size
        self.source = write_random(scratch / "random.bin", size)
        self._open_tab = open_tab

    @contextlib.contextmanager
    def tab(self, before: str = "") -> Iterator[Tab]:
        """A page of a process of its own, which keeps nothing afterwards."""
        tab = self._open_tab(before)
        try:
            yield tab
        finally:
            with contextlib.suppress(Exception):
                tab.call(EMPTY)
            tab.close()


# Rows.


def watch_receiving(tab: Tab, flyx: Flyx, source: Path) -> tuple[FlyxProcess, Cost]:
    """Send a file to a page; return `flyx send`, which has ended, and what it took."""
    sender = flyx.send(source)
    tab.open(f"{page_of(flyx.server)}#{sender.code()}")
    wait_for(tab, "offer")
    watch = Watch()
    click(tab, "#save")
    wait_for(tab, "done", LONG)
    cost = watch.end()
    return sender.ends(0), cost


def watch_sending(tab: Tab, flyx: Flyx, source: Path, directory: Path) -> tuple[FlyxProcess, Cost]:
    """Have a page send a file into a directory; return `flyx receive`, which has ended, and what it took."""
    tab.open(page_of(flyx.server))
    wait_for(tab, "start")
    tab.choose("#files", source)
    receiver = flyx.receive(pass_on(tab), directory)
    receiver.event("manifest")
    watch = Watch()
    wait_for(tab, "done", LONG)
    cost = watch.end()
    return receiver.ends(0), cost


def receive(bench: Bench, dialogs: str = DIALOGS) -> Run:
    """The page receives."""
    with bench.tab(dialogs) as tab:
        sender, cost = watch_receiving(tab, bench.flyx, bench.source)
    return Run(sender.event("done")["seconds"], cost)


def kept(bench: Bench) -> Run:
    """The page receives, and chooses no file."""
    return receive(bench, NO_DIALOGS)


def send(bench: Bench) -> Run:
    """The page sends."""
    directory = bench.flyx.directory / "received"
    with bench.tab() as tab:
        receiver, cost = watch_sending(tab, bench.flyx, bench.source, directory)
    shutil.rmtree(directory)
    return Run(receiver.event("done")["seconds"], cost)


class Native:
    """An end of a bare channel on libwebrtc native, in Node."""

    def __init__(self) -> None:
        command = node_stack("bare_wrtc.js").command
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(self, step: str, *given: Any) -> Any:
        """Have it take a step; return what comes of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([step, *given]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def native(bench: Bench, *, from_page: bool) -> Run:
    """A bare channel."""
    with bench.tab() as tab, contextlib.closing(Native()) as end:
        tab.open(page_of(bench.flyx.server))
        wait_for(tab, "start")
        # By the protocol of the browser's tools: the page's policy runs no script of others.
        tab.call(f"() => {{ {BARE.read_text()} globalThis.end = makeEnd(RTCPeerConnection) }}")

        def step(name: str, *given: Any) -> Any:
            return tab.call("(step, ...given) => end[step](...given)", name, *given)

        end.call("accept", step("answer", end.call("offer")))
        sender, receiver = (step, end.call) if from_page else (end.call, step)
        receiver("expect", bench.size)
        watch = Watch()
        seconds = sender("send", bench.size, MESSAGE_SIZE)
        cost = watch.end()
        step("close")
    return Run(seconds, cost)


def native_receive(bench: Bench) -> Run:
    """From libwebrtc native to the page."""
    return native(bench, from_page=False)


def native_send(bench: Bench) -> Run:
    """From the page to libwebrtc native."""
    return native(bench, from_page=True)


ROWS: dict[str, Callable[[Bench], Run]] = {
    "receive": receive,
    "kept": kept,
    "send": send,
    "native-receive": native_receive,
    "native-send": native_send,
}


class PageTab(ChromiumTab):
    """A page of a context that others share."""

    def __init__(self, context: Any, before: str, quota: int) -> None:
        super().__init__(context, quota)
        self.page.set_default_timeout(LONG * 1000)
        self.page.add_init_script(before)

    def close(self) -> None:
        self.page.close()


@contextlib.contextmanager
def chromium(directory: Path, quota: int) -> Iterator[Callable[[str], Tab]]:
    """Run Chromium with a profile on the disk: one that is private keeps in memory what pages save."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            directory / "profile",
            executable_path=shutil.which("chromium"),
            args=FLAGS,
            chromium_sandbox=False,
            downloads_path=directory,
        )
        try:
            yield lambda before: PageTab(context, before, quota)
        finally:
            context.close()


@contextlib.contextmanager
def firefox(directory: Path, quota: int) -> Iterator[Callable[[str], Tab]]:
    """Run Firefox, whose profile is on the disk."""
    with contextlib.closing(Firefox(directory, quota=quota)) as browser:
        yield lambda before: browser.tab(before=before)


BROWSERS = {"chromium": chromium, "firefox": firefox}


def room_for(size: int) -> int:
    """Bytes that a page may keep which receives so many."""
    return 4 * size + (1 << 30)


@contextlib.contextmanager
def programs(directory: Path) -> Iterator[Flyx]:
    """Run `flyx serve`, and whatever is to speak to it."""
    environment = clean_environment(directory)
    # Bytecode is kept, as it is where flyx is installed.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    server = Server(environment, directory)
    flyx = Flyx(server.url, directory, environment)
    flyx.adopt(server)
    try:
        yield flyx
    finally:
        flyx.close()


def main() -> None:
    """Measure and print the table."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--browser", choices=BROWSERS, default="chromium")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--size", default="100MB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="where files are read from and written to")
    arguments = parser.parse_args()
    rows = arguments.rows.split(",")
    size = parse_size(arguments.size)
    rounds: list[dict[str, Run]] = []
    with (
        tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch,
        BROWSERS[arguments.browser](Path(scratch), room_for(size)) as open_tab,
        programs(Path(scratch)) as flyx,
    ):
        bench = Bench(Path(scratch), open_tab, flyx, size)
        for _ in range(arguments.runs):
            rounds.append({})
            for row in rows:
                rounds[-1][row] = ROWS[row](bench)
                print(f"{row:14} {described([rounds[-1][row]], size)}", file=sys.stderr, flush=True)
    print(f"{size / 1e6:g} MB, {arguments.runs} rounds; medians (least to most)")
    for row in rows:
        print(
            f"{row:14} {described([each[row] for each in rounds], size)}{compared(rounds, row)}", flush=True
        )


def described(runs: list[Run], size: int) -> str:
    """The figures of a row."""
    rates = [size / run.payload / 1e6 for run in runs]
    cpu = statistics.median(run.cost.cpu for run in runs)
    used = statistics.median(run.cost.cpu / run.cost.seconds for run in runs) / (os.cpu_count() or 1)
    busy: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        busy[run.cost.busiest].append(run.cost.busiest_cpu / run.cost.seconds)
    name = max(busy, key=lambda name: len(busy[name]))
    return (
        f"{statistics.median(rates):6.1f} MB/s ({min(rates):.1f} to {max(rates):.1f})"
        f"  CPU s a GB {cpu / size * 1e9:.1f}, {used:.0%} of all"
        f"  busiest {name} {statistics.median(busy[name]):.0%}"
        f"  tab {max(run.cost.tab for run in runs):.0f} MB"
    )


def compared(rounds: list[dict[str, Run]], row: str) -> str:
    """How a row is to the bare channel of the same rounds."""
    if (base := NATIVE.get(row)) is None or base not in rounds[0]:
        return ""
    ratios = [each[base].payload / each[row].payload for each in rounds]
    return f"  x{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of {base}"


if __name__ == "__main__":
    main()
