"""Names become addresses, by getaddrinfo(3): with /etc/hosts, mDNS and search domains as the system has them.

getaddrinfo cannot be interrupted, and a network without a name server holds it for up to a minute. So each
call has a thread of its own that is never waited for: a task that looks a name up can be cancelled at once,
and the process can end. Event loops cannot do that: they wait for their threads at the end.

RFC 8305 §3 and §4.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain, zip_longest
from typing import Any, NamedTuple

FAMILIES = (socket.AF_INET6, socket.AF_INET)
"""In the order of preference."""

PATIENCE = 30.0
"""Seconds for which a name is looked up that no server answers for, or only with a temporary failure."""

_ASK_AGAIN = 3.0
"""Seconds after which a look-up without an answer is joined by another one, which asks the name servers that
the system knows by then; after twice as many by the next one, and so on."""

_PAUSE = 1.0
"""Seconds between a temporary failure and the next look-up."""

OTHER_FAMILY_DELAY = 1.0
"""Seconds to wait for the addresses of one family when those of the other are known."""

MAX_THREADS = 64
"""Look-ups under way, abandoned ones with them."""

_FINAL = {
    getattr(socket, name)
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY", "EAI_FAMILY", "EAI_SOCKTYPE", "EAI_SERVICE")
    if hasattr(socket, name)
}
"""Of getaddrinfo(3): the name will not be found by asking again."""

_threads = threading.BoundedSemaphore(MAX_THREADS)


class Address(NamedTuple):
    """Where to connect or send to: the family of the socket, and what its connect() takes."""

    family: socket.AddressFamily
    sockaddr: tuple[Any, ...]


async def resolve(host: str, port: int, *, socktype: socket.SocketKind) -> list[Address]:
    """Return the addresses of a host, at least one, IPv6 and IPv4 by turns.

    Looks up again for PATIENCE seconds while nothing but silence and temporary failures come. When one family
    has been answered, the other one has OTHER_FAMILY_DELAY seconds left. May be cancelled at any time.

    Args:
        host: a name, or a literal; that of an IPv6 address may have a scope (`fe80::1%eth0`).
        port: goes into the addresses.
        socktype: what the addresses are for.

    Raises:
        socket.gaierror: there are none; an OSError.
    """
    look_ups = [
        asyncio.ensure_future(resolve_family(host, port, family, socktype=socktype)) for family in FAMILIES
    ]
    try:
        pending = set(look_ups)
        while pending:
            answered = any(look_up.done() and not look_up.exception() for look_up in look_ups)
            done, pending = await asyncio.wait(
                pending,
                timeout=OTHER_FAMILY_DELAY if answered else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not done:
                break
        failures = [look_up.exception() for look_up in look_ups if look_up.done()]
        found = [look_up.result() for look_up in look_ups if look_up.done() and not look_up.exception()]
    finally:
        for look_up in look_ups:
            look_up.cancel()
        await asyncio.gather(*look_ups, return_exceptions=True)
    if not found:
        raise worst([failure for failure in failures if isinstance(failure, OSError)])
    return interleaved(found)


async def resolve_family(
    host: str, port: int, family: socket.AddressFamily, *, socktype: socket.SocketKind
) -> list[Address]:
    """Return the addresses of a host that are of one family, at least one. Otherwise like resolve().

    Raises:
        socket.gaierror: there are none.
    """
    literal = _literal(host, port, socktype)
    if literal:
        of_family = [address for address in literal if address.family == family]
        if not of_family:
            raise socket.gaierror(socket.EAI_NONAME, "an address of the other family")
        return of_family
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    failure = socket.gaierror(socket.EAI_AGAIN, "no name server answers")
    pending: set[asyncio.Future[list[Address]]] = set()
    ask_again = _ASK_AGAIN
    try:
        while (left := end - loop.time()) > 0:
            pending.add(_begin(host, port, family, socktype))
            done, pending = await asyncio.wait(
                pending, timeout=min(ask_again, left), return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                ask_again *= 2
            for look_up in done:
                try:
                    return look_up.result()
                except socket.gaierror as error:
                    if error.errno in _FINAL:
                        raise
                    failure = error
            if done:
                await asyncio.sleep(min(_PAUSE, max(0.0, end - loop.time())))
        raise failure
    finally:
        for look_up in pending:
            look_up.cancel()


def interleaved(families: Iterable[list[Address]]) -> list[Address]:
    """Return these addresses, each family's in order, by turns (RFC 8305 §4)."""
    by_turns = chain.from_iterable(zip_longest(*families))
    return list(dict.fromkeys(address for address in by_turns if address is not None))


def worst(failures: list[OSError]) -> OSError:
    """Return what a look-up has failed by, of one failure for each family: one that was not final, if any."""
    return max(failures, key=lambda failure: failure.errno not in _FINAL)


def _literal(host: str, port: int, socktype: socket.SocketKind) -> list[Address]:
    """Return the address that is written out; nothing if it is a name."""
    try:
        return _getaddrinfo(host, port, socket.AF_UNSPEC, socktype, socket.AI_NUMERICHOST)
    except socket.gaierror:
        return []


def _getaddrinfo(
    host: str, port: int, family: socket.AddressFamily, socktype: socket.SocketKind, flags: int = 0
) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, family, socktype, flags=flags)
    except ValueError as error:
        # A name that is none: with an empty label, for one.
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from error
    return [Address(kind, sockaddr) for kind, _, _, _, sockaddr in found]


def _begin(
    host: str, port: int, family: socket.AddressFamily, socktype: socket.SocketKind
) -> asyncio.Future[list[Address]]:
    """Look up in a thread, which is left to itself when the future is cancelled."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[Address]] = loop.create_future()

    def settle(found: list[Address], failure: OSError | None) -> None:
        if future.cancelled():
            return
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(found)

    def look_up() -> None:
        found: list[Address] = []
        failure: OSError | None = None
        try:
            found = _getaddrinfo(host, port, family, socktype)
        except OSError as error:
            failure = error
        finally:
            _threads.release()
        # The loop may have been closed meanwhile.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, found, failure)

    if not _threads.acquire(blocking=False):
        settle([], socket.gaierror(socket.EAI_AGAIN, "too many names are being looked up"))
        return future
    try:
        threading.Thread(target=look_up, name="look-up", daemon=True).start()
    except RuntimeError as error:
        _threads.release()
        settle([], socket.gaierror(socket.EAI_AGAIN, str(error)))
    return future
