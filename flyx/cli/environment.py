"""The environment of this process, without the variables that other programs set under our names.

Empty variables count as unset ones, as they do for options.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from flyx.errors import InputError

_OF_A_SERVICE = re.compile(r"(tcp|udp|sctp)://", re.ASCII)
"""What Kubernetes, and Docker before it, sets in every container for a service that is called flyx,
flyx-turn or flyx-metrics: FLYX_PORT=tcp://10.0.0.1:8000. That is where the service is, not where we are to
listen."""

_OF_OPENSSL = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Read by OpenSSL, to which an empty name is that of a file which is not there."""


def tidy() -> None:
    """Remove the variables that are not meant for us."""
    for name, value in list(os.environ.items()):
        of_a_service = name.startswith("FLYX_") and name.endswith("_PORT") and _OF_A_SERVICE.match(value)
        if of_a_service or (name in _OF_OPENSSL and not value):
            del os.environ[name]


def at_home(path: Path) -> Path:
    """Return a path with ~ and ~NAME as shells have them, for places that no shell reads.

    Raises:
        InputError: there is no such user, or no home.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        hint = "write the directory out"
        raise InputError(reason=f"nobody knows which directory {path.parts[0]} is", hint=hint) from error
