"""TCP connections to servers that have several addresses, or that a proxy leads to.

Happy Eyeballs, RFC 8305: the addresses are tried one after the other, each a quarter of a second after the
one before or when that has failed; the first that answers is taken. An address that swallows all packets
costs that quarter. Event loops have it in parts (asyncio) or not at all (uvloop), and none of them begins
before all names have been looked up.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from base64 import b64encode
from collections import deque
from collections.abc import Callable

from flyx.errors import printable
from flyx.net.names import (
    FAMILIES,
    OTHER_FAMILY_DELAY,
    Address,
    resolve_family,
    worst,
)
from flyx.net.proxy import Proxy
from flyx.net.tls import client_context, why_not_trusted

ATTEMPT_DELAY = 0.25
"""Seconds between one address and the next one: Connection Attempt Delay, RFC 8305 §5."""

RESOLUTION_DELAY = 0.05
"""Seconds that known IPv4 addresses wait for those of IPv6: Resolution Delay, RFC 8305 §3."""

CONNECT_TIMEOUT = 10.0
"""Seconds for one address to answer: four SYN segments."""

PROXY_TIMEOUT = 15.0
"""Seconds for a proxy to whom we are connected to connect us further."""

DIRECT_DELAY = 3.0
"""Seconds for a proxy to connect us before the server is tried directly as well."""

DIRECT_TIMEOUT = 12.0
"""Seconds for that: less than without a proxy, behind which names often cannot be looked up."""

MAX_ADDRESSES = 16
"""Addresses that are tried of one name, whose name server decides how many it has."""

PROXY_HINT = "hosts in NO_PROXY are reached without a proxy"

MAX_PROXY_HEADER = 16 << 10
"""Bytes of a proxy's answer, provisional ones counted in."""

_NO_WAY = frozenset({errno.ENETUNREACH, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
"""Of connect(2): this machine has no such way at all, which says nothing of the server."""

# What carries the bytes of connections through proxies that are spoken to by TLS.
_bridges: set[asyncio.Task[None]] = set()


class ConnectError(OSError):
    """No address of a server could be connected to, and not all for the same reason; strerror has them all.

    Attributes:
        failures: what each address failed by.
    """

    def __init__(self, failures: list[tuple[Address, OSError]]) -> None:
        super().__init__(failures[0][1].errno, "; ".join(_told(failures)))
        self.failures = failures


class ProxyError(OSError):
    """A proxy did not connect us to a server. strerror is a clause that names the proxy, without credentials.

    Attributes:
        reason: without the proxy's name.
        hint: what a person can do about it.
    """

    def __init__(self, proxy: Proxy, reason: str, hint: str | None = None) -> None:
        super().__init__(None, f"the proxy {proxy} {reason}")
        self.reason = reason
        self.hint = hint or PROXY_HINT

    def __str__(self) -> str:
        return str(self.strerror)


async def connect_tcp(
    host: str,
    port: int,
    *,
    max_segment_size: int | None = None,
    bind: Callable[[socket.socket], None] | None = None,
) -> socket.socket:
    """Return a connected, non-blocking socket to a server, over the first of its addresses that answers.

    May be cancelled at any time. Otherwise it ends by itself: names are looked up for names.PATIENCE seconds,
    then each address has CONNECT_TIMEOUT.

    Args:
        host: a name or a literal, as for names.resolve().
        port: TCP.
        max_segment_size: bytes of a TCP segment in either direction; None: what the kernel finds.
        bind: binds a socket to the address that it is to connect from, or raises OSError; None: any address.

    Raises:
        socket.gaierror: the name has no address.
        ConnectError: the addresses failed for several reasons.
        OSError: they failed for this one.

    RFC 8305.
    """
    return await _Race(host, port, max_segment_size, bind).run()


async def connect_through(
    proxy: Proxy, host: str, port: int, *, max_segment_size: int | None = None
) -> socket.socket:
    """Return a non-blocking socket that a proxy has connected to a server. For the rest see connect_tcp().

    The server must not be one that speaks first. With an https:// proxy this is one end of a pair of sockets;
    a task of the running event loop carries what is written to it.

    Raises:
        ProxyError: the proxy cannot be reached, or does not connect us.
    """
    if not host.isascii():
        # As getaddrinfo has it, and every protocol of proxies.
        host = host.encode("idna").decode()
    try:
        sock = await connect_tcp(proxy.host, proxy.port, max_segment_size=max_segment_size)
    except OSError as error:
        raise ProxyError(proxy, why_not_connected(error)) from error
    try:
        async with asyncio.timeout(PROXY_TIMEOUT):
            if proxy.scheme == "https":
                sock = await _within_tls(sock, proxy.host)
            try:
                if proxy.scheme.startswith("socks"):
                    from flyx.net.socks import ask

                    await ask(proxy, sock, host, port)
                else:
                    await _ask_http(proxy, sock, host, port)
            except BaseException:
                sock.close()
                raise
    except ProxyError:
        raise
    except TimeoutError as error:
        raise ProxyError(proxy, "accepts connections but does not answer") from error
    except ssl.SSLCertVerificationError as error:
        reason, hint = why_not_trusted(error)
        raise ProxyError(proxy, f"has a certificate that {reason}", hint) from error
    except ssl.SSLError as error:
        raise ProxyError(proxy, "does not speak TLS", "with http:// it may answer") from error
    except OSError as error:
        raise ProxyError(proxy, "closed the connection") from error
    return sock


async def connect(
    proxy: Proxy | None, host: str, port: int, *, max_segment_size: int | None = None
) -> socket.socket:
    """Return a socket to a server, through the proxy if there is one. For the rest see connect_tcp().

    A proxy that fails, or that takes longer than DIRECT_DELAY, may not be needed: the server is then tried
    directly as well, and what succeeds first is taken.

    Raises:
        ProxyError: neither the proxy nor a direct connection led there.
        OSError: as connect_tcp(), without a proxy.
    """
    if proxy is None:
        return await connect_tcp(host, port, max_segment_size=max_segment_size)
    ways = [asyncio.ensure_future(connect_through(proxy, host, port, max_segment_size=max_segment_size))]
    try:
        await asyncio.wait(ways, timeout=DIRECT_DELAY)
        ways.append(asyncio.ensure_future(_connect_directly(host, port, max_segment_size)))
        while True:
            for way in ways:
                if way.done() and not isinstance(way.exception(), OSError):
                    ways.remove(way)
                    return way.result()
            pending = [way for way in ways if not way.done()]
            if not pending:
                break
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        refused, unreachable = (way.exception() for way in ways)
    finally:
        for way in ways:
            way.cancel()
            way.add_done_callback(_close_late)
    assert isinstance(refused, ProxyError)
    assert isinstance(unreachable, OSError)
    reason = f"{refused.reason}; directly, {host} {why_not_connected(unreachable)}"
    raise ProxyError(proxy, reason, refused.hint) from refused


async def _connect_directly(host: str, port: int, max_segment_size: int | None) -> socket.socket:
    async with asyncio.timeout(DIRECT_TIMEOUT):
        return await connect_tcp(host, port, max_segment_size=max_segment_size)


def why_not_connected(error: OSError) -> str:
    """Return why connect_tcp() failed, as a clause without its subject: "does not answer"."""
    match error:
        case TimeoutError():
            return "does not answer"
        case ConnectionRefusedError():
            return "refuses connections"
        case socket.gaierror(errno=socket.EAI_AGAIN):
            return "has a name that no name server answers for"
        case socket.gaierror():
            return "has a name that does not exist"
        case OSError(errno=number) if number in _NO_WAY:
            return "is on a network to which there is no way from here"
        case ConnectError():
            return f"cannot be reached: {error.strerror}"
        case _:
            return f"cannot be reached: {error.strerror or error}"


def _told(failures: list[tuple[Address, OSError]]) -> list[str]:
    """Return a clause for each reason, with the addresses that it holds for."""
    by_reason: dict[str, list[str]] = {}
    for address, error in failures:
        by_reason.setdefault(why_not_connected(error), []).append(address.sockaddr[0])
    return [f"{', '.join(hosts)} {reason}" for reason, hosts in by_reason.items()]


class _Race:
    """One server's addresses, tried as RFC 8305 §5 has it."""

    def __init__(
        self,
        host: str,
        port: int,
        max_segment_size: int | None,
        bind: Callable[[socket.socket], None] | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._bind = bind
        self._max_segment_size = max_segment_size
        self._look_ups = {
            asyncio.ensure_future(resolve_family(host, port, family, socktype=socket.SOCK_STREAM)): family
            for family in FAMILIES
        }
        self._unknown: list[OSError] = []
        self._untried: dict[socket.AddressFamily, deque[Address]] = {family: deque() for family in FAMILIES}
        # The families in the order of their turns.
        self._turns = deque(FAMILIES)
        self._attempts: dict[asyncio.Task[socket.socket], Address] = {}
        self._started = 0
        self._failures: list[tuple[Address, OSError]] = []
        # When the next address may be tried: a time of the loop.
        self._next_start = 0.0

    async def run(self) -> socket.socket:
        try:
            while True:
                self._start()
                pending = {*self._look_ups, *self._attempts}
                if not pending:
                    raise self._failure()
                done, _ = await asyncio.wait(
                    pending, timeout=self._patience(), return_when=asyncio.FIRST_COMPLETED
                )
                if not done and not self._attempts and not any(self._untried.values()):
                    raise self._failure()
                for look_up in [task for task in self._look_ups if task in done]:
                    self._take_addresses(look_up)
                for attempt in [task for task in self._attempts if task in done]:
                    address = self._attempts[attempt]
                    error = attempt.exception()
                    if error is None:
                        del self._attempts[attempt]
                        return attempt.result()
                    if not isinstance(error, OSError):
                        raise error
                    del self._attempts[attempt]
                    self._failures.append((address, error))
                    self._next_start = 0.0
        finally:
            # Nothing is waited for here: no cancellation can come between a connection and who wants it.
            for look_up in self._look_ups:
                look_up.cancel()
            for attempt in self._attempts:
                attempt.cancel()
                attempt.add_done_callback(_close_late)

    def _start(self) -> None:
        """Try the next address, if it is time."""
        if self._loop.time() < self._next_start:
            return
        for family in tuple(self._turns):
            if self._untried[family] and self._started < MAX_ADDRESSES:
                address = self._untried[family].popleft()
                self._turns.remove(family)
                self._turns.append(family)
                attempt = asyncio.ensure_future(self._attempt(address))
                self._attempts[attempt] = address
                self._started += 1
                self._next_start = self._loop.time() + ATTEMPT_DELAY
                return

    def _patience(self) -> float | None:
        """Return for how many seconds there is nothing to do unless something ends."""
        if any(self._untried.values()) and self._started < MAX_ADDRESSES:
            return max(0.0, self._next_start - self._loop.time())
        if self._attempts or not self._failures:
            return None
        # All that are known have failed.
        return OTHER_FAMILY_DELAY

    def _take_addresses(self, look_up: asyncio.Task[list[Address]]) -> None:
        family = self._look_ups.pop(look_up)
        if not self._started:
            early = self._look_ups and family is not FAMILIES[0]
            self._next_start = self._loop.time() + RESOLUTION_DELAY if early else 0.0
        try:
            self._untried[family].extend(look_up.result())
        except OSError as error:
            self._unknown.append(error)

    async def _attempt(self, address: Address) -> socket.socket:
        sock = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if self._max_segment_size is not None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, self._max_segment_size)
            if self._bind is not None:
                self._bind(sock)
            # Not by the loop's sock_connect(): that of uvloop loses the scope of an IPv6 address.
            error = sock.connect_ex(address.sockaddr)
            if error == errno.EINPROGRESS:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await self._writable(sock)
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
        except BaseException:
            sock.close()
            raise
        return sock

    async def _writable(self, sock: socket.socket) -> None:
        """Wait until it is known whether a socket is connected."""
        known = asyncio.Event()
        self._loop.add_writer(sock, known.set)
        try:
            await known.wait()
        finally:
            self._loop.remove_writer(sock)

    def _failure(self) -> OSError:
        # A machine without IPv6 says of each IPv6 address that there is no way to it: not what is wrong here.
        telling = [failure for failure in self._failures if failure[1].errno not in _NO_WAY] or self._failures
        if not telling:
            return worst(self._unknown)
        if len({why_not_connected(error) for _, error in telling}) == 1:
            return telling[0][1]
        return ConnectError(telling)


def _close_late(attempt: asyncio.Task[socket.socket]) -> None:
    """Close what was connected when it was no longer wanted."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _ask_http(proxy: Proxy, sock: socket.socket, host: str, port: int) -> None:
    """Have an HTTP proxy connect this connection further: CONNECT, RFC 9110 §9.3.6.

    Raises:
        ProxyError: it does not.
    """
    import h11

    loop = asyncio.get_running_loop()
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    headers = [("Host", target)]
    if proxy.username is not None:
        credentials = f"{proxy.username}:{proxy.password or ''}".encode()
        headers.append(("Proxy-Authorization", f"Basic {b64encode(credentials).decode()}"))
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_PROXY_HEADER)
    try:
        request = http.send(h11.Request(method="CONNECT", target=target, headers=headers))
        assert request is not None
        await loop.sock_sendall(sock, request)
        received = 0
        while not isinstance(answer := http.next_event(), h11.Response):
            if answer is h11.NEED_DATA and received < MAX_PROXY_HEADER:
                data = await loop.sock_recv(sock, 4096)
                received += len(data)
                http.receive_data(data)
            elif answer is h11.NEED_DATA:
                raise ProxyError(proxy, "does not come to an end with its answer")
            elif isinstance(answer, h11.ConnectionClosed):
                raise ProxyError(proxy, "closed the connection")
    except h11.ProtocolError as error:
        raise ProxyError(proxy, "does not answer as an HTTP proxy") from error
    status = answer.status_code
    if status == 407:
        hint = "put them into its URL, like http://NAME:PASSWORD@proxy.example.org:3128"
        verb = "wants a" if proxy.username is None else "does not take this"
        raise ProxyError(proxy, f"{verb} name and password (407)", hint)
    if not 200 <= status < 300:
        phrase = printable(answer.reason.decode("latin-1"))[:100]
        raise ProxyError(proxy, f"refused to connect to {target}: {status} {phrase}".rstrip())
    if http.trailing_data[0]:
        raise ProxyError(proxy, "sends more than an answer")


async def _within_tls(sock: socket.socket, hostname: str) -> socket.socket:
    """Return a socket whose bytes go through TLS over that one, which is taken over.

    Raises:
        OSError: TLS cannot be spoken there.
    """
    reader, writer = await asyncio.open_connection(sock=sock, ssl=client_context(), server_hostname=hostname)
    ours, near = socket.socketpair()
    for end in (ours, near):
        end.setblocking(False)
    bridge = asyncio.create_task(_carry(near, reader, writer))
    _bridges.add(bridge)
    bridge.add_done_callback(_bridges.discard)
    return ours


async def _carry(near: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes both ways until one side ends."""
    loop = asyncio.get_running_loop()

    async def outward() -> None:
        while data := await loop.sock_recv(near, 1 << 16):
            writer.write(data)
            await writer.drain()

    async def inward() -> None:
        while data := await reader.read(1 << 16):
            await loop.sock_sendall(near, data)

    ways = [asyncio.ensure_future(way()) for way in (outward, inward)]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        near.close()
        writer.transport.abort()
