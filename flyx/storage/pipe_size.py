"""How much a pipe holds."""

from __future__ import annotations

import fcntl
from contextlib import suppress

_PIPE_SIZE = 1 << 20
"""Bytes that a pipe should hold: what a user may ask for on Linux."""


def enlarge_pipe(descriptor: int) -> None:
    """Let a pipe hold more, so that what is large passes in fewer pieces.

    What is no pipe, or may not be larger, stays as it is.
    """
    with suppress(OSError, AttributeError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
