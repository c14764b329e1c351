"""Asks a SOCKS proxy to connect us further. Loaded for connections that such a proxy leads to."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from python_socks import ProxyError as SocksError
from python_socks import ProxyType
from python_socks.async_.asyncio import Proxy as SocksProxy

from flyx.errors import printable
from flyx.net.connect import ProxyError
from flyx.net.names import FAMILIES, resolve
from flyx.net.proxy import Proxy

LOCAL_LOOK_UP_TIMEOUT = 3.0
"""Seconds to look a name up before a SOCKS proxy is left to do it."""


async def ask(proxy: Proxy, sock: socket.socket, host: str, port: int) -> None:
    """Have a SOCKS proxy connect this connection further. RFC 1928, RFC 1929; SOCKS4, SOCKS4a.

    Raises:
        ProxyError: it does not.
    """
    if proxy.scheme in ("socks4", "socks5"):
        # Names are looked up here with these, if that can be done; else by the proxy, as with the others.
        wanted = {socket.AF_INET} if proxy.scheme == "socks4" else set(FAMILIES)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(LOCAL_LOOK_UP_TIMEOUT):
                addresses = await resolve(host, port, socktype=socket.SOCK_STREAM)
                host = next((each.sockaddr[0] for each in addresses if each.family in wanted), host)
    client = SocksProxy(
        ProxyType.SOCKS4 if proxy.scheme.startswith("socks4") else ProxyType.SOCKS5,
        proxy.host,
        proxy.port,
        proxy.username,
        proxy.password,
        rdns=True,
        forward=_Connected(sock),
    )
    try:
        await client.connect(host, port)
    except (OSError, asyncio.CancelledError):
        raise
    except Exception as error:
        # What the library makes of an answer that is none is any exception.
        reason = str(error) if isinstance(error, SocksError) else "its answer is not SOCKS"
        raise ProxyError(proxy, f"refused: {printable(reason)}") from error


class _Connected(SocksProxy):
    """Has python-socks speak over a connection that is there, which we make better than it does."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(ProxyType.SOCKS5, "", 0)
        self._sock = sock

    async def connect(self, *_: object, **__: object) -> socket.socket:
        return self._sock
