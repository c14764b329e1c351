"""Which TURN servers are asked to relay for us, and by which ways (RFC 8656 §4, RFC 8445 §5.1.1.2).

All servers are asked at once. A server that has several URLs is asked over UDP first, and PAUSE later over
TCP and TLS, unless it has answered; its addresses are tried in the same manner (RFC 8305). The first way that
leads to an allocation is kept and the others are given up: one server relays once for each IP version.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

import flyx.rtc.seam  # noqa: F401  # loads aiortc without what we do not use

# isort: split
from aiortc import RTCIceCandidate, RTCPeerConnection

from flyx.errors import FlyxError
from flyx.net.connect import connect_tcp, connect_through
from flyx.net.names import Address, resolve
from flyx.net.proxy import proxy_for
from flyx.rtc.attempts import OK, ServerAttempt, failure_outcome, refusal
from flyx.rtc.policy import ANY_PATH, IcePolicy
from flyx.rtc.seam import turn
from flyx.rtc.seam.relayed import add_relayed_candidate, remote_versions
from flyx.rtc.servers import Transport, TurnAddress

logger = logging.getLogger("flyx.rtc")

PAUSE = 0.2
"""Seconds between two ways to a server that are tried one beside the other."""

ALLOCATION_TIMEOUT = 10.0
"""Seconds for a TURN server to make an allocation, by whatever way."""

RETRY_PAUSE = 1.0
"""Seconds until a server that could not be reached is tried again."""

MAX_REDIRECTS = 2
"""Times that a server may send us to another one (300, Try Alternate; RFC 8489 §10)."""

TRY_ALTERNATE, UNSUPPORTED_FAMILY = 300, 440

_RANKS = {Transport.UDP: 0, Transport.TCP: 1, Transport.TLS: 2}

_PREFERENCE, _PREFERENCE_STEP = 65535, 4096
"""Of relayed candidates over UDP, and how much less that is over TCP, and again over TLS."""

_ERRORS = (turn.Refused, turn.NoAnswer, OSError, TimeoutError)
"""How an attempt to reach a server, or to have it relay, fails."""

OnCandidate = Callable[[RTCIceCandidate], None]
OnAttempt = Callable[[ServerAttempt], None]

_Result = TypeVar("_Result")
_Try = Callable[[], Coroutine[Any, Any, _Result]]


async def gather_relayed_candidates(
    pc: RTCPeerConnection,
    servers: Iterable[TurnAddress],
    policy: IcePolicy,
    on_candidate: OnCandidate,
    on_attempt: OnAttempt,
) -> None:
    """Have TURN servers relay for a peer connection; return when each of them does, or has failed to.

    Args:
        pc: owns the allocations from then on.
        servers: their URLs, which may name one server several times.
        policy: what may be used.
        on_candidate: told of each relayed candidate as soon as it is there.
        on_attempt: told of each URL when it is asked, and what has come of that.
    """
    urls_of: dict[tuple[str, str, str], list[TurnAddress]] = {}
    for url in servers:
        urls_of.setdefault((url.host.lower(), url.username, url.credential), []).append(url)
    async with asyncio.TaskGroup() as group:
        for urls in urls_of.values():
            urls.sort(key=lambda url: _RANKS[url.transport])
            group.create_task(_Server(pc, urls, policy, on_candidate, on_attempt).ask())


async def try_relay(url: TurnAddress, policy: IcePolicy = ANY_PATH) -> ServerAttempt:
    """Have a server relay by this URL alone, give that back, and tell what came of it."""
    try:
        async with asyncio.timeout(ALLOCATION_TIMEOUT):
            entered = await _enter_by(url, policy)
    except _ERRORS as error:
        return _attempt(url, error)
    _give_back(entered)
    return ServerAttempt(url.url, "turn", OK)


class _Server:
    """One server, known by several URLs."""

    def __init__(
        self,
        pc: RTCPeerConnection,
        urls: Sequence[TurnAddress],
        policy: IcePolicy,
        on_candidate: OnCandidate,
        on_attempt: OnAttempt,
    ) -> None:
        self._pc = pc
        self._urls = urls
        self._policy = policy
        self._on_candidate = on_candidate
        self._on_attempt = on_attempt
        # The URLs that have been asked, and why they have failed.
        self._failures: dict[TurnAddress, Exception | None] = {}

    async def ask(self) -> None:
        """Have it relay for us."""
        try:
            async with asyncio.timeout(ALLOCATION_TIMEOUT):
                way, client = await self._enter()
        except _ERRORS as error:
            self._tell(error)
            return
        self._tell(None, way.url)
        self._use(way, client)
        other = turn.IPV4 if turn.version_of(client.relayed_address) == 6 else turn.IPV6
        if other == turn.IPV6 and client.server_version != 6 and remote_versions(self._pc) != {6}:
            return
        # The version that we reach it by goes through to here, and may be the only one that the peer has.
        try:
            async with asyncio.timeout(ALLOCATION_TIMEOUT):
                self._use(way, await _allocate(way, other))
        except _ERRORS as error:
            logger.debug("a TURN server relays for one IP version only: %r", error)

    async def _enter(self) -> tuple[_Way, turn.TurnClient]:
        """Have it relay for us, by trying again if need be: one that is restarted is there again soon."""
        while True:
            try:
                return await _first([_bound(self._try, url) for url in self._urls], _give_back)
            except ssl.SSLError:
                raise
            except OSError:
                await asyncio.sleep(RETRY_PAUSE)

    def _tell(self, error: Exception | None, used: TurnAddress | None = None) -> None:
        """Tell what has come of asking: another way was faster, or why none was of use."""
        for url, failure in self._failures.items():
            if url == used:
                self._on_attempt(ServerAttempt(url.url, "turn", OK))
            elif failure is None and error is None:
                self._on_attempt(ServerAttempt(url.url, "turn", "was not needed"))
            else:
                self._on_attempt(_attempt(url, failure or error or TimeoutError()))

    async def _try(self, url: TurnAddress) -> tuple[_Way, turn.TurnClient]:
        """Have it relay for us by one of its URLs."""
        self._failures.setdefault(url, None)
        self._on_attempt(ServerAttempt(url.url, "turn"))
        try:
            return await _enter_by(url, self._policy)
        except _ERRORS as error:
            self._failures[url] = error
            raise

    def _use(self, way: _Way, client: turn.TurnClient) -> None:
        candidate = add_relayed_candidate(
            self._pc,
            client,
            hide_related_address=self._policy.relay_only,
            preference=_PREFERENCE - _PREFERENCE_STEP * _RANKS[way.url.transport],
        )
        self._on_candidate(candidate)


class _UdpWay(Struct, frozen=True):
    """To one address, over UDP."""

    url: TurnAddress
    policy: IcePolicy
    address: Address

    async def open(self) -> turn.TurnClient:
        sock = socket.socket(self.address.family, socket.SOCK_DGRAM)
        try:
            self.policy.bind_socket(sock)
        except OSError:
            sock.close()
            raise
        return turn.open_udp(self.url.username, self.url.credential, self.address.sockaddr, sock)

    async def elsewhere(self, host: str, port: int) -> _Way:
        (address, *_) = await resolve(host, port, socktype=socket.SOCK_DGRAM)
        return replace(self, address=address)


class _StreamWay(Struct, frozen=True):
    """To a host, over TCP or TLS, through a proxy if the environment names one."""

    url: TurnAddress
    policy: IcePolicy
    host: str
    port: int

    async def open(self) -> turn.TurnClient:
        # Also after a redirect it is the name in the URL that is trusted.
        verified = self.url.host if self.url.transport is Transport.TLS else None
        sock = await self._connect()
        return await turn.open_stream(self.url.username, self.url.credential, sock, verified)

    async def elsewhere(self, host: str, port: int) -> _Way:
        return replace(self, host=host, port=port)

    async def _connect(self) -> socket.socket:
        if self.policy.bind is not None:
            # Through no proxy, which may be reached from elsewhere.
            return await connect_tcp(self.host, self.port, bind=self.policy.bind_socket)
        ways = [_bound(connect_tcp, self.host, self.port)]
        scheme = "turns" if self.url.transport is Transport.TLS else "turn"
        try:
            proxy = proxy_for(scheme, self.host, self.port)
        except FlyxError as error:
            raise OSError(None, str(error)) from error
        if proxy is not None:
            ways.insert(0, _bound(connect_through, proxy, self.host, self.port))
        return await _first(ways, socket.socket.close)


_Way = _UdpWay | _StreamWay


async def _enter_by(url: TurnAddress, policy: IcePolicy) -> tuple[_Way, turn.TurnClient]:
    """Have a server relay for us by one of its URLs; its addresses are tried one after another."""
    ways: list[_Way]
    if url.transport is Transport.UDP:
        addresses = await resolve(url.host, url.port, socktype=socket.SOCK_DGRAM)
        ways = [_UdpWay(url, policy, address) for address in addresses]
    else:
        ways = [_StreamWay(url, policy, url.host, url.port)]
    return await _first([_bound(_enter, way) for way in ways], _give_back)


async def _enter(way: _Way) -> tuple[_Way, turn.TurnClient]:
    return way, await _allocate(way, None)


async def _allocate(way: _Way, family: int | None) -> turn.TurnClient:
    """Have a server relay for us by one way, wherever it sends us."""
    for left in reversed(range(MAX_REDIRECTS + 1)):
        client = await way.open()
        try:
            try:
                await client.allocate(family)
            except turn.Refused as refused:
                if refused.code != UNSUPPORTED_FAMILY or family is not None:
                    raise
                # It has no IPv4 addresses.
                await client.allocate(turn.IPV6)
        except turn.Refused as refused:
            client.close()
            if refused.code != TRY_ALTERNATE or refused.alternate is None or not left:
                raise
            way = await way.elsewhere(*refused.alternate)
        except BaseException:
            client.close()
            raise
        else:
            return client
    raise AssertionError("the last redirect is raised")


def _attempt(url: TurnAddress, error: Exception) -> ServerAttempt:
    match error:
        case turn.Refused(code=code):
            return ServerAttempt(url.url, "turn", refusal(code), code)
        case ssl.SSLCertVerificationError(verify_message=message):
            return ServerAttempt(url.url, "turn", f"has a certificate that is not trusted ({message})")
        case ssl.SSLError():
            return ServerAttempt(url.url, "turn", "does not speak TLS")
        case _:
            return ServerAttempt(url.url, "turn", failure_outcome(error))


def _give_back(entered: tuple[_Way, turn.TurnClient]) -> None:
    entered[1].close()


def _bound(function: Callable[..., Coroutine[Any, Any, _Result]], *arguments: object) -> _Try[_Result]:
    return lambda: function(*arguments)


async def _first(tries: Sequence[_Try[_Result]], discard: Callable[[_Result], None]) -> _Result:
    """Return the first result of tries, the next of which begins when PAUSE is over or one has failed.

    Args:
        tries: each may fail with one of _ERRORS.
        discard: called with any result that comes with the first.

    Raises:
        OSError: there is no try; else what the first one failed with, if all have.
    """
    waiting = list(reversed(tries))
    running: dict[asyncio.Task[_Result], int] = {}
    errors: dict[int, BaseException] = {}
    try:
        while waiting or running:
            if waiting:
                running[asyncio.create_task(waiting.pop()())] = len(waiting)
            done, _ = await asyncio.wait(
                running, timeout=PAUSE if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            results = []
            for task in done:
                number = running.pop(task)
                error = task.exception()
                if error is None:
                    results.append(task.result())
                elif isinstance(error, _ERRORS):
                    errors[number] = error
                else:
                    raise error
            if results:
                for late in results[1:]:
                    discard(late)
                return results[0]
    finally:
        # Nothing is waited for here: no cancellation can come between a result and who wants it.
        for task in running:
            task.cancel()
            task.add_done_callback(lambda late: _discard_late(late, discard))
    raise errors[max(errors)] if errors else OSError("it has no address")


def _discard_late(late: asyncio.Task[_Result], discard: Callable[[_Result], None]) -> None:
    if not late.cancelled() and late.exception() is None:
        discard(late.result())
