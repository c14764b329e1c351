"""The ways to a TURN server, and credentials that end: a real coturn between two networks.

The topology is that of e2e/edge.py.
"""

from __future__ import annotations

import hmac
import sys
import time
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pytest

from e2e.edge import MIDDLE, SIGNALING_PORT, TURN_PORT, Edge, paths
from e2e.network import Program
from e2e.processes import FlyxProcess, clean_environment, sha256, write_random
from e2e.services import SECRET, Certificate, Coturn

TLS_PORT, FAR_PORT = 5349, 7000

TTL = 3.0
"""Seconds for which credentials are good: `flyx serve` lets no operator go so low."""

_SERVER = """
import asyncio, sys
from flyx.server.app import Server
from flyx.server.config import ServerConfig
from flyx.server.config import TurnConfig

async def serve(host, port, secret, ttl, *urls):
    turn = TurnConfig(urls, secret, float(ttl))
    async with Server(ServerConfig(host=host, port=int(port), stun_urls=(), turn=turn)):
        print("listening on", flush=True)
        await asyncio.Event().wait()

asyncio.run(serve(*sys.argv[1:]))
"""

_PROXY = """
import asyncio, sys

async def carry(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def serve(reader, writer):
    host, _, port = (await reader.readuntil(b"\\r\\n\\r\\n")).split()[1].decode().rpartition(":")
    print("CONNECT", host, port, flush=True)
    inner = await asyncio.open_connection(host, int(port))
    writer.write(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
    await asyncio.gather(carry(reader, inner[1]), carry(inner[0], writer), return_exceptions=True)

async def main():
    async with await asyncio.start_server(serve, sys.argv[1], 3128):
        print("listening on", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


_FAR = """
import asyncio, sys

host, port, target, delay = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])

async def carry(reader, writer):
    loop = asyncio.get_running_loop()
    while data := await reader.read(65536):
        loop.call_later(delay, writer.write, data)
    loop.call_later(delay, writer.close)

async def serve(reader, writer):
    await asyncio.sleep(2 * delay)
    inner = await asyncio.open_connection(host, target)
    await asyncio.gather(carry(reader, inner[1]), carry(inner[0], writer), return_exceptions=True)

async def main():
    async with await asyncio.start_server(serve, host, port):
        print("listening on", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def away(edge: Edge, tmp_path: Path) -> Away:
    return Away(edge, tmp_path)


class Away:
    """The edge, with a server that hands out URLs and times of the test's choice."""

    def __init__(self, edge: Edge, directory: Path) -> None:
        self.edge = edge
        self._directory = directory
        self._certificate = Certificate(directory / "certificate", MIDDLE)
        # For those who are to trust it.
        self.trust = {"SSL_CERT_FILE": str(self._certificate.authority)}

    def serve(self, *urls: str, ttl: float = 600.0) -> Program:
        command = [sys.executable, "-c", _SERVER, MIDDLE, str(SIGNALING_PORT), SECRET, str(ttl), *urls]
        return self.start("middle", command, "listening on")

    def relay(self, *options: str) -> Coturn:
        coturn = Coturn(
            self.edge.hosts["middle"],
            self._directory,
            MIDDLE,
            port=TURN_PORT,
            tls_port=TLS_PORT,
            certificate=self._certificate,
            options=options,
        )
        self.edge.processes.append(coturn)
        return coturn

    def start(
        self, part: str, command: Sequence[str | Path], ready: str, environment: dict[str, str] | None = None
    ) -> Program:
        variables = clean_environment(self._directory) | (environment or {})
        process = self.edge.hosts[part].program(command, variables, self._directory)
        self.edge.processes.append(process)
        if ready:
            process.prints(ready)
        return process

    def flyx(self, part: str, *arguments: str | Path, **environment: str) -> Program:
        url = f"ws://{MIDDLE}:{SIGNALING_PORT}"
        command = [sys.executable, "-m", "flyx", *map(str, arguments), "--json", "--server", url]
        return self.start(part, command, "", environment)

    def without_udp(self, part: str) -> None:
        """Let nothing but TCP leave a host, and silently."""
        rules = "add table inet t; add chain inet t o { type filter hook output priority 0; }; "
        self.edge.hosts[part].rules(rules + "add rule inet t o meta l4proto udp drop")

    def only_through(self, part: str, address: str, port: int) -> None:
        """Let nothing leave a host but to one port of another."""
        rules = "add table inet t; add chain inet t o { type filter hook output priority 0; policy drop; }; "
        rules += "add rule inet t o oif lo accept; "
        rules += f"add rule inet t o ip daddr {address} tcp dport {port} accept"
        self.edge.hosts[part].rules(rules)

    def far(self, port: int, seconds: float) -> None:
        """Have FAR_PORT lead to another TCP port, later by so much in either direction."""
        command = [sys.executable, "-c", _FAR, MIDDLE, str(FAR_PORT), str(port), str(seconds)]
        self.start("middle", command, "listening on")

    def transfer(self, tmp_path: Path, size: int, **environment: str) -> tuple[FlyxProcess, FlyxProcess]:
        """Send a file to its end; return both processes."""
        source = write_random(tmp_path / "sent.bin", size)
        sender = self.flyx("sender", "send", source, **environment)
        code = str(sender.event("room")["code"])
        receiver = self.flyx("receiver", "receive", "--yes", "-o", tmp_path / "in", code)
        receiver.ends(0)
        sender.ends(0)
        assert sha256(tmp_path / "in" / "sent.bin") == sha256(source)
        return sender, receiver


@pytest.mark.parametrize(
    ("scheme", "port", "delay"),
    [
        ("turn", TURN_PORT, 0.0),
        pytest.param("turn", TURN_PORT, 0.15, marks=pytest.mark.soak),
        pytest.param("turns", TLS_PORT, 0.0, marks=pytest.mark.soak),
        ("turns", TLS_PORT, 0.15),
    ],
)
def test_where_udp_is_blocked_a_relay_is_reached_by_tcp_or_tls_however_far_it_is(
    away: Away, tmp_path: Path, scheme: str, port: int, delay: float
) -> None:
    away.relay()
    away.far(port, delay)
    # What is asked first does not answer there.
    away.serve(f"turn:{MIDDLE}:{TURN_PORT}", f"{scheme}:{MIDDLE}:{FAR_PORT}?transport=TCP")
    away.without_udp("sender")
    sender, _ = away.transfer(tmp_path, 10**6, **away.trust)
    assert ["relay" in path for path in paths(sender)] == [True]


def test_a_relay_is_reached_through_the_only_proxy(away: Away, tmp_path: Path) -> None:
    away.relay()
    away.serve(f"turn:{MIDDLE}:{TURN_PORT}", f"turns:{MIDDLE}:{TLS_PORT}?transport=tcp")
    proxy = away.start("middle", [sys.executable, "-c", _PROXY, MIDDLE], "listening on")
    away.only_through("sender", MIDDLE, 3128)
    url = f"http://{MIDDLE}:3128"
    authority = away.trust["SSL_CERT_FILE"]
    away.transfer(tmp_path, 10**6, FLYX_TLS_CA=authority, HTTPS_PROXY=url, HTTP_PROXY=url)
    proxy.prints(f"CONNECT {MIDDLE} {TLS_PORT}")


def test_a_sender_that_waited_longer_than_its_credentials_are_good_finds_a_relay(
    away: Away, tmp_path: Path
) -> None:
    away.relay()
    away.serve(f"turn:{MIDDLE}:{TURN_PORT}?transport=tcp", ttl=TTL)
    # So it needs a relay of its own, whatever the receiver has.
    away.without_udp("sender")
    source = write_random(tmp_path / "sent.bin", 10**6)
    sender = away.flyx("sender", "send", source)
    code = str(sender.event("room")["code"])
    # No condition can be awaited: what is shown is that time has passed.
    time.sleep(2 * TTL)
    receiver = away.flyx("receiver", "receive", "--yes", "-o", tmp_path / "in", code)
    receiver.ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "sent.bin") == sha256(source)


@pytest.mark.parametrize("restarts", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_a_long_relayed_transfer_outlives_its_credentials_and_restarts_of_its_relay(
    away: Away, tmp_path: Path, restarts: int
) -> None:
    """Ten hours with credentials of one, in seconds."""
    relay = away.relay("--stale-nonce=2", "--max-allocate-lifetime=4")
    away.serve(f"turn:{MIDDLE}:{TURN_PORT}", ttl=TTL)
    away.edge.limit(16)
    source = write_random(tmp_path / "sent.bin", (restarts + 1) * 4 * 10**6)
    sender = away.flyx("sender", "send", source)
    began = time.monotonic()
    code = str(sender.event("room")["code"])
    receiver = away.flyx("receiver", "receive", "--yes", "-o", tmp_path / "in", code)
    for number in range(restarts):
        wanted = (number + 1) * 4 * 10**6
        receiver.event("progress", lambda event, wanted=wanted: event["bytes"] > wanted)
        assert time.monotonic() - began > TTL
        relay.kill()
        relay = away.relay("--stale-nonce=2", "--max-allocate-lifetime=4")
    receiver.ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "sent.bin") == sha256(source)
    for side in (sender, receiver):
        assert ["relay" in path for path in paths(side)] == [True] * (restarts + 1)


def test_addresses_are_hidden_behind_a_relay_where_there_is_a_direct_path(away: Away, tmp_path: Path) -> None:
    away.relay()
    away.serve(f"turn:{MIDDLE}:{TURN_PORT}")
    away.edge.hosts["middle"].run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    source = write_random(tmp_path / "sent.bin", 10**6)
    for options, local in (([], "host"), (["--relay-only"], "relay")):
        sender = away.flyx("sender", "send", *options, source)
        code = str(sender.event("room")["code"])
        receiver = away.flyx("receiver", "receive", "--yes", "--overwrite", "-o", tmp_path / "in", code)
        receiver.ends(0)
        sender.ends(0)
        assert [path[0] for path in paths(sender)] == [local]


def test_relays_alone_where_there_is_none_are_refused_at_once(away: Away, tmp_path: Path) -> None:
    away.serve("stun:192.0.2.1:3478")
    source = write_random(tmp_path / "sent.bin", 1)
    away.flyx("sender", "send", "--relay-only", source).fails(4, "no_relay")


def test_a_relay_that_the_person_names_is_used(away: Away, tmp_path: Path) -> None:
    away.relay()
    away.serve("stun:192.0.2.1:3478")
    source = write_random(tmp_path / "sent.bin", 10**6)
    name = str(int(time.time()) + 600)
    password = b64encode(hmac.digest(SECRET.encode(), name.encode(), "sha1")).decode()
    server = f"turn:{name}:{quote(password, safe='')}@{MIDDLE}:{TURN_PORT}"
    sender = away.flyx("sender", "send", "--ice-server", server, source)
    code = str(sender.event("room")["code"])
    receiver = away.flyx("receiver", "receive", "--yes", "-o", tmp_path / "in", code)
    receiver.ends(0)
    sender.ends(0)
    assert [path[0] for path in paths(sender)] == ["relay"]
