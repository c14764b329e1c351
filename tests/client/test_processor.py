"""How busy a thread is."""

from __future__ import annotations

import threading
import time

from flyx.client.processor import busy_seconds


def test_computing_counts_and_waiting_for_something_does_not() -> None:
    begun, busy = time.monotonic(), busy_seconds()
    while time.thread_time() < 0.05 or time.monotonic() - begun < 0.05:
        pass
    computed = busy_seconds() - busy
    assert computed >= 0.02
    busy = busy_seconds()
    threading.Event().wait(0.1)
    assert busy_seconds() - busy < 0.1
