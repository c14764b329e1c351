#!/usr/bin/env bash
# uvloop 0.23.0, seen on 2026-11-30 with Python 3.11 on Linux.
#
# loop.call_later(delay, ...) and asyncio.sleep(delay) of the event loop of Python never end before the delay
# is over: at worst they end a millisecond late. A guess that seems safe: uvloop, which takes its place, keeps
# that. In fact it rounds each delay to whole milliseconds, and so a call may come up to half a millisecond
# too early; one of less than half a millisecond comes at once. Code that paces (a sender, an audio source)
# sleeps until a time, looks at the clock, finds that it is not there yet, sleeps for the little that is left
# - and runs round and round at full speed until the time has come: a processor is busy with waiting.
# What helps: never ask for less than a millisecond, and take a call that is early for what it is.
#
# Seen (200 calls for each delay; wakeups: of a task that sleeps until 0.4 ms from now are over):
#   asyncio 0.2 ms: 0 early; 1.4 ms: 0 early; wakeups 1
#   uvloop 0.2 ms: 199 early; 1.4 ms: 176 early; wakeups over 20
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q 'uvloop==0.23.0'
cat > "$folder/early.py" <<'PY'
import asyncio
import statistics
import sys
import time

import uvloop

CALLS = 200


async def early(delay: float) -> int:
    """How many calls of so many come before their time."""
    loop, count = asyncio.get_running_loop(), 0
    for _ in range(CALLS):
        called = loop.create_future()
        started = time.perf_counter()
        loop.call_later(delay, called.set_result, None)
        await called
        count += time.perf_counter() - started < delay
    return count


async def wakeups(delay: float) -> int:
    """How often a task wakes up that sleeps until a time."""
    until, count = time.perf_counter() + delay, 0
    while (left := until - time.perf_counter()) > 0:
        await asyncio.sleep(left)
        count += 1
    return count


async def look() -> tuple[int, int, float]:
    woken = [await wakeups(0.0004) for _ in range(CALLS)]
    return await early(0.0002), await early(0.0014), statistics.median(woken)


short, long, woken = asyncio.run(look())
print(f"asyncio 0.2 ms: {short} early; 1.4 ms: {long} early; wakeups {woken:.0f}")
with_uvloop = uvloop.run(look())
short_too, long_too, woken_too = with_uvloop
over = "over 20" if woken_too > 20 else f"{woken_too:.0f}"
print(f"uvloop 0.2 ms: {short_too} early; 1.4 ms: {long_too} early; wakeups {over}")
same = not short and not long and woken == 1 and short_too > 0.9 * CALLS and long_too > CALLS / 2 and woken_too > 20
sys.exit(0 if same else "uvloop or asyncio behaves otherwise now")
PY
"$folder/venv/bin/python" "$folder/early.py"
