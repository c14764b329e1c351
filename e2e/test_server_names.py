"""How real clients reach a real server by name: dead addresses, silent name servers, proxies, small packets.

A client, a router and a server, each a network namespace. Names are in the client's /etc/hosts; all others
are asked for at an address that swallows what comes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from e2e.processes import FlyxProcess, clean_environment, need, write_random

CLIENT, SERVER, ROUTER = "198.51.100.2", "192.0.2.1", "192.0.2.2"
# Documentation networks (RFC 3849, RFC 5737); the router drops what is for DEAD.
CLIENT6, SERVER6 = "2001:db8:1::2", "2001:db8:2::1"
DEAD, DEAD6 = "192.0.2.66", "2001:db8:2::66"
PORT = 8000
URL = f"ws://server.test:{PORT}"

SLOW = 20.0
"""Seconds within which a dead address, or a dead proxy, must not matter, on a machine that is busy."""


class Inside(FlyxProcess):
    """A process in a network namespace."""

    def __init__(self, namespace: str, arguments: list[str], environment: dict[str, str], home: Path) -> None:
        self._namespace = namespace
        super().__init__(arguments, environment, home)

    def _start(
        self, command: list[str], environment: dict[str, str], directory: Path
    ) -> subprocess.Popen[bytes]:
        return super()._start(["ip", "netns", "exec", self._namespace, *command], environment, directory)


class ProxyProcess(Inside):
    """A proxy of tests/net/proxies.py: `http_proxy` or `socks5_proxy`, and its options."""

    def __init__(self, namespace: str, home: Path, run: str) -> None:
        self._run = run
        super().__init__(namespace, [], clean_environment(home), home)
        self.port = int(self.prints(r"listening on (\d+)\n")[1])

    def _start(
        self, command: list[str], environment: dict[str, str], directory: Path
    ) -> subprocess.Popen[bytes]:
        program = (
            "import asyncio, sys\n"
            f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
            "from tests.net.proxies import *\n"
            "async def main():\n"
            f"    async with {self._run} as proxy:\n"
            "        print('listening on', proxy.port, flush=True)\n"
            "        await asyncio.Event().wait()\n"
            "asyncio.run(main())\n"
        )
        return super()._start([sys.executable, "-c", program], environment, directory)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


class Networks:
    """The three, joined; and what runs there."""

    def __init__(self, directory: Path) -> None:
        self._prefix = f"flyx-names-{os.getpid()}"
        self._directory = directory
        self._processes: list[FlyxProcess] = []
        self.client, self.router, self.server = (self._namespace(part) for part in "crs")
        self._join(self.client, f"{CLIENT}/24", f"{CLIENT6}/64", "198.51.100.1/24", "2001:db8:1::1/64")
        self._join(self.server, f"{SERVER}/24", f"{SERVER6}/64", f"{ROUTER}/24", "2001:db8:2::2/64")
        for setting in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
            run("ip", "netns", "exec", self.router, "sysctl", "-q", "-w", f"net.{setting}=1")
        run("ip", "-n", self.router, "route", "add", "blackhole", f"{DEAD}/32")
        run("ip", "-n", self.router, "-6", "route", "add", "blackhole", f"{DEAD6}/128")

    def _namespace(self, part: str) -> str:
        name = f"{self._prefix}-{part}"
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "netns", "exec", name, "sysctl", "-q", "-w", "net.ipv6.conf.default.accept_dad=0")
        # Seen in the namespace as if they were in /etc.
        files = Path("/etc/netns", name)
        files.mkdir(parents=True)
        (files / "resolv.conf").write_text(f"nameserver {DEAD}\n")
        (files / "hosts").write_text("127.0.0.1 localhost\n")
        return name

    def _join(self, end: str, *addresses: str) -> None:
        port = f"to-{end[-1]}"
        peer = ("peer", "name", port, "netns", self.router)
        run("ip", "-n", end, "link", "add", "eth0", "type", "veth", *peer)
        for namespace, device, own in (
            (end, "eth0", addresses[:2]),
            (self.router, port, addresses[2:]),
        ):
            for address in own:
                run("ip", "-n", namespace, "address", "add", address, "dev", device)
            run("ip", "-n", namespace, "link", "set", device, "up")
        for gateway in addresses[2:]:
            family = "-6" if ":" in gateway else "-4"
            run("ip", "-n", end, family, "route", "add", "default", "via", gateway.partition("/")[0])

    def hosts(self, *addresses: str) -> None:
        """Let the client know these addresses of server.test from now on; processes that run as well."""
        lines = "".join(f"{address} server.test\n" for address in addresses)
        # In place: a new file would not be seen in the namespace.
        Path("/etc/netns", self.client, "hosts").write_text(f"127.0.0.1 localhost\n{lines}")

    def only_the_router(self) -> None:
        """Let the client reach nothing but the router."""
        for family in ("-4", "-6"):
            run("ip", "-n", self.client, family, "route", "del", "default")

    def narrow(self) -> None:
        """Let nothing through that is longer than 1,280 bytes, and tell nobody.

        The ends of the cables at the router drop it: they are a link layer, which says nothing. Segments are
        made before that, not by the network card.
        """
        for end in (self.client, self.server):
            run("ip", "-n", end, "link", "set", "eth0", "gso_max_segs", "1")
            run("ip", "-n", self.router, "link", "set", f"to-{end[-1]}", "mtu", "1280", "gso_max_segs", "1")

    def link_local(self) -> str:
        """The router's address on the client's link."""
        device = f"to-{self.client[-1]}"
        (shown,) = json.loads(run("ip", "-n", self.router, "-j", "address", "show", "dev", device))
        return next(str(each["local"]) for each in shown["addr_info"] if each["scope"] == "link")

    def start(self, namespace: str, *arguments: str | Path, **environment: str) -> FlyxProcess:
        """Run flyx in a namespace."""
        variables = clean_environment(self._directory) | environment
        return self._adopt(Inside(namespace, [str(a) for a in arguments], variables, self._directory))

    def serve(self, namespace: str = "", *, host: str = "0.0.0.0", stun: Sequence[str] = ("none",)) -> None:
        """Run a signaling server."""
        options = ["--host", host, "--port", str(PORT), *(word for url in stun for word in ("--stun", url))]
        self.start(namespace or self.server, "serve", *options).prints("listening on")

    def proxy(self, run: str) -> str:
        """Run a proxy on the router; return its host and port."""
        proxy = ProxyProcess(self.router, self._directory, run)
        self._adopt(proxy)
        return f"198.51.100.1:{proxy.port}"

    def _adopt(self, process: FlyxProcess) -> FlyxProcess:
        self._processes.append(process)
        return process

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for name in (self.client, self.router, self.server):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
            shutil.rmtree(Path("/etc/netns", name), ignore_errors=True)
        for process in self._processes:
            assert not process.crashed, process


@pytest.fixture
def networks(tmp_path: Path) -> Iterator[Networks]:
    need("the right to make network namespaces", os.geteuid() == 0)
    need("ip, of the package iproute2", shutil.which("ip") is not None)
    made = Networks(tmp_path)
    yield made
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
    networks.narrow()
    stun = [f"stun:{number:060}.{number:060}.{number:060}.test" for number in range(8)]
    networks.serve(stun=stun)
    assert seconds_to_the_code(send()) < SLOW


def test_a_server_on_this_link_is_reached_by_its_scoped_address(networks: Networks, send: Send) -> None:
    networks.serve(networks.router, host="::")
    send(f"ws://[{networks.link_local()}%eth0]:{PORT}").code()
