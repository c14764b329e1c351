"""coturn, as `flyx serve --with-turn` configures it and looks after it; the real one where it is there."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import ssl
import stat
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

import pytest
from aioice.stun import TransactionFailed
from aioice.turn import TurnClientUdpProtocol
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from flyx.cli.serve_nodes import of_worker
from flyx.cli.turn_options import check_with_turn, coturn_of
from flyx.errors import InputError
from flyx.net.interfaces import outgoing_address
from flyx.server.app import Server
from flyx.server.config import CoturnConfig, ServerConfig
from flyx.server.coturn import (
    DENIED_NETWORKS,
    PROGRAM,
    Coturn,
    config_text,
    find_addresses,
)
from flyx.server.metrics import Metrics
from flyx.server.turn import credentials
from tests.server.peers import PATIENCE, http_of, local, until
from tests.server.transport.test_tls import issue

CONFIG = CoturnConfig(
    host="turn.example.org",
    relay_addresses=("198.51.100.7", "2001:db8::7"),
    secret="a secret",
)


def lines_of(config: CoturnConfig) -> list[str]:
    return config_text(config, Path("/run/flyx")).splitlines()


@given(st.ip_addresses().filter(lambda address: not address.is_global))
def test_no_address_is_relayed_to_that_is_not_of_the_internet(address: IPv4Address | IPv6Address) -> None:
    assert any(address in network for network in DENIED_NETWORKS)


@pytest.mark.parametrize(
    ("address", "denied"),
    [
        *[(address, True) for address in ("10.1.2.3", "169.254.169.254", "fd00:ec2::254", "fe80::1")],
        *[(address, True) for address in ("::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "224.0.0.1")],
        *[(address, False) for address in ("8.8.8.8", "100.128.0.1", "2606:4700::1111")],
    ],
)
def test_what_is_denied_as_a_peer(address: str, denied: bool) -> None:
    assert any(ip_address(address) in network for network in DENIED_NETWORKS) is denied


def test_each_denied_network_and_each_allowed_one_is_told_as_a_range() -> None:
    lines = lines_of(replace(CONFIG, allowed=(ip_network("192.168.7.0/24"), ip_network("fd07::/64"))))
    assert "denied-peer-ip=10.0.0.0-10.255.255.255" in lines
    # Each IPv4 address would be in a range from "::".
    assert "denied-peer-ip=::1-::ffff:ffff" in lines
    assert sum(line.startswith("denied-peer-ip=") for line in lines) == len(DENIED_NETWORKS)
    allowed = [line.partition("=")[2] for line in lines if line.startswith("allowed-peer-ip=")]
    # Its own relay addresses: two that both need a relay meet there.
    assert allowed == [
        "192.168.7.0-192.168.7.255",
        "fd07::-fd07::ffff:ffff:ffff:ffff",
        "198.51.100.7",
        "2001:db8::7",
    ]


def test_there_is_tls_only_with_a_certificate() -> None:
    assert "no-tls" in lines_of(CONFIG)
    assert CONFIG.turn.urls == (
        "turn:turn.example.org:3478?transport=udp",
        "turn:turn.example.org:3478?transport=tcp",
    )
    secure = replace(CONFIG, tls=(Path("/etc/chain.pem"), Path("/etc/key.pem")), tls_port=443)
    assert {"cert=/etc/chain.pem", "pkey=/etc/key.pem", "tls-listening-port=443"} <= set(lines_of(secure))
    assert "no-tls" not in lines_of(secure)
    assert secure.turn.urls[-1] == "turns:turn.example.org:443?transport=tcp"


def test_an_ipv6_address_stands_in_brackets_in_urls() -> None:
    config = replace(CONFIG, host="2001:db8::7")
    assert config.turn.urls[0] == "turn:[2001:db8::7]:3478?transport=udp"
    assert config.stun_url == "stun:[2001:db8::7]:3478"


def test_there_are_no_more_allocations_than_ports() -> None:
    assert "total-quota=10" in lines_of(replace(CONFIG, relay_ports=(50000, 50009)))
    assert "total-quota=2000" in lines_of(CONFIG)
    assert f"user-quota={CONFIG.user_quota}" in lines_of(CONFIG)


def test_who_asks_for_no_family_gets_ipv6_where_there_is_nothing_else() -> None:
    keep = "allocation-default-address-family=keep"
    assert keep in lines_of(replace(CONFIG, relay_addresses=("2001:db8::7",)))
    assert keep not in lines_of(CONFIG)


def test_behind_a_nat_clients_are_told_the_public_address() -> None:
    config = replace(CONFIG, public_address="203.0.113.9")
    assert "external-ip=203.0.113.9/198.51.100.7" in lines_of(config)


def test_a_name_that_is_elsewhere_stands_for_a_nat_in_front_of_us(own_address: str) -> None:
    found = find_addresses("203.0.113.9", None)
    assert (found.host, found.public_address) == ("203.0.113.9", "203.0.113.9")
    assert own_address in found.relay_addresses
    # One of ours is told as it is.
    ours = find_addresses(own_address, None)
    assert (ours.host, ours.public_address) == (own_address, None)


def test_the_address_that_a_server_listens_on_is_where_it_relays(own_address: str) -> None:
    found = find_addresses(None, own_address)
    assert (found.host, found.relay_addresses, found.listening_addresses) == (
        own_address,
        (own_address,),
        (own_address,),
    )


def test_the_loopback_is_no_place_for_a_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine without a network.
    monkeypatch.setattr("flyx.server.coturn.outgoing_address", lambda family: None)
    for host in (None, "127.0.0.1"):
        with pytest.raises(InputError, match="no address") as caught:
            find_addresses(None, host)
        assert "--turn-host" in str(caught.value.hint)


@pytest.mark.parametrize("ports", ["", "5000", "60000-50000", "80-90", "50000-70000", "a-b"])
def test_what_is_no_range_of_ports_is_refused(ports: str) -> None:
    with pytest.raises(InputError, match="--turn-relay-ports"):
        coturn_of(
            host=None,
            told=None,
            port=3478,
            tls_port=5349,
            relay_ports=ports,
            allowed=None,
            tls=None,
            max_clients=2,
            ttl=60,
        )


def test_a_turn_server_of_its_own_and_another_one_exclude_each_other() -> None:
    check_with_turn(turn=None, secret=None)
    with pytest.raises(InputError, match="exclude"):
        check_with_turn(turn=["turn:turn.example.org"], secret="a secret")


async def test_without_coturn_the_hint_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match=PROGRAM) as caught:
        await Coturn(CONFIG, Metrics()).start()
    assert "apt install coturn" in str(caught.value.hint)
    assert "--turn-secret" in str(caught.value.hint)


# The real one.


@pytest.fixture
def own_address() -> str:
    address = outgoing_address(socket.AF_INET)
    if address is None or ip_address(address).is_loopback:
        pytest.skip("this machine has no network")
    return address


@pytest.fixture
def coturn_config(own_address: str) -> CoturnConfig:
    if shutil.which(PROGRAM) is None:
        if os.environ.get("CI"):
            pytest.fail("coturn is missing, and this is CI")
        pytest.skip("coturn is missing")
    with socket.socket() as probe, socket.socket(type=socket.SOCK_DGRAM) as other:
        probe.bind((own_address, 0))
        port = probe.getsockname()[1]
        other.bind((own_address, port))
    return CoturnConfig(host=own_address, relay_addresses=(own_address,), port=port)


def serving(config: CoturnConfig) -> ServerConfig:
    return local(coturn=config, turn=config.turn)


def processes() -> dict[int, str]:
    """The command lines of the coturns that we have started."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == os.getpid() and f"{PROGRAM} -c" in command:
            found[int(entry.name)] = command
    return found


async def test_a_coturn_lives_and_ends_with_its_server(coturn_config: CoturnConfig) -> None:
    async with Server(serving(coturn_config)) as server, http_of(server) as http:
        [command] = processes().values()
        assert coturn_config.secret not in command
        directory = Path(command.split()[-1]).parent
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        # Nothing in there that whoever kills us would leave behind.
        assert not any(coturn_config.secret.encode() in file.read_bytes() for file in directory.iterdir())
        assert (await http.get("/readyz")).json() == {"status": "ok", "turn": "ok"}
        assert "flyx_turn_up 1.0" in (await http.get("/metrics")).text
    assert not processes()
    assert not directory.exists()


async def test_a_coturn_that_is_killed_comes_back(coturn_config: CoturnConfig) -> None:
    async with Server(serving(coturn_config)) as server, http_of(server) as http:
        [first] = processes()
        os.kill(first, signal.SIGKILL)
        await until(lambda: not server.turn_up)
        await until(lambda: server.turn_up)
        assert (await http.get("/readyz")).json()["turn"] == "ok"
        assert "flyx_turn_starts_total 2.0" in (await http.get("/metrics")).text


async def test_a_coturn_that_is_mute_is_replaced(
    coturn_config: CoturnConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyx.server.coturn._CHECK_INTERVAL", 0.05)
    monkeypatch.setattr("flyx.server.coturn._ANSWER_TIMEOUT", 0.1)
    monkeypatch.setattr("flyx.server.coturn._STOP_TIMEOUT", 0.1)
    async with Server(serving(coturn_config)) as server:
        [first] = processes()
        os.kill(first, signal.SIGSTOP)
        await until(lambda: not server.turn_up)
        await until(lambda: server.turn_up and first not in processes())


async def test_a_coturn_that_could_not_be_started_for_a_while_comes_back(
    coturn_config: CoturnConfig,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # What starts it goes away.
    real, python = sys.executable, tmp_path / "python"
    python.symlink_to(real)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr("flyx.server.coturn._FIRST_PAUSE", 0.05)
    async with Server(serving(coturn_config)) as server:
        [first] = processes()
        python.unlink()
        os.kill(first, signal.SIGKILL)
        await until(lambda: "coturn not started" in caplog.text)
        python.symlink_to(real)
        await until(lambda: server.turn_up)


async def test_a_coturn_that_is_mute_does_not_outlive_its_server(
    coturn_config: CoturnConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyx.server.coturn._CHECK_INTERVAL", 0.05)
    monkeypatch.setattr("flyx.server.coturn._ANSWER_TIMEOUT", 0.1)
    monkeypatch.setattr("flyx.server.coturn._STOP_TIMEOUT", 1.0)

    def is_told_to_end(process: int) -> bool:
        status = Path(f"/proc/{process}/status").read_text()
        pending = int(status.partition("ShdPnd:\t")[2].split()[0], 16)
        return bool(pending & 1 << signal.SIGTERM - 1)

    async with Server(serving(coturn_config)):
        [first] = processes()
        os.kill(first, signal.SIGSTOP)
        await until(lambda: is_told_to_end(first))
    try:
        assert first not in processes()
    finally:
        with suppress(ProcessLookupError):
            os.kill(first, signal.SIGKILL)


async def common_name(config: CoturnConfig, context: ssl.SSLContext) -> str:
    """Of the certificate that is shown for TLS."""
    _, writer = await asyncio.open_connection(config.host, config.tls_port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    [name] = x509.load_der_x509_certificate(shown).subject
    return str(name.value)


async def test_tls_has_the_certificate_of_the_server_and_its_next_one(
    coturn_config: CoturnConfig, tmp_path: Path
) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    certificate, key = issue(tmp_path, "one")
    with socket.socket() as probe:
        probe.bind((coturn_config.host, 0))
        tls_port = probe.getsockname()[1]
    config = replace(coturn_config, tls=(certificate, key), tls_port=tls_port)
    async with Server(replace(serving(config), tls=(certificate, key))) as server:
        assert await common_name(config, context) == "one"
        for old, new in zip((certificate, key), issue(tmp_path, "two"), strict=True):
            new.replace(old)
        server.reload_certificate()
        async with asyncio.timeout(PATIENCE):
            while await common_name(config, context) != "two":  # noqa: ASYNC110 (coturn does not say when)
                await asyncio.sleep(0.02)


def test_of_several_workers_the_first_has_the_coturn() -> None:
    config = ServerConfig(coturn=CONFIG, turn=CONFIG.turn)
    workers = [of_worker(config, number) for number in range(3)]
    assert [worker.coturn is not None for worker in workers] == [True, False, False]
    # Its service is told by all.
    assert all(worker.turn == CONFIG.turn for worker in workers)


async def test_a_port_that_another_program_has_is_told_with_what_to_do(coturn_config: CoturnConfig) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind((coturn_config.host, coturn_config.port))
        with pytest.raises(InputError, match=f"port {coturn_config.port}") as caught:
            await Server(serving(coturn_config)).start()
    assert "--turn-port" in str(caught.value.hint)
    assert not processes()


@asynccontextmanager
async def allocation(config: CoturnConfig, client: str) -> AsyncIterator[TurnClientUdpProtocol]:
    """A client of a coturn, let in by the credentials that a server would give it."""
    server = credentials(config.turn, client, time.time())
    _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: TurnClientUdpProtocol(
            (config.host, config.port), server.username, server.credential, 600, 500
        ),
        remote_addr=(config.host, config.port),
    )
    try:
        await protocol.connect()
        yield protocol
    finally:
        await protocol.delete()


async def test_a_relay_reaches_public_addresses(coturn_config: CoturnConfig) -> None:
    coturn = Coturn(coturn_config, Metrics())
    await coturn.start()
    try:
        async with allocation(coturn_config, "one") as one:
            # Bound, and nothing sent.
            for number, peer in enumerate(("8.8.8.8", "1.0.0.1", "223.255.255.1"), 0x4000):
                await one.channel_bind(number, (peer, 9))
    finally:
        await coturn.stop()


async def test_the_first_clients_are_let_in_when_they_come_at_once(coturn_config: CoturnConfig) -> None:
    for _ in range(3):
        coturn = Coturn(coturn_config, Metrics())
        await coturn.start()
        try:
            async with AsyncExitStack() as stack:
                allocations = [allocation(coturn_config, f"client{number}") for number in range(12)]
                await asyncio.gather(*map(stack.enter_async_context, allocations))
        finally:
            await coturn.stop()


async def test_a_relay_reaches_other_relays_and_no_private_network(coturn_config: CoturnConfig) -> None:
    coturn = Coturn(coturn_config, Metrics())
    await coturn.start()
    try:
        async with allocation(coturn_config, "one") as one, allocation(coturn_config, "other") as other:
            assert other.relayed_address is not None
            await one.channel_bind(0x4000, other.relayed_address)
            for number, peer in enumerate(("10.9.8.7", "127.0.0.1", "169.254.169.254"), 0x4001):
                with pytest.raises(TransactionFailed) as caught:
                    await one.channel_bind(number, (peer, 9))
                assert caught.value.response.attributes["ERROR-CODE"][0] == 403
    finally:
        await coturn.stop()
