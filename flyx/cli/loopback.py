"""What `flyx bench` measures between two processes of this computer, with a server in this one."""

from __future__ import annotations

import asyncio
import os

from msgspec.structs import replace

from flyx.cli.subprocesses import await_event, flyx_process
from flyx.client import events
from flyx.client.bench.measured import Measured, Part
from flyx.client.bench.noise import Amount
from flyx.client.bench.one_way import Tell
from flyx.client.bench.peer import Meeting, host
from flyx.client.codes import make_code
from flyx.errors import FlyxError
from flyx.rtc.sctp_transport import STOCK_VARIABLE
from flyx.server.app import Server
from flyx.server.config import ServerConfig

_LITTLE = "1KB"
"""What the other process sends: its own direction does not count."""


async def bench_transfer(part: Part, amount: Amount, tell: Tell) -> Measured:
    """Send noise from this process to another one, memory to memory.

    Args:
        part: Part.TRANSFER, or TRANSFER_1200, whose packets are no larger than every path takes.
        amount: of noise.
        tell: told how it goes.

    Raises:
        FlyxError: it did not work.
    """
    config = ServerConfig(host="127.0.0.1", port=0, stun_urls=(), test_room=False)
    async with Server(config) as server:
        opened: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def hear(event: events.Event) -> None:
            if isinstance(event, events.RoomOpened):
                opened.set_result(event.code)
            elif isinstance(event, events.Progress):
                tell(event)

        meeting = Meeting(server.url, amount, probes=part is Part.TRANSFER)
        code = make_code(None, None, is_open=False)

        def end(hosting: asyncio.Task[list[Measured]]) -> None:
            if not opened.done() and not hosting.cancelled() and (error := hosting.exception()):
                opened.set_exception(error)

        hosting = asyncio.create_task(host(meeting, None, code, None, hear))
        hosting.add_done_callback(end)
        try:
            measured = await _visited(server.url, await opened, hosting)
        finally:
            hosting.cancel()
            await asyncio.gather(hosting, return_exceptions=True)
    (sent,) = (one for one in measured if one.part is Part.TO_PEER)
    return replace(sent, part=part)


async def _visited(server: str, code: str, hosting: asyncio.Task[list[Measured]]) -> list[Measured]:
    """Have another process visit; return what the host has measured with it."""
    # What the person has set is for this process, but for what data channels are made of.
    unset = {name: "" for name in os.environ if name.startswith("FLYX_") and name != STOCK_VARIABLE}
    variables = {**unset, "FLYX_CONFIG": os.devnull, "FLYX_BENCH_CODE": code}
    arguments = ("bench", "--server", server, "--size", _LITTLE, "--json")
    async with flyx_process(*arguments, **variables) as process:
        visiting = asyncio.create_task(await_event(process, "benched"))
        try:
            await asyncio.wait({hosting, visiting}, return_when=asyncio.FIRST_COMPLETED)
            if not hosting.done() and (error := visiting.exception()):
                raise error
            measured = await hosting
            await visiting
        finally:
            visiting.cancel()
            await asyncio.gather(visiting, return_exceptions=True)
        if await process.wait():
            raise FlyxError(reason=f"the other process ended with {process.returncode}")
        return measured
