#!/usr/bin/env bash
# aiortc 1.16.0, seen on 2026-11-29 with Python 3.11.
#
# RTCPeerConnection.close() can be called more than once, and aiortc calls it by itself when the other side
# goes away. All callers after the first wait for one future. A guess that seems safe: a call that is given up
# (asyncio.wait_for with a timeout, a cancelled task) concerns that caller alone. In fact the cancellation
# reaches the shared future, and the first close(), which did all the work, then fails with
# InvalidStateError as it sets the result. Users see "Task exception was never retrieved" from a task
# they never made, or a close() of their own that raises although everything was closed.
# What helps: await asyncio.shield(pc.close()).
#
# Seen:
#   second caller: CancelledError
#   first caller: InvalidStateError
#   connection: closed
#   with shield, first caller: no error
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q 'aiortc==1.16.0' 'aioice==0.13.0'
cat > "$folder/close.py" <<'PY'
import asyncio

from aiortc import RTCPeerConnection


async def outcome(task: asyncio.Future) -> str:
    try:
        await task
    except BaseException as error:
        return type(error).__name__
    return "no error"


async def close_twice(shielded: bool) -> tuple[str, str, str]:
    """Begin to close, call close() again, and give the second call up at once."""
    pc = RTCPeerConnection()
    pc.createDataChannel("data")
    await pc.setLocalDescription(await pc.createOffer())
    first = asyncio.ensure_future(pc.close())
    # Until the first call has made its future and waits for its transports.
    while pc.signalingState != "closed":
        await asyncio.sleep(0)
    waiting = asyncio.shield(pc.close()) if shielded else pc.close()

    async def wait() -> None:
        await waiting

    second = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    if shielded:
        await asyncio.sleep(0)
    second.cancel()
    told = await outcome(second)
    return told, await outcome(first), pc.connectionState


second, first, state = asyncio.run(close_twice(False))
print("second caller:", second)
print("first caller:", first)
print("connection:", state)
_, shielded, _ = asyncio.run(close_twice(True))
print("with shield, first caller:", shielded)
raise SystemExit((second, first, state, shielded) != ("CancelledError", "InvalidStateError", "closed", "no error"))
PY
"$folder/venv/bin/python" "$folder/close.py"
