"""Server of the API: the signaling server of `flyx serve` inside a program."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from flyx.api.parameters import AnyPath, path_of, token_of
from flyx.errors import InputError
from flyx.server.app import Server as SignalingServer
from flyx.server.config import DEFAULT_STUN_URL, ServerConfig


class Server:
    """A signaling server that runs in the current event loop while its `async with` block does.

    Its limits are those of `flyx serve`.
    """

    def __init__(
        self,
        host: str | None = "127.0.0.1",
        port: int = 0,
        *,
        state: AnyPath | None = None,
        api_token: str | None = None,
        stun: str | Iterable[str] = DEFAULT_STUN_URL,
    ) -> None:
        """Args:
            host: address or name to listen on; None: all addresses of this computer.
            port: 0 is any free one.
            state: file that keeps rooms for the next start; None: they are kept in memory.
            api_token: without it nobody makes rooms; None: anybody may.
            stun: URLs of STUN servers to hand to clients, one or several; empty: none.

        Raises:
            InputError: a parameter cannot be used.
        """
        if not 0 <= port <= 65535:
            raise InputError(reason=f"port is {port}, and not 0 to 65535")
        self._config = ServerConfig(
            host=host,
            port=port,
            stun_urls=_stun_urls(stun),
            state=None if state is None else path_of("state", state),
            api_token=token_of("api_token", api_token),
        )
        # Set while the block runs.
        self._server: SignalingServer | None = None

    @property
    def url(self) -> str:
        """What clients on this computer give as `server`, such as ws://127.0.0.1:8000; the server runs.

        Raises:
            RuntimeError: it does not.
        """
        return self._running.url

    @property
    def port(self) -> int:
        """Where it listens; the server runs.

        Raises:
            RuntimeError: it does not.
        """
        return self._running.port

    @property
    def _running(self) -> SignalingServer:
        if self._server is None:
            raise RuntimeError("the server runs only inside its `async with` block")
        return self._server

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            InputError: the host, the port or the state file cannot be used.
        """
        if self._server is not None:
            raise RuntimeError("the server runs already")
        server = SignalingServer(self._config)
        await server.start()
        self._server = server
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell every client, and close every connection; up to a few seconds."""
        server, self._server = self._running, None
        await server.stop()


def _stun_urls(stun: str | Iterable[str]) -> tuple[str, ...]:
    urls = (stun,) if isinstance(stun, str) else tuple(stun)
    for url in urls:
        if not url.startswith(("stun:", "stuns:")):
            raise InputError(reason=f"stun: {url} is not a STUN URL, such as {DEFAULT_STUN_URL}")
    return urls
