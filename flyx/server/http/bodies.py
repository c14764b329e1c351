"""How much of a request's body is read."""

from __future__ import annotations

from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flyx.server.http.errors import ApiFailure
from flyx.signaling.messages import ErrorCode


class BodyLimit:
    """ASGI middleware: no request body grows past a limit, whatever its headers promise."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        """Args:
        app: what it protects.
        limit: bytes.
        """
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        size = 0

        async def receive_bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit:
                reason = f"the body has more than {self._limit} bytes"
                raise ApiFailure(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ErrorCode.MESSAGE_TOO_BIG, reason)
            return message

        await self._app(scope, receive_bounded, send)
