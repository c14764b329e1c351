"""What multicast DNS (RFC 6762) tells of the local network: services, by DNS-SD (RFC 6763), and hosts.

zeroconf implements the protocol. This module decides on which interfaces, notices when these change, finds
out whether multicast leaves at all, and bounds what others can make us do. All that is found is hostile.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from types import TracebackType
from typing import Self

import ifaddr
from msgspec import Struct
from zeroconf import (  # type: ignore[attr-defined]  # __all__ has forgotten the resolvers
    AddressResolverIPv4,
    AddressResolverIPv6,
    DNSQuestionType,
    IPVersion,
    ServiceInfo,
    ServiceStateChange,
    Zeroconf,
)
from zeroconf import Error as ZeroconfError
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from flyx.net.interfaces import internal_interfaces

logger = logging.getLogger("flyx.net")

MAX_INTERFACES = 16
"""Interfaces that are used, those that lead out first: by default Linux lets a socket join 20 groups."""

MAX_NAMES = 256
"""Instances of a service that a browser looks at; it is deaf to any more."""

WATCH_INTERVAL = 2.0
"""Seconds between two looks whether our addresses have changed."""

AGAIN_INTERVAL = 10.0
"""Seconds before another try where it did not work, unless our addresses change before."""

ECHO_TIMEOUT = 3.0
"""Seconds in which we have to hear our own announcement. Of three, the last goes out after 0.5 s."""

GOODBYE_TIMEOUT = 1.0
"""Seconds that it may take to say that a service has gone."""

_RESOLVE_TIMEOUT = 3000
"""Milliseconds for an instance to tell its port and addresses."""

_HOST_TIMEOUT = 6000
"""Milliseconds for a host to tell its address. It is asked again meanwhile: Firefox answers for the name of a
candidate only when it has the description of the other side."""

Network = IPv4Network | IPv6Network


class CannotDiscover(Exception):
    """Multicast DNS cannot be spoken here; the message is a clause that says why."""


class Interfaces(Struct, frozen=True):
    """The interfaces of this computer that lead to others, at one moment.

    Attributes:
        addresses: all of them, without scopes, those of interfaces that lead out of this computer first.
        networks: what they are in.
        choice: what zeroconf is to use: IPv4 addresses, and indexes of interfaces that have IPv6.
    """

    addresses: tuple[str, ...]
    networks: frozenset[Network]
    choice: tuple[str | int, ...]


def interfaces() -> Interfaces:
    """Return the interfaces that there are now."""
    addresses: list[str] = []
    networks: set[Network] = set()
    choice: list[str | int] = []
    internal = internal_interfaces()
    for adapter in sorted(ifaddr.get_adapters(), key=lambda adapter: adapter.name in internal):
        if len(choice) >= MAX_INTERFACES:
            break
        found = [(ip.ip if isinstance(ip.ip, str) else ip.ip[0], ip.network_prefix) for ip in adapter.ips]
        usable = [(text, prefix) for text, prefix in found if _is_usable(text, adapter.index or 0)]
        addresses += (text for text, _ in usable)
        networks |= {ip_network(f"{text}/{prefix}", strict=False) for text, prefix in usable}
        choice += (text for text, _ in usable if ":" not in text)
        if adapter.index is not None and any(":" in text for text, _ in usable):
            choice.append(adapter.index)
    return Interfaces(tuple(dict.fromkeys(addresses)), frozenset(networks), tuple(choice))


def _is_usable(address: str, index: int) -> bool:
    """Whether an address leads to others, and is one already: IPv6 has to find that out (RFC 4862 §5.4)."""
    parsed = ip_address(address)
    if parsed.is_loopback:
        return False
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
    # Of a link-local one, the interface belongs to it.
    name = (address, 0) if parsed.version == 4 else (address, 0, 0, index if parsed.is_link_local else 0)
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as bound:
            bound.bind(name)
    except OSError:
        return False
    return True


def _open(here: Interfaces) -> AsyncZeroconf:
    """Return what speaks multicast DNS on these interfaces. It is to be closed.

    Raises:
        CannotDiscover: it cannot be had.
    """
    if not here.choice:
        raise CannotDiscover("this computer has no network")
    has_v6 = any(isinstance(interface, int) for interface in here.choice)
    version = IPVersion.All if has_v6 else IPVersion.V4Only
    try:
        return AsyncZeroconf(interfaces=list(here.choice), ip_version=version)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotDiscover("another program keeps port 5353 to itself") from error
        raise CannotDiscover(f"multicast cannot be had: {error.strerror}") from error
    except (RuntimeError, ZeroconfError) as error:
        # An interface has gone in this moment.
        raise CannotDiscover(f"multicast cannot be had: {error}") from error


async def _close(zeroconf: AsyncZeroconf) -> None:
    try:
        async with asyncio.timeout(GOODBYE_TIMEOUT):
            await zeroconf.async_close()
    except (TimeoutError, OSError, ZeroconfError) as error:
        logger.debug("multicast DNS was not closed in good order: %r", error)


class Service(Struct, frozen=True):
    """What is announced.

    Attributes:
        kind: service type, such as "_flyx._tcp.local.".
        label: name of this instance, random, as no question asks whether another has it.
        port: TCP.
        properties: of its TXT record.
    """

    kind: str
    label: str
    port: int
    properties: Mapping[str, str]


async def announce(
    service: Service, tell: Callable[[str | None], None], look: Callable[[], Interfaces] = interfaces
) -> None:
    """Announce a service on all networks that there are, also on those that come later; until cancelled.

    Args:
        service: what to announce.
        tell: called when it has become known whether others can find the service, and when that changes:
            with None if they probably can, since we hear it ourselves, or a clause that says why not.
        look: returns the interfaces that there are.
    """
    told: list[str | None] = []

    def tell_news(trouble: str | None) -> None:
        if told[-1:] != [trouble]:
            told[:] = [trouble]
            tell(trouble)

    while True:
        here = look()
        try:
            await _announce_on(here, service, tell_news, look)
        except CannotDiscover as error:
            tell_news(str(error))
            await _change_from(here, look, AGAIN_INTERVAL)


async def _announce_on(
    here: Interfaces,
    service: Service,
    tell: Callable[[str | None], None],
    look: Callable[[], Interfaces],
) -> None:
    """Announce a service on the interfaces that are here, until there are others or it is time to try again.

    Raises:
        CannotDiscover: that is not possible.
    """
    zeroconf = _open(here)
    telling: asyncio.Future[object] | None = None
    try:
        telling = await _register(zeroconf, service, here)
        heard = await _is_heard(zeroconf, service)
        tell(None if heard else "a firewall may block multicast to port 5353")
        # An address may have been too new to be used, or a firewall may open.
        await _change_from(here, look, None if heard else AGAIN_INTERVAL)
    except (OSError, ZeroconfError) as error:
        raise CannotDiscover(f"multicast does not work: {error}") from error
    finally:
        if telling is not None:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
        await _close(zeroconf)


async def _register(zeroconf: AsyncZeroconf, service: Service, here: Interfaces) -> asyncio.Future[object]:
    """Answer questions for a service from now on; return what is done when all have been told of it."""
    info = ServiceInfo(
        service.kind,
        f"{service.label}.{service.kind}",
        port=service.port,
        addresses=[ip_address(text).packed for text in here.addresses],
        properties=dict(service.properties),
        server=f"{service.label}.local.",
    )
    # Without a probe for others of this name (RFC 6762 §8.1), which would take a second: it is random.
    return asyncio.ensure_future(await zeroconf.async_register_service(info, cooperating_responders=True))


async def _is_heard(zeroconf: AsyncZeroconf, service: Service) -> bool:
    """Whether our own announcement comes back to us, as multicast does unless something is in the way."""
    heard = asyncio.Event()
    name = f"{service.label}.{service.kind}"

    def on_change(*, name: str, wanted: str = name, **_: object) -> None:
        if name == wanted:
            heard.set()

    browser = AsyncServiceBrowser(
        zeroconf.zeroconf, service.kind, handlers=[on_change], question_type=DNSQuestionType.QM
    )
    try:
        async with asyncio.timeout(ECHO_TIMEOUT):
            await heard.wait()
        return True
    except TimeoutError:
        return False
    finally:
        await browser.async_cancel()


async def _change_from(before: Interfaces, look: Callable[[], Interfaces], seconds: float | None) -> None:
    """Wait until the interfaces are others, or the time is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                await asyncio.sleep(WATCH_INTERVAL)
                if look() != before:
                    return


class Found(Struct, frozen=True):
    """What an instance announces, or another program in its name.

    Attributes:
        label: its name.
        properties: of its TXT record.
        addresses: IPv6 link-local ones with the index of the interface on which they were heard of.
        port: from 0 to 65,535.
    """

    label: str
    properties: tuple[tuple[bytes, bytes | None], ...]
    addresses: tuple[str, ...]
    port: int


class Browser:
    """Finds the instances of a service. Use as an async context manager."""

    def __init__(
        self,
        kind: str,
        is_wanted: Callable[[str], bool],
        look: Callable[[], Interfaces] = interfaces,
    ) -> None:
        """Args:
        kind: service type, such as "_flyx._tcp.local.".
        is_wanted: whether an instance of this name is worth a question.
        look: returns the interfaces that there are.
        """
        self._look = look
        self._kind = kind
        self._is_wanted = is_wanted
        self._zeroconf: AsyncZeroconf
        self._browser: AsyncServiceBrowser
        self._questions: dict[str, asyncio.Task[None]] = {}
        self._names: set[str] = set()
        self._found: asyncio.Queue[Found] = asyncio.Queue()
        # Each is returned once; those of one instance differ if several programs announce it.
        self._told: set[Found] = set()

    async def __aenter__(self) -> Self:
        """Begin to look.

        Raises:
            CannotDiscover: that is not possible here.
        """
        self._zeroconf = _open(self._look())
        # Multicast answers alone: of several programs on this computer that share the port, one would get a
        # unicast one, and not always the one that has asked.
        self._browser = AsyncServiceBrowser(
            self._zeroconf.zeroconf,
            self._kind,
            handlers=[self._on_change],
            question_type=DNSQuestionType.QM,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for question in self._questions.values():
            question.cancel()
        await asyncio.gather(*self._questions.values(), return_exceptions=True)
        await self._browser.async_cancel()
        await _close(self._zeroconf)

    async def next(self) -> Found:
        """Wait for the next instance, or for the next announcement of one."""
        return await self._found.get()

    def _on_change(
        self, *, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        label = name.removesuffix(f".{self._kind}")
        if state_change is ServiceStateChange.Removed or not self._is_wanted(label):
            return
        if name not in self._names and len(self._names) >= MAX_NAMES:
            return
        self._names.add(name)
        asked = self._questions.get(name)
        if asked is None or asked.done():
            self._questions[name] = asyncio.create_task(self._ask(zeroconf, name, label))

    async def _ask(self, zeroconf: Zeroconf, name: str, label: str) -> None:
        info = AsyncServiceInfo(self._kind, name)
        if not await info.async_request(zeroconf, _RESOLVE_TIMEOUT, DNSQuestionType.QM):
            return
        addresses = tuple(info.parsed_scoped_addresses(IPVersion.All))
        found = Found(label, tuple(sorted(info.properties.items())), addresses, info.port or 0)
        if found not in self._told and len(self._told) < 2 * MAX_NAMES:
            self._told.add(found)
            self._found.put_nowait(found)


class HostNames:
    """Finds the addresses of hosts by their names in .local, as browsers have them for their candidates.

    What it opens for that is closed when no question is left.
    """

    def __init__(self, look: Callable[[], Interfaces] = interfaces) -> None:
        """Args:
        look: Returns the interfaces that there are.
        """
        self._look = look
        self._zeroconf: AsyncZeroconf | None = None
        self._questions = 0

    async def resolve(self, name: str) -> str | None:
        """Return the address of a host, one that others can have; None if none is told.

        Args:
            name: Such as "6f2ae2cb-8ef3-4bbd-9c3c-0e3a2e6e3c4d.local".
        """
        self._questions += 1
        try:
            if self._zeroconf is None:
                self._zeroconf = _open(self._look())
            addresses = await _ask_for_host(self._zeroconf.zeroconf, f"{name}.")
        except (CannotDiscover, OSError, ZeroconfError) as error:
            logger.debug("no address for a name in .local: %s", error)
            return None
        finally:
            self._questions -= 1
            if not self._questions and self._zeroconf is not None:
                unused, self._zeroconf = self._zeroconf, None
                await _close(unused)
        return next((address for address in addresses if _is_of_another(address)), None)


async def _ask_for_host(zeroconf: Zeroconf, server: str) -> list[str]:
    """Return the addresses of one family, the first to be told."""
    # A message each: Chromium answers none that has more than one question.
    hosts = AddressResolverIPv4(server), AddressResolverIPv6(server)
    asking = {
        asyncio.create_task(host.async_request(zeroconf, _HOST_TIMEOUT, DNSQuestionType.QM)) for host in hosts
    }
    try:
        while asking:
            done, asking = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            # One that is told that there is no address of its family may be told that of the other as well.
            if found := [each for host in hosts for each in host.parsed_addresses(IPVersion.All)]:
                return found
        return []
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


def _is_of_another(address: str) -> bool:
    """Whether a host in the network can have this address: anybody there may answer for any name."""
    parsed = ip_address(address)
    return not (parsed.is_loopback or parsed.is_multicast or parsed.is_unspecified or parsed.is_link_local)
