"""One flow from one host to another for a given time, and what arrived when. For wan.py.

    python -m e2e.bench.flow STACK SECONDS COMMAND...

connects to a receiver that COMMAND starts (such as `ip netns exec right python -m e2e.bench.flow STACK`),
says "ready", and, told to go by a line of standard input, sends for so long. Then it prints the receiver's
timeline as JSON. STACK is one of stacks.py's, or tcp-cubic or tcp-bbr: plain TCP with that congestion
control.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from typing import Any

from e2e.bench.stacks import BUFFERED_HIGH, BUFFERED_LOW, End, make_end
from flyx.net.loop import new_event_loop

MESSAGE_SIZE = 16 * 1024
RECEIVER = "10.77.0.2"
"""The address of the host `right`, where TCP is to connect."""

BUCKET = 0.05
"""Seconds that one entry of a timeline stands for."""


class TcpEnd(End, asyncio.Protocol):
    """Plain TCP behind the interface of a channel; text ends it."""

    def __init__(self, congestion: str) -> None:
        super().__init__()
        self._congestion = congestion.encode()
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, self._congestion)
        transport.set_write_buffer_limits(BUFFERED_HIGH, BUFFERED_LOW)
        self._transport = transport
        self.opened.set()

    def data_received(self, data: bytes) -> None:
        self.message(data)

    def eof_received(self) -> None:
        self.complete.set()

    def resume_writing(self) -> None:
        self.writable.set()

    async def offer(self) -> str:
        return ""

    async def answer(self, sdp: str) -> str:
        server = await asyncio.get_running_loop().create_server(lambda: self, "0.0.0.0", 0)
        return str(server.sockets[0].getsockname()[1])

    async def accept(self, sdp: str) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, RECEIVER, int(sdp))

    def send(self, data: bytes | str) -> None:
        if isinstance(data, str):
            self._transport.write_eof()
        else:
            self._transport.write(data)

    def buffered(self) -> int:
        return int(self._transport.get_write_buffer_size())

    async def close(self) -> None:
        self._transport.close()


def make(stack: str) -> End:
    """Make an end; see the module."""
    return TcpEnd(stack.removeprefix("tcp-")) if stack.startswith("tcp-") else make_end(stack)


async def send(stack: str, seconds: float, command: list[str]) -> None:
    """Be the sending end."""
    receiver = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 24
    )
    assert receiver.stdin is not None
    assert receiver.stdout is not None
    end = make(stack)
    receiver.stdin.write(json.dumps(await end.offer()).encode() + b"\n")
    await end.accept(json.loads(await receiver.stdout.readline()))
    await end.opened.wait()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    started = time.monotonic()
    message = os.urandom(MESSAGE_SIZE)
    while time.monotonic() < started + seconds:
        end.writable.clear()
        while end.buffered() < BUFFERED_HIGH:
            end.send(message)
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + BUCKET):
                await end.writable.wait()
        except TimeoutError:
            pass
    end.send("end")
    sys.stdout.write((await receiver.stdout.readline()).decode())
    sys.stdout.flush()
    receiver.kill()
    await receiver.wait()


class Timeline:
    """Bytes by the time of their arrival."""

    def __init__(self) -> None:
        self.started = 0.0
        self.buckets: list[int] = []

    def count(self, size: int) -> None:
        """So many bytes have arrived."""
        now = time.monotonic()
        self.started = self.started or now
        index = int((now - self.started) / BUCKET)
        self.buckets += [0] * (index + 1 - len(self.buckets))
        self.buckets[index] += size


async def receive(stack: str) -> None:
    """Be the receiving end; print the timeline when the sender has ended, or the connection."""
    end = make(stack)
    timeline = Timeline()
    end.on_bytes = timeline.count
    offer = json.loads(await asyncio.to_thread(sys.stdin.readline))
    print(json.dumps(await end.answer(offer)), flush=True)
    ends = [asyncio.create_task(event.wait()) for event in (end.complete, end.closed)]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if not end.complete.is_set():
        print("the connection was lost", file=sys.stderr)
    print(json.dumps({"started": timeline.started, "buckets": timeline.buckets}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        if len(sys.argv) == 2:
            runner.run(receive(sys.argv[1]))
        else:
            runner.run(send(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
