"""flyx in processes of its own, and the events that they print: for `flyx demo` and `flyx bench`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from flyx.errors import FlyxError


@asynccontextmanager
async def flyx_process(*arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run flyx in a process of its own, with these variables besides, which ends with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "flyx",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def await_event(process: asyncio.subprocess.Process, name: str | None) -> dict[str, Any]:
    """Read events until the one of that name; None: to the end.

    Raises:
        FlyxError: it ended, or told of an error, before.
    """
    assert process.stdout is not None
    async for line in process.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == name:
            return event
        if event["event"] == "error":
            raise FlyxError(reason=event["message"], hint=event["hint"])
    if name is None:
        return {}
    raise FlyxError(reason=f"a process ended before it told of `{name}`")
