"""What a process that runs an event loop for long sets for itself: memory, and files that may be open."""

from __future__ import annotations

import ctypes
import gc
import os
from contextlib import ExitStack, suppress

_GC_THRESHOLDS = 10_000, 10, 10
"""Of gc.set_threshold(); those of Python are 700, 10, 10."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of mallopt(3), in glibc's malloc.h."""

_KEPT = 32 << 20
"""Bytes of freed memory that stay with the process: more than a transfer has under way."""

_FIRST_FILES = 16
"""What an event loop begins with is 9 files, with what is loaded meanwhile. No transfer is made with 20."""


def tune_gc() -> None:
    """Have the garbage collector stop the event loop less often; for a process that does nothing but run one.

    Each client of a server is many objects that live long, and so is a manifest, and each full collection
    looks at all of them: by default the collector takes a tenth of the CPU while 4,000 clients come, in
    pauses of up to 0.2 s. Little of what we drop is in cycles, so looking a fourteenth as often costs some
    memory for a while. What the program itself consists of is never looked at.
    """
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    gc.enable()


def tune_malloc() -> None:
    """Have the C library keep freed memory for what is allocated next; for a process that moves bulk data.

    By default it gives each block and each message back to the kernel, hundreds of times a second, and every
    4 KiB of the next one cost a page fault: 6 % of a transfer's CPU. Does nothing where it is not glibc.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
        mallopt(_M_MMAP_THRESHOLD, _KEPT)


def raise_file_limit(enough: int | None = None) -> None:
    """Let this process have more files and sockets open, if it may have few.

    Args:
        enough: how many it needs; None: as many as the system allows.
    """
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = hard if enough is None else enough if hard == unlimited else min(enough, hard)
    if soft == unlimited or (wanted != unlimited and soft >= wanted):
        return
    # Where "as many as it likes" is more than it can have, what there was stays.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def require_files() -> None:
    """Fail at once where an event loop could not have the few files and sockets that it begins with.

    libuv aborts the process if it gets none for its signals, and a loop of uvloop that gets none a moment
    later can be neither run nor closed.

    Raises:
        OSError: this process may not have that many more open.
    """
    with ExitStack() as opened:
        for _ in range(_FIRST_FILES):
            opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))
