"""The certificate that the server shows, read again when it was renewed."""

from __future__ import annotations

import ssl
from pathlib import Path

from flyx.errors import InputError


class Certificate:
    """A certificate chain and its key in PEM files.

    Attributes:
        context: For the next handshake. Connections keep the one that they began with.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """Args:
        certificate: The chain, the server's own first.
        key: Its private key, without a passphrase.

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
        for path in (self._certificate, self._key):
            try:
                path.read_bytes()
            except OSError as exc:
                raise InputError(reason=f"cannot read {path}: {exc.strerror}") from exc
        try:
            # Without a password of ours OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self._certificate, self._key, password=lambda: b"")
        except (ssl.SSLError, ValueError) as exc:
            hint = "both are PEM files, the key is the certificate's own and has no passphrase"
            reason = f"{self._certificate} and {self._key} are not a certificate and its key"
            raise InputError(reason=reason, hint=hint) from exc
        return context
