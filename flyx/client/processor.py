"""How long the thread that asks has computed, or could have if a processor had been free for it.

A computer that is busy with other things slows a transfer as much as one that is too slow: time in the queue
for a processor counts. Linux reports it; elsewhere only the time of computing is known.
"""

from __future__ import annotations

import time
from pathlib import Path

_SCHEDULE = Path("/proc/thread-self/schedstat")
"""proc(5): nanoseconds on a processor, nanoseconds waiting for one, and how often."""


def busy_seconds() -> float:
    """Return seconds since the thread began; the difference of two calls is what matters."""
    try:
        computed, waited, _ = _SCHEDULE.read_text().split()
        return (int(computed) + int(waited)) / 1e9
    except (OSError, ValueError):
        return time.thread_time()
