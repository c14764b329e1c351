"""The page of `flyx serve` in real browsers while a cable is out: it says what it waits for, and goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.browsers import (
    DIALOGS,
    NO_DIALOGS,
    PICKED,
    Browsers,
    Tab,
    browsers_in,
    click,
    pass_on,
    text_of,
    wait,
    wait_for,
)
from e2e.network import Network
from e2e.processes import Flyx, FlyxProcess, sha256, write_random
from e2e.services import Certificate
from flyx.transfer.manifest import BLOCK_SIZE

MB = 10**6

SIZE = 20 * MB
RATE = 20
"""Mbit/s: SIZE takes 8 s, so that there is a middle."""

UNDER_WAY = 2 * MB
"""Bytes on a link of RATE, and of the block that they are of, at most."""

RETURN = 15.0
"""Seconds from when the cable is in again until more has arrived."""

ADDRESSES = {"server": "10.93.0.1", "program": "10.93.0.2", "browser": "10.93.0.3"}


class Scene:
    """A server, a browser, and `flyx` on a command line, on three hosts."""

    def __init__(self, network: Network, flyx: Flyx, directory: Path) -> None:
        """Args:
        network: where they are.
        flyx: its processes end with it.
        directory: of everything.
        """
        switch = network.switch()
        self.hosts = {name: network.host(name) for name in ADDRESSES}
        for name, host in self.hosts.items():
            via = () if name == "server" else ADDRESSES["server"]
            host.plug(switch, f"{ADDRESSES[name]}/24", via=via).limit(RATE)
        self._flyx = flyx
        self._directory = directory
        # Browsers encrypt for no page that came by plain http from elsewhere.
        certificate = Certificate(directory / "certificate", ADDRESSES["server"])
        self._trust = {"SSL_CERT_FILE": str(certificate.authority)}
        tls = ["--tls-cert", certificate.chain, "--tls-key", certificate.key]
        listen = ["--host", "0.0.0.0", "--port", "0", "--stun", "none", "--log-level", "warning"]
        port = self._start("server", "serve", *listen, *tls).prints(r"wss://\S+:(\d+)\n")[1]
        self._server = f"{ADDRESSES['server']}:{port}"
        self.page = f"https://{self._server}/"
        self.source = write_random(directory / "file.bin", SIZE)

    def run(self, command: str, *arguments: str | Path) -> FlyxProcess:
        """Run `flyx` on its host."""
        return self._start("program", command, "--server", f"wss://{self._server}", "--json", *arguments)

    def _start(self, host: str, *arguments: str | Path) -> FlyxProcess:
        environment = self._flyx.environment | self._trust
        return self._flyx.adopt(self.hosts[host].start(arguments, environment, self._directory))

    def hurry(self) -> None:
        """The middle is over: what is left may go fast."""
        for host in self.hosts.values():
            host.limit(20 * RATE)

    def arrived(self, host: str) -> int:
        """Bytes that its cable has brought to a host."""
        return int(self.hosts[host].run("cat", "/sys/class/net/eth0/statistics/rx_bytes"))


@pytest.fixture
def scene(flyx: Flyx, tmp_path: Path) -> Iterator[Scene]:
    with Network() as network:
        yield Scene(network, flyx, tmp_path)
        flyx.close()


@pytest.fixture
def browsers(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browsers]:
    """The browsers on their host; whatever a page complains of fails the test."""
    for running in browsers_in(tmp_path_factory.mktemp("browsers"), scene.hosts["browser"]):
        yield running
        assert list(running.end_test()) == []


def without_cable(
    scene: Scene, program: FlyxProcess, tab: Tab, whose: str, seconds: int, texts: tuple[str, str, str]
) -> int:
    """Pull a cable in the middle of a transfer, and put it in again after so long; wait for the end.

    Return the bytes that were verified while it was out.

    Args:
        scene: where.
        program: `flyx` at one end of it.
        tab: the other.
        whose: cable.
        seconds: for which it is out.
        texts: where the page tells of it; what it says before the connection is given up, and after.
    """
    section, silent, lost = texts
    program.event("progress", lambda event: event["bytes"] > SIZE // 10)
    scene.hosts[whose].cable("down")
    pulled = time.monotonic()
    wait(tab, f"document.getElementById('{section}').innerText.includes('nothing heard for 8 s')")
    assert silent in text_of(tab, f"#{section}")
    if seconds > 30:
        wait(tab, f"document.getElementById('{section}').innerText.includes('no connection for 3')")
        assert lost in text_of(tab, f"#{section}")
        if whose == "browser":
            assert "The server is out of reach" in text_of(tab, "#notice")
    # The time is the condition here.
    time.sleep(pulled + seconds - time.monotonic())
    scene.hurry()
    back = time.time()
    scene.hosts[whose].cable("up")
    wait_for(tab, "done")
    goes_on = min(event["time"] for event in program.named("progress") if event["time"] > back)
    assert goes_on - back < RETURN
    program.ends(0)
    return max(event["bytes"] for event in program.named("progress") if event["time"] < back)


def cases(*sides: str) -> pytest.MarkDecorator:
    """Whose cable is out for how many seconds; all but the first of a test need a person's patience."""
    names = ["side", "whose", "seconds"]
    every = [
        (side, whose, seconds) for seconds in (20, 60) for whose in ("browser", "program") for side in sides
    ]
    often = [("chromium picked", "browser", 20)]
    marked = [pytest.param(*each, marks=[] if each in often else pytest.mark.soak) for each in every]
    return pytest.mark.parametrize(names, marked)


@cases("chromium picked", "chromium kept", "firefox kept")
def test_a_page_that_receives_goes_on_where_it_was(
    scene: Scene, browsers: Browsers, side: str, whose: str, seconds: int
) -> None:
    browser, _, place = side.partition(" ")
    sender = scene.run("send", scene.source)
    tab = browsers.tab(browser, before=DIALOGS if place == "picked" else NO_DIALOGS)
    tab.open(f"{scene.page}#{sender.code()}")
    wait_for(tab, "offer")
    before = scene.arrived("browser")
    click(tab, "#save")
    silent = "Nothing is heard from the sender. Waiting for it"
    lost = "The connection is lost. Another one is being made"
    without_cable(scene, sender, tab, whose, seconds, ("transfer", silent, lost))
    if place == "picked":
        assert tab.call(PICKED) == {"file.bin": sha256(scene.source)}
    else:
        assert sha256(tab.downloaded()) == sha256(scene.source)
    # Headers take less than a tenth; what was under way, but not verified yet, comes again.
    assert scene.arrived("browser") - before < 1.1 * SIZE + UNDER_WAY


@cases("chromium", "firefox")
def test_a_page_that_sends_goes_on_where_it_was(
    scene: Scene, browsers: Browsers, tmp_path: Path, side: str, whose: str, seconds: int
) -> None:
    tab = browsers.tab(side, before=READ)
    tab.open(scene.page)
    wait_for(tab, "start")
    tab.choose("#files", scene.source)
    receiver = scene.run("receive", "--yes", "-o", tmp_path / "in", pass_on(tab))
    silent = "says nothing: waiting for it"
    lost = "connection lost, another one is being made"
    verified = without_cable(scene, receiver, tab, whose, seconds, ("share-peers", silent, lost))
    assert sha256(tmp_path / "in" / "file.bin") == sha256(scene.source)
    # The last block that the receiver has is read to compare it: is the file still the same?
    assert min(tab.call("() => readAgain")) >= verified - BLOCK_SIZE


READ = """
    globalThis.readAgain = [];
    const starts = new Set();
    const slice = Blob.prototype.slice;
    Blob.prototype.slice = function (start, ...more) {
        if (starts.has(start)) readAgain.push(start);
        starts.add(start);
        return slice.call(this, start, ...more);
    };
"""
"""Keeps where the page reads the only file a second time."""
