"""coturn as part of the server: `flyx serve --with-turn`.

`config_text` says what it is to do, and is a pure function. `Coturn` starts it, asks it whether it works (a
STUN Binding request, RFC 8489), starts it again when it has ended or is mute, and ends it with the server,
also when that is killed. Its secret is in a file of ours that no other user can read, and in no list of
processes; what it logs is not kept, as it has addresses of clients.

A relay sends to whatever its machine can reach. So all networks are denied to it that are not public, but for
the addresses at which it relays: two clients that both need a relay meet there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import struct
import sys
import tempfile
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

from flyx.errors import InputError, printable
from flyx.net.interfaces import outgoing_address
from flyx.server.config import CoturnConfig, IPNetwork
from flyx.server.logs import get_logger
from flyx.server.metrics import Metrics

log = get_logger("flyx.server.coturn")

PROGRAM = "turnserver"
DATABASE = "turndb"
MISSING_HINT = (
    "install it (Debian: apt install coturn; macOS: brew install coturn) or take a container image that has "
    "both; or run one elsewhere and name it with --turn and --turn-secret"
)

_ALLOCATIONS_PER_PEER = 8
"""Allocations of one client for each peer that it may have.

One for each URL and address family, and those of a connection that is being replaced.
"""

_START_TIMEOUT, _START_PAUSE = 10.0, 0.05
"""Seconds for the first answer, and between two questions for it."""

_ANSWER_TIMEOUT, _CHECK_INTERVAL = 2.0, 5.0
"""Seconds for each further answer, and between two questions for these."""

_STOP_TIMEOUT = 2.0
"""Seconds to end."""

_MAX_SILENCES = 3
"""Questions without an answer after which it is ended and started again."""

_FIRST_PAUSE, _LONGEST_PAUSE, _HEALTHY = 0.5, 10.0, 30.0
"""Seconds before it is started again, at first and at most; and how long it then has to have worked."""

_REMEMBERED_LINES = 20
"""Lines of what it said last, for the error when it does not start."""

_BINDING = struct.Struct("!HHI12s")
_BINDING_REQUEST, _BINDING_RESPONSE, _MAGIC_COOKIE = 0x0001, 0x0101, 0x2112A442

_BOUND_TO_US = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Has the kernel end a program when this process has ended (PR_SET_PDEATHSIG), and becomes that program.

However this process ends. On other systems than Linux there is no such thing.
"""

_UNSPECIFIED = IPv6Address("::")

_TABLES = """
CREATE TABLE turnusers_lt (realm TEXT, name TEXT, hmackey TEXT, PRIMARY KEY (realm, name));
CREATE TABLE turn_secret (realm TEXT, value TEXT, PRIMARY KEY (realm, value));
CREATE TABLE allowed_peer_ip (realm TEXT, ip_range TEXT, PRIMARY KEY (realm, ip_range));
CREATE TABLE denied_peer_ip (realm TEXT, ip_range TEXT, PRIMARY KEY (realm, ip_range));
CREATE TABLE turn_origin_to_realm (origin TEXT PRIMARY KEY, realm TEXT);
CREATE TABLE turn_realm_option (realm TEXT, opt TEXT, value TEXT, PRIMARY KEY (realm, opt));
CREATE TABLE oauth_key (kid TEXT PRIMARY KEY, ikm_key TEXT, timestamp BIGINT DEFAULT 0,
    lifetime INTEGER DEFAULT 0, as_rs_alg TEXT DEFAULT '', realm TEXT);
CREATE TABLE admin_user (name TEXT PRIMARY KEY, realm TEXT, password TEXT);
"""
"""coturn makes the tables of its database when it is first asked for a user. Meanwhile it answers 401 to all
who ask ("database is locked"), though the secret is in its configuration file.
"""

DENIED_NETWORKS = tuple(
    ip_network(text)
    for text in (
        # IANA's special-purpose addresses (RFC 6890 and its registries), and multicast.
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        # IPv6, with those ranges through which IPv4 is reached: mapped, translated, 6to4, Teredo.
        *("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23"),
        *("2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10"),
        "ff00::/8",
    )
)
"""Networks to which nothing is relayed unless the operator allows it: none of them is the internet. Addresses
that clouds serve machine metadata at, 169.254.169.254 and fd00:ec2::254, are among them."""


def user_quota_of(max_clients: int) -> int:
    """Return the allocations that one client may have in rooms of so many clients."""
    return _ALLOCATIONS_PER_PEER * (max_clients - 1)


def config_text(config: CoturnConfig, directory: Path) -> str:
    """Return the text of a configuration file for coturn 4.5 and later.

    Args:
        config: what it is to do.
        directory: where it may keep files.
    """
    lines = [
        "use-auth-secret",
        f"static-auth-secret={config.secret}",
        f"realm={config.host}",
        f"listening-port={config.port}",
        f"min-port={config.relay_ports[0]}",
        f"max-port={config.relay_ports[1]}",
        f"user-quota={config.user_quota}",
        f"total-quota={config.total_quota}",
        # Datagrams are all that we have to send: no connections from our address (RFC 6062).
        "no-tcp-relay",
        "no-multicast-peers",
        "no-cli",
        "no-dtls",
        "no-rfc5780",
        "no-dynamic-ip-list",
        "no-dynamic-realms",
        "no-software-attribute",
        "stale-nonce=600",
        "fingerprint",
        "log-file=stdout",
        "simple-log",
        f"pidfile={directory / 'turnserver.pid'}",
        f"userdb={directory / DATABASE}",
    ]
    if config.tls is not None and config.tls_port is not None:
        certificate, key = config.tls
        lines += [f"cert={certificate.absolute()}", f"pkey={key.absolute()}"]
        lines += [f"tls-listening-port={config.tls_port}", "no-tlsv1", "no-tlsv1_1"]
    else:
        lines.append("no-tls")
    lines += [f"listening-ip={address}" for address in config.listening_addresses]
    lines += [f"relay-ip={address}" for address in config.relay_addresses]
    if not any(ip_address(address).version == 4 for address in config.relay_addresses):
        # RFC 8656 has IPv4 for a client that asks for no family, and that would be refused.
        lines.append("allocation-default-address-family=keep")
    if config.public_address is not None:
        lines.append(f"external-ip={config.public_address}/{_of_family(config)}")
    lines += [f"denied-peer-ip={_range(network)}" for network in DENIED_NETWORKS]
    # What is allowed is so even if it is denied.
    lines += [f"allowed-peer-ip={_range(network)}" for network in config.allowed]
    lines += [f"allowed-peer-ip={address}" for address in config.relay_addresses]
    return "\n".join(lines) + "\n"


def _of_family(config: CoturnConfig) -> str:
    assert config.public_address is not None
    version = ip_address(config.public_address).version
    return next(address for address in config.relay_addresses if ip_address(address).version == version)


def _range(network: IPNetwork) -> str:
    # coturn 4.6 takes each IPv4 address to be in a range that begins with "::", which is denied by itself.
    first = network[1] if network[0] == _UNSPECIFIED else network[0]
    return f"{first}-{network[-1]}"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a relay is: what clients are told, and what CoturnConfig has by these names."""

    host: str
    relay_addresses: tuple[str, ...]
    public_address: str | None
    listening_addresses: tuple[str, ...]


def find_addresses(told: str | None, host: str | None) -> Addresses:
    """Find out where a coturn on this machine relays. Looks names up, and waits for that.

    Args:
        told: name or address by which clients are to reach it; None: host, or that from which this machine
            talks to the internet.
        host: what the signaling server listens on; None: every address.

    Raises:
        InputError: There is no address by which another machine could reach it.
    """
    listening = _usable(_resolve(host)) if host is not None else []
    outgoing = [outgoing_address(family) for family in (socket.AF_INET, socket.AF_INET6)]
    own = listening or _usable(filter(None, outgoing))
    found = _resolve(told) if told is not None else []
    here = _usable(address for address in found if _is_ours(address))
    relays = _one_of_each_family([*here, *own])
    hint = "name the address or the name by which clients reach this machine with --turn-host"
    if not relays:
        reason = "this machine has no address at which it could relay (--with-turn)"
        raise InputError(reason=reason, hint=hint)
    if told is None:
        return Addresses(relays[0], relays, None, tuple(listening))
    families = {ip_address(relay).version for relay in relays}
    elsewhere = [address for address in found if ip_address(address).version in families]
    if not here and not elsewhere:
        raise InputError(reason=f"--turn-host {told} has no address that stands for this machine", hint=hint)
    # None of them is ours: there is a NAT in front of us, which passes on to us what comes there.
    return Addresses(told, relays, None if here else elsewhere[0], tuple(listening))


def _resolve(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise InputError(reason=f"{host} has no address ({error.strerror})") from error
    return list(dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found))


def _usable(addresses: Iterable[str]) -> list[str]:
    """Return the addresses by which another machine could reach this one."""
    parsed: list[IPv4Address | IPv6Address] = [ip_address(address) for address in addresses]
    return [
        str(address)
        for address in parsed
        if not (address.is_loopback or address.is_unspecified or address.is_link_local)
    ]


def _is_ours(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        return True
    return False


def _one_of_each_family(addresses: Iterable[str]) -> tuple[str, ...]:
    first: dict[int, str] = {}
    for address in addresses:
        first.setdefault(ip_address(address).version, address)
    return tuple(first[version] for version in sorted(first))


class Coturn:
    """A coturn that runs from start() to stop()."""

    def __init__(self, config: CoturnConfig, metrics: Metrics) -> None:
        """Args:
        config: what it is to do.
        metrics: told how it is.
        """
        self._config = config
        self._metrics = metrics
        self._metrics.turn_up = False
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        # Set by start(); the file is there while coturn starts and reads it.
        self._file: Path
        self._command: list[str]
        self._process: asyncio.subprocess.Process | None = None
        # Reads what it says, to its end.
        self._reading: asyncio.Task[None] | None = None
        self._said: deque[str] = deque(maxlen=_REMEMBERED_LINES)
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it, and return when it answers.

        Raises:
            InputError: It is not installed, a port is taken, or it does not start.
        """
        program = shutil.which(PROGRAM)
        if program is None:
            reason = f"--with-turn needs coturn, and there is no {PROGRAM} on this machine"
            raise InputError(reason=reason, hint=MISSING_HINT)
        self._check_ports()
        self._directory = tempfile.TemporaryDirectory(prefix="flyx-turn-")
        directory = Path(self._directory.name)
        with contextlib.closing(sqlite3.connect(directory / DATABASE)) as database:
            database.executescript(_TABLES)
        self._file = directory / "turnserver.conf"
        self._command = [sys.executable, "-I", "-S", "-c", _BOUND_TO_US, str(os.getpid())]
        self._command += [program, "-c", str(self._file)]
        try:
            await self._launch()
        except OSError as error:
            await self.stop()
            raise InputError(reason=f"coturn does not start: {error.strerror}") from error
        except BaseException:
            await self.stop()
            raise
        self._watching = asyncio.create_task(self._watch())
        config = self._config
        log.info("coturn relays", urls=config.turn.urls, addresses=config.relay_addresses)

    def reload_certificate(self) -> None:
        """Have it read the files of its certificate anew."""
        if self._process is not None and self._config.tls_port is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGUSR2)

    async def stop(self) -> None:
        """End it, and remove what it had on the disk."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None
        await self._end()
        self._metrics.turn_up = False
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def _check_ports(self) -> None:
        """coturn goes on without a port that it cannot have."""
        addresses = self._config.listening_addresses or self._config.relay_addresses
        kinds = [(socket.SOCK_DGRAM, self._config.port, "--turn-port")]
        kinds += [(socket.SOCK_STREAM, self._config.port, "--turn-port")]
        if self._config.tls_port is not None:
            kinds += [(socket.SOCK_STREAM, self._config.tls_port, "--turn-tls-port")]
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            for kind, port, option in kinds:
                try:
                    with socket.socket(family, kind) as probe:
                        if kind == socket.SOCK_STREAM:
                            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        probe.bind((address, port))
                except OSError as error:
                    raise _port_error(port, option, error) from error

    async def _launch(self) -> None:
        """Start a process, and return when it answers.

        Raises:
            InputError: It has ended, or does not answer.
            OSError: There is no process to be had.
        """
        self._said.clear()
        _write_for_us_alone(self._file, config_text(self._config, self._file.parent))
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            self._metrics.turn_starts += 1
            self._reading = asyncio.create_task(self._read(self._process))
            if await self._begins_to_answer(self._process):
                self._metrics.turn_up = True
                return
        finally:
            # Should we be killed, the secret does not stay behind.
            self._file.unlink()
        last = printable(" / ".join([*self._said][-3:]))
        raise InputError(reason=f"coturn does not start: {last or 'it does not answer'}")

    async def _begins_to_answer(self, process: asyncio.subprocess.Process) -> bool:
        """Wait for the first answer; False if it has ended, or there is none in time."""
        ended = asyncio.ensure_future(process.wait())
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                while not ended.done():
                    if await self._answers():
                        return True
                    # As long as nothing listens, the answer comes at once.
                    await asyncio.wait((ended,), timeout=_START_PAUSE)
        except TimeoutError:
            pass
        finally:
            ended.cancel()
        return False

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        # Lines longer than the buffer of the stream are cut.
        while data := await process.stdout.read(4096):
            self._said.extend(line for line in data.decode(errors="replace").splitlines() if line.strip())

    async def _watch(self) -> None:
        """Start it again whenever it has ended, or does not answer any more."""
        loop = asyncio.get_running_loop()
        pause, since = _FIRST_PAUSE, loop.time()
        while True:
            reason = await self._until_it_fails()
            self._metrics.turn_up = False
            await self._end()
            if loop.time() - since > _HEALTHY:
                pause = _FIRST_PAUSE
            log.error("coturn ended", reason=reason, pause=pause)
            await asyncio.sleep(pause)
            pause, since = min(2 * pause, _LONGEST_PAUSE), loop.time()
            try:
                await self._launch()
            except (InputError, OSError) as error:
                log.error("coturn not started", reason=str(error))
            else:
                log.info("coturn started again")

    async def _until_it_fails(self) -> str:
        """Wait until it has ended or is mute, and return which."""
        process = self._process
        if process is None:
            return "it does not start"
        ended = asyncio.ensure_future(process.wait())
        silences = 0
        try:
            while silences < _MAX_SILENCES:
                await asyncio.wait((ended,), timeout=_CHECK_INTERVAL)
                if ended.done():
                    return f"status {ended.result()}"
                silences = 0 if await self._answers() else silences + 1
                self._metrics.turn_up = not silences
            return "it does not answer"
        finally:
            ended.cancel()

    async def _answers(self) -> bool:
        """Tell whether it answers a STUN Binding request in time (RFC 8489)."""
        addresses = self._config.listening_addresses or self._config.relay_addresses
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT):
                return await _binding(addresses[0], self._config.port)
        except (TimeoutError, OSError):
            return False

    async def _end(self) -> None:
        """End the process, if there is one; cancelled meanwhile, this is to be called again."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_TIMEOUT)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self._process = None
        if self._reading is not None:
            await self._reading
            self._reading = None


def _write_for_us_alone(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _port_error(port: int, option: str, error: OSError) -> InputError:
    if error.errno == errno.EADDRINUSE:
        hint = (
            f"perhaps a coturn that the system has started (systemctl disable --now coturn); or choose "
            f"another port with {option}"
        )
        return InputError(reason=f"coturn cannot have port {port}: another program uses it", hint=hint)
    if error.errno == errno.EACCES:
        hint = f"choose a port from 1024 on with {option}; lower ones are for the administrator"
        return InputError(reason=f"coturn cannot have port {port}: not permitted", hint=hint)
    return InputError(reason=f"coturn cannot have port {port}: {error.strerror}")


class _Binding(asyncio.DatagramProtocol):
    """Hears the answer to one Binding request."""

    def __init__(self, transaction_id: bytes) -> None:
        self._transaction_id = transaction_id
        self.answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if len(data) < _BINDING.size or self.answered.done():
            return
        kind, _, _, transaction_id = _BINDING.unpack_from(data)
        if transaction_id == self._transaction_id:
            self.answered.set_result(kind == _BINDING_RESPONSE)

    def error_received(self, error: Exception) -> None:
        if not self.answered.done():
            self.answered.set_result(False)


async def _binding(address: str, port: int) -> bool:
    """Send a Binding request, and return whether the answer, for which this waits, is a good one."""
    transaction_id = secrets.token_bytes(12)
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Binding(transaction_id), remote_addr=(address, port)
    )
    try:
        transport.sendto(_BINDING.pack(_BINDING_REQUEST, 0, _MAGIC_COOKIE, transaction_id))
        return await protocol.answered
    finally:
        transport.close()
