"""TLS: the certificate that the server shows, and the way from an accepted socket to the first request."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from flyx.errors import InputError
from flyx.server.admission import Admission
from flyx.server.limits import ConnectionSlot, Limit
from flyx.server.logs import get_logger
from flyx.server.transport.protocols import HttpProtocol

log = get_logger("flyx.server.transport.tls")

_ACCEPT_PAUSE = 1.0
"""Seconds to wait when no socket can be accepted, for want of open files."""


class Certificate:
    """A certificate chain and its key in PEM files.

    Attributes:
        context: for the next handshake. Connections keep the one that they began with.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """Args:
        certificate: the chain, the server's own first.
        key: its private key, without a passphrase.

        Raises:
            InputError: They cannot be used.
        """
        self._certificate = certificate
        self._key = key
        self.context = self._load()

    def reload(self) -> None:
        """Read the files again.

        Raises:
            InputError: They cannot be used; the certificate that there was stays.
        """
        self.context = self._load()

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        for option, path in (("--tls-cert", self._certificate), ("--tls-key", self._key)):
            try:
                path.read_bytes()
            except OSError as error:
                raise InputError(reason=f"cannot read {option} {path}: {error.strerror}") from error
        try:
            # Without a password of ours OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self._certificate, self._key, password=lambda: b"")
        except (ssl.SSLError, ValueError) as error:
            hint = "both are PEM files, the key is the certificate's own and has no passphrase"
            reason = f"{self._certificate} and {self._key} are not a certificate and its key"
            raise InputError(reason=reason, hint=hint) from error
        return context


class TlsServer:
    """Accepts connections from one listening socket and brings each through its handshake.

    asyncio's own TLS servers report a connection only after the handshake: a client that does not begin one
    would not be counted.
    """

    def __init__(
        self,
        listening: socket.socket,
        certificate: Certificate,
        admission: Admission,
        make_http: Callable[[], HttpProtocol],
        *,
        handshake_timeout: float,
    ) -> None:
        """Args:
        listening: bound and listening; closed by close().
        certificate: asked at each handshake.
        admission: counts the connections.
        make_http: makes the protocol that takes over.
        handshake_timeout: seconds.
        """
        listening.setblocking(False)
        self._listening = listening
        self._certificate = certificate
        self._admission = admission
        self._make_http = make_http
        self._handshake_timeout = handshake_timeout
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept())

    def close(self) -> None:
        """Accept no more; handshakes that are not over end here."""
        self._accepting.cancel()
        for handshake in self._handshakes:
            handshake.cancel()

    async def wait_closed(self) -> None:
        """Wait for what close() has begun."""
        await asyncio.gather(self._accepting, *self._handshakes, return_exceptions=True)
        self._listening.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(self._listening)
            except OSError as error:
                log.warning("cannot accept connections", reason=error.strerror)
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            slot = self._admission.admit(address[0])
            if slot is None:
                accepted.close()
                continue
            handshake = asyncio.create_task(self._shake_hands(accepted, slot))
            self._handshakes.add(handshake)
            handshake.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, accepted: socket.socket, slot: ConnectionSlot) -> None:
        http = self._make_http()
        http.slot = slot
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: http,
                accepted,
                ssl=self._certificate.context,
                ssl_handshake_timeout=self._handshake_timeout,
            )
        except asyncio.CancelledError:
            slot.release()
            raise
        except OSError as error:
            # The errors of ssl are among them, and the one that asyncio has for the end of its patience.
            if isinstance(error, ConnectionAbortedError):
                self._admission.rejected(Limit.HANDSHAKE)
            slot.release()
