"""Access control: whose requests reach the application at all.

`AccessControl` is ASGI middleware outside of everything else. It finds out whose request it is, checks the
host it names and the page it comes from, and sends away what is beyond a limit of connections.

What a proxy says of its clients is believed of trusted proxies only, and then the right-most address of
X-Forwarded-For that is not itself one of them: what is left of it may be forged.
"""

from __future__ import annotations

from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from flyx.server.admission import SLOT, Admission
from flyx.server.config import ServerConfig
from flyx.server.limits import ConnectionSlot, Limit, address_key
from flyx.signaling.messages import SUBPROTOCOL, CloseCode, ErrorCode, error_message, serialize

_RETRY_AFTER = 10
"""Seconds: connections end within minutes, and a client beyond a limit may ask again soon."""

_ALWAYS_OPEN = {"/healthz", "/readyz"}
"""For monitoring, to which a server that is merely full must not seem dead."""

_LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1"}
_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


class AccessControl:
    """ASGI middleware: lets through whom the configuration lets through."""

    def __init__(self, app: ASGIApp, config: ServerConfig, admission: Admission) -> None:
        self._app = app
        self._admission = admission
        self._hosts = frozenset(host.lower() for host in config.allowed_hosts)
        # A page that a browser was tricked into taking for one of ours (DNS rebinding) names its own host.
        self._any_host = not self._hosts and config.host not in _LOOPBACK_NAMES
        self._origins = frozenset(origin.lower().rstrip("/") for origin in config.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        slot: ConnectionSlot | None = scope.get("state", {}).get(SLOT)
        self._believe_proxy(scope, headers, slot)
        if scope["path"] not in _ALWAYS_OPEN:
            refusal = self._strange(headers)
            if refusal is not None:
                await _forbid(scope, receive, send, *refusal)
                return
            if slot is not None and slot.exceeds is not None:
                self._admission.rejected(slot.exceeds)
                await _send_away(scope, receive, send, slot.exceeds)
                return
        await self._app(scope, receive, send)

    def _believe_proxy(self, scope: Scope, headers: Headers, slot: ConnectionSlot | None) -> None:
        client = scope.get("client")
        if client is None or not self._admission.is_proxy(client[0]):
            return
        hops = [hop.strip() for line in headers.getlist("x-forwarded-for") for hop in line.split(",")]
        outside = (hop for hop in map(_without_port, reversed(hops)) if not self._admission.is_proxy(hop))
        # Without any, the proxy itself is asking.
        host = next(outside, client[0])
        scope["client"] = (host, 0)
        scheme = headers.get("x-forwarded-proto", "").lower()
        if scheme in ("http", "https"):
            secure = scheme == "https"
            plain, encrypted = ("ws", "wss") if scope["type"] == "websocket" else ("http", "https")
            scope["scheme"] = encrypted if secure else plain
        # HTTP connections of a proxy are shared by its clients; a WebSocket belongs to one.
        if slot is not None and scope["type"] == "websocket":
            slot.belong_to(address_key(host))

    def _strange(self, headers: Headers) -> tuple[ErrorCode, str] | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return ErrorCode.FORBIDDEN_HOST, "this server does not go by that name"
        origins = headers.getlist("origin")
        if any(not self._may_come_from(origin, host) for origin in origins):
            return ErrorCode.FORBIDDEN_ORIGIN, "pages from elsewhere may not use this server"
        return None

    def _is_ours(self, host: str) -> bool:
        if self._any_host:
            return True
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._hosts or name in _LOOPBACK_NAMES:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True

    def _may_come_from(self, origin: str, host: str) -> bool:
        origin = origin.lower().rstrip("/")
        if "*" in self._origins or origin in self._origins:
            return True
        try:
            page, here = urlsplit(origin), urlsplit(f"//{host.lower()}")
            default = _DEFAULT_PORTS[page.scheme]
            return page.hostname == here.hostname and (page.port or default) == (here.port or default)
        except (KeyError, ValueError):
            # "null", extensions of browsers, and nonsense.
            return False


def _without_port(hop: str) -> str:
    """Some proxies write the port as well, which would make as many addresses of one."""
    try:
        ip_address(hop)
    except ValueError:
        try:
            return urlsplit(f"//{hop}").hostname or hop
        except ValueError:
            return hop
    return hop


async def _forbid(scope: Scope, receive: Receive, send: Send, code: ErrorCode, reason: str) -> None:
    """Answer 403, to a WebSocket handshake too: it is a browser that was led astray, and shows nothing."""
    await _respond(scope, receive, send, HTTPStatus.FORBIDDEN, code, reason)


async def _send_away(scope: Scope, receive: Receive, send: Send, limit: Limit) -> None:
    if limit is Limit.CONNECTIONS:
        status, close_code = HTTPStatus.SERVICE_UNAVAILABLE, CloseCode.TRY_AGAIN_LATER
        reason = "the server has as many connections as it may have"
    else:
        status, close_code = HTTPStatus.TOO_MANY_REQUESTS, CloseCode.TOO_MANY_REQUESTS
        reason = "too many connections from your address"
    if scope["type"] == "http":
        headers = {"Retry-After": str(_RETRY_AFTER), "Connection": "close"}
        await _respond(scope, receive, send, status, ErrorCode.TOO_MANY_CONNECTIONS, reason, headers)
        return
    # A browser cannot read the answer to a refused handshake.
    await receive()
    subprotocol = SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None
    await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
    message = error_message(ErrorCode.TOO_MANY_CONNECTIONS, reason, fatal=True, retry_after=_RETRY_AFTER)
    text = serialize(message)
    await send({"type": "websocket.send", "text": text})
    await send({"type": "websocket.close", "code": close_code, "reason": reason})


async def _respond(
    scope: Scope,
    receive: Receive,
    send: Send,
    status: HTTPStatus,
    code: ErrorCode,
    message: str,
    headers: dict[str, str] | None = None,
) -> None:
    response = JSONResponse({"code": code, "message": message}, status, headers)
    await response(scope, receive, send)
