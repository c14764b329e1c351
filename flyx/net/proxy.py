"""Which proxy leads to a server, by the environment or the settings of the system.

Read as other programs do: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, each also in lower case, which
wins. What is on this machine or this link is never looked for behind a proxy.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from flyx.errors import InputError

_VARIABLES = {
    "ws": ("ws", "https", "http", "socks", "all"),
    "wss": ("wss", "https", "socks", "all"),
    # TURN knows no proxies of its own: what tunnels TLS tunnels it as well.
    "turn": ("https", "socks", "all"),
    "turns": ("https", "socks", "all"),
}
"""By the scheme of what is to be reached: which of `<name>_proxy` say how, the first that is there."""

_DEFAULT_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}

_HINT = "write it like http://proxy.example.org:3128 or socks5h://proxy.example.org:1080, or unset it"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy. As text: its address and the variable that names it, no credentials: "host:80 (http_proxy)".

    Attributes:
        scheme: of _DEFAULT_PORTS: how to speak to it. With socks4 and socks5, the client looks names up.
        host: a name or a literal.
        port: TCP.
        username: None if it wants none.
        password: likewise.
        named_by: the variable that names it, or else the system.
    """

    scheme: str
    host: str
    port: int
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    named_by: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" + (f" ({self.named_by})" if self.named_by else "")


def proxy_for(scheme: str, host: str, port: int | None = None) -> Proxy | None:
    """Return the proxy for a server; None if it is to be reached directly.

    Args:
        scheme: of the server: "ws", "wss", "turn" or "turns".
        host: its name or literal.
        port: its port, if NO_PROXY may name that.

    Raises:
        InputError: what the environment names is no proxy.
    """
    if is_near(host) or _is_exempt(host, port):
        return None
    proxies = getproxies()
    for name in _VARIABLES[scheme]:
        if url := proxies.get(name):
            return _parse(url, _named_by(f"{name}_proxy"))
    return None


def _named_by(variable: str) -> str:
    """Return who names a proxy: the variable as it is written, or the system where there is none."""
    return next((name for name in (variable, variable.upper()) if os.environ.get(name)), "system settings")


def is_near(host: str) -> bool:
    """Return whether a host is this machine, or is named by an address that only its link knows."""
    try:
        return is_here(host) or ipaddress.ip_address(host).is_link_local
    except ValueError:
        return False


def is_here(host: str) -> bool:
    """Return whether a host is this machine, by what it is called: every machine calls itself so."""
    if host.lower().rstrip(".").split(".")[-1] == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _is_exempt(host: str, port: int | None) -> bool:
    """Tell whether NO_PROXY, or the system, names this host."""
    if proxy_bypass(host if port is None or ":" in host else f"{host}:{port}"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for entry in getproxies().get("no", "").split(","):
        # Also 10.0.0.0/8, fd00::/8 and [::2], which the standard library does not know.
        try:
            if address in ipaddress.ip_network(entry.strip().strip("[]"), strict=False):
                return True
        except ValueError:
            pass
    return False


def _parse(url: str, named_by: str) -> Proxy:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        scheme, host = parts.scheme.lower(), parts.hostname
        if scheme == "socks":
            scheme = "socks5h"
        port = parts.port or _DEFAULT_PORTS[scheme]
        username = None if parts.username is None else unquote(parts.username, errors="strict")
        password = None if parts.password is None else unquote(parts.password, errors="strict")
    except (KeyError, ValueError):
        host = None
    if not host:
        # What is before the last @ may be a password.
        shown = url.rpartition("@")[2]
        raise InputError(reason=f"{named_by}: {shown} is not the URL of a proxy", hint=_HINT)
    return Proxy(scheme, host, port, username, password, named_by)
