"""TLS to servers: whose certificates are believed, and why one is not.

The system's authorities are; SSL_CERT_FILE and SSL_CERT_DIR take their place, as everywhere with OpenSSL; and
trust() adds to them, for all connections of this process.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from flyx.errors import InputError

# Files of certificates that trust() has been given.
_added: list[Path] = []

# Of X509_verify_cert_error_string(3): the chain leads to nobody whom we know.
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21, 24})
_NOT_NOW = frozenset({9, 10})
_OTHER_NAME = frozenset({62, 63, 64})


def trust(authorities: Path) -> None:
    """Believe the certificates in this file, and those that they have signed, from now on.

    Raises:
        InputError: it holds none.
    """
    try:
        ssl.create_default_context().load_verify_locations(authorities)
    except ssl.SSLError as error:
        hint = "it wants certificates as PEM has them: -----BEGIN CERTIFICATE-----"
        raise InputError(reason=f"there is no certificate in {authorities}", hint=hint) from error
    except OSError as error:
        raise InputError(reason=f"cannot read certificates from {authorities}: {error.strerror}") from error
    _added.append(authorities)


def client_context() -> ssl.SSLContext:
    """Return how the certificates of servers are verified."""
    context = ssl.create_default_context()
    for path in _added:
        context.load_verify_locations(path)
    return context


def why_not_trusted(error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    """Return what is wrong with a certificate, as a clause without its subject, and what can be done."""
    reason = f"is not trusted ({error.verify_message.rstrip('.')})"
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return f"is not trusted: its authority is not known here ({error.verify_message})", _add_authority()
    if error.verify_code in _OTHER_NAME:
        return reason, "name the server as its certificate does"
    if error.verify_code in _NOT_NOW:
        return reason, "check the date of this computer, and have the server renew its certificate"
    return reason, "have the server show another certificate"


def _add_authority() -> str:
    hint = "give the certificate of that authority with --tls-ca FILE, or in SSL_CERT_FILE"
    named = os.environ.get("SSL_CERT_FILE")
    if named and not os.access(named, os.R_OK):
        # OpenSSL passes over it in silence.
        return f"{hint}, which names {named}: that cannot be read"
    return hint
