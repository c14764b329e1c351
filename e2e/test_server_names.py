"""How real clients reach a real server by name: dead addresses, silent name servers, proxies, small packets.

A client, a router and a server, each a network namespace. Names are in the client's /etc/hosts; all others
are asked for at an address that swallows what comes.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from e2e.namespaces import files_of
from e2e.network import Host, Network
from e2e.processes import FlyxProcess, clean_environment, write_random

CLIENT, SERVER, ROUTER = "198.51.100.2", "192.0.2.1", "192.0.2.2"
# Documentation networks (RFC 3849, RFC 5737); the router drops what is for DEAD.
CLIENT6, SERVER6 = "2001:db8:1::2", "2001:db8:2::1"
DEAD, DEAD6 = "192.0.2.66", "2001:db8:2::66"
PORT = 8000
URL = f"ws://server.test:{PORT}"

SLOW = 20.0
"""Seconds within which a dead address, or a dead proxy, must not matter, on a machine that is busy."""


PROXY = """
import asyncio, sys
from tests.net.proxies import *
async def main():
    async with {run} as proxy:
        print("listening on", proxy.port, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
"""Runs a proxy of tests/net/proxies.py: `http_proxy` or `socks5_proxy`, and its options."""


class Networks:
    """The three, joined; and what runs there."""

    def __init__(self, network: Network, directory: Path) -> None:
        self._directory = directory
        self._processes: list[FlyxProcess] = []
        lan, internet = network.switch(), network.switch()
        inside, outside = ("198.51.100.1", "2001:db8:1::1"), (ROUTER, "2001:db8:2::2")
        self.router = network.router(
            "router",
            lan,
            [f"{inside[0]}/24", f"{inside[1]}/64"],
            internet,
            [f"{outside[0]}/24", f"{outside[1]}/64"],
        )
        self.router.run("ip", "route", "add", "blackhole", f"{DEAD}/32")
        self.router.run("ip", "-6", "route", "add", "blackhole", f"{DEAD6}/128")
        self.client = network.host("client").plug(lan, f"{CLIENT}/24", f"{CLIENT6}/64", via=inside)
        self.client.name_server(DEAD)
        self.hosts()
        self.server = network.host("server")
        self.server.plug(internet, f"{SERVER}/24", f"{SERVER6}/64", via=outside)

    def hosts(self, *addresses: str) -> None:
        """Let the client know these addresses of server.test from now on; processes that run as well."""
        lines = "".join(f"{address} server.test\n" for address in addresses)
        # In place: a new file would not be seen in the namespace.
        Path(files_of(self.client.namespace), "hosts").write_text(f"127.0.0.1 localhost\n{lines}")

    def only_the_router(self) -> None:
        """Let the client reach nothing but the router."""
        for family in ("-4", "-6"):
            self.client.run("ip", family, "route", "del", "default")

    def link_local(self) -> str:
        """The router's address on the client's link."""
        (shown,) = json.loads(self.router.run("ip", "-j", "address", "show", "dev", "inside"))
        return next(str(each["local"]) for each in shown["addr_info"] if each["scope"] == "link")

    def start(self, host: Host, *arguments: str | Path, **environment: str) -> FlyxProcess:
        """Run flyx on a host."""
        variables = clean_environment(self._directory) | environment
        return self._adopt(host.start(arguments, variables, self._directory))

    def serve(
        self, on: Host | None = None, *, host: str = "0.0.0.0", stun: Sequence[str] = ("none",)
    ) -> None:
        """Run a signaling server."""
        options = ["--host", host, "--port", str(PORT), *(word for url in stun for word in ("--stun", url))]
        self.start(on or self.server, "serve", *options).prints("listening on")

    def proxy(self, run: str) -> str:
        """Run a proxy on the router; return its host and port."""
        environment = clean_environment(self._directory) | {"PYTHONPATH": str(Path(__file__).parents[1])}
        command = [sys.executable, "-c", PROXY.format(run=run)]
        proxy = self._adopt(self.router.program(command, environment, self._directory))
        port = proxy.prints(r"listening on ([0-9]+)\n")[1]
        return f"198.51.100.1:{port}"

    def _adopt(self, process: FlyxProcess) -> FlyxProcess:
        self._processes.append(process)
        return process

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            assert not process.crashed, process


@pytest.fixture
def networks(tmp_path: Path) -> Iterator[Networks]:
    with Network() as network:
        made = Networks(network, tmp_path)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_random(tmp_path / "file.bin", 1000)


Send = Callable[..., FlyxProcess]


@pytest.fixture
def send(networks: Networks, file: Path) -> Send:
    """Starts `flyx send` on the client."""

    def start(url: str = URL, **environment: str) -> FlyxProcess:
        return networks.start(networks.client, "send", "--server", url, "--json", file, **environment)

    return start


def seconds_to_the_code(sender: FlyxProcess) -> float:
    began = time.monotonic()
    sender.code()
    return time.monotonic() - began


@pytest.mark.parametrize(
    "addresses",
    [(DEAD6, SERVER), (DEAD, SERVER), (DEAD, SERVER6), (DEAD, DEAD6, SERVER6)],
    ids=["IPv6 is swallowed", "the first is dead", "IPv4 is swallowed", "only the last lives"],
)
def test_a_dead_address_does_not_matter(networks: Networks, send: Send, addresses: tuple[str, ...]) -> None:
    networks.hosts(*addresses)
    networks.serve(host=addresses[-1])
    assert seconds_to_the_code(send()) < SLOW


def test_addresses_that_are_all_dead_are_told_of(networks: Networks, send: Send) -> None:
    networks.hosts(DEAD, SERVER)
    # Nothing listens at SERVER.
    (error,) = send().ends(3).named("error")
    assert f"{DEAD} does not answer" in error["message"]
    assert f"{SERVER} refuses connections" in error["message"]


def test_name_servers_that_are_silent_at_first_are_waited_for(networks: Networks, send: Send) -> None:
    networks.serve()
    # Longer than the resolver waits for its first question.
    answers = threading.Timer(8.0, networks.hosts, [SERVER])
    answers.start()
    try:
        send().code()
    finally:
        answers.cancel()
        answers.join()


def test_an_interruption_does_not_wait_for_a_name(networks: Networks, send: Send) -> None:
    sender = send()
    # It looks the name up: the question is on its way, and nothing comes back.
    sender.event("manifest")
    time.sleep(1)
    began = time.monotonic()
    sender.send_signal(signal.SIGINT).ends(130, within=SLOW)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("variable", "url", "run"),
    [
        ("HTTPS_PROXY", "http://{}", "http_proxy(%s)"),
        ("https_proxy", "http://me:s3cret@{}", "http_proxy(credentials='me:s3cret', %s)"),
        ("ALL_PROXY", "http://{}", "http_proxy(%s)"),
        ("HTTPS_PROXY", "socks5h://{}", "socks5_proxy(%s)"),
    ],
)
def test_a_proxy_that_is_the_only_way_out_is_taken(
    networks: Networks, send: Send, variable: str, url: str, run: str
) -> None:
    networks.only_the_router()
    networks.serve()
    proxy = networks.proxy(run % f"host='0.0.0.0', ways={{'server.test': {SERVER!r}}}")
    assert seconds_to_the_code(send(**{variable: url.format(proxy)})) < SLOW


def test_a_proxy_that_refuses_is_told_of(networks: Networks, send: Send) -> None:
    networks.only_the_router()
    proxy = networks.proxy("http_proxy(host='0.0.0.0', credentials='me:right')")
    began = time.monotonic()
    (error,) = send(HTTPS_PROXY=f"http://me:wr0ng@{proxy}").ends(3).named("error")
    assert time.monotonic() - began < 30
    assert f"the proxy {proxy} (HTTPS_PROXY) does not take this name and password (407)" in error["message"]
    assert "wr0ng" not in str(error)
    assert "NAME:PASSWORD" in error["hint"]


@pytest.mark.parametrize("proxy", [f"http://{DEAD}:3128", f"socks5://{ROUTER}:1080"])
def test_a_dead_proxy_that_is_not_needed_does_not_matter(networks: Networks, send: Send, proxy: str) -> None:
    networks.hosts(SERVER)
    networks.serve()
    assert seconds_to_the_code(send(HTTPS_PROXY=proxy)) < SLOW


def test_a_path_that_swallows_long_packets_and_says_nothing_is_passed(networks: Networks, send: Send) -> None:
    """The server's first word is longer than such a packet: it names many servers."""
    networks.hosts(SERVER)
    networks.router.narrow(1280)
    stun = [f"stun:{number:060}.{number:060}.{number:060}.test" for number in range(8)]
    networks.serve(stun=stun)
    assert seconds_to_the_code(send()) < SLOW


def test_a_server_on_this_link_is_reached_by_its_scoped_address(networks: Networks, send: Send) -> None:
    networks.serve(networks.router, host="::")
    send(f"ws://[{networks.link_local()}%eth0]:{PORT}").code()
