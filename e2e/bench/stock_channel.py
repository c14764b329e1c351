"""The peer to beat: one stock aiortc data channel between two processes, memory to memory.

Run as a script it is the sending process; it starts the receiving one and prints a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import uvloop
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

MESSAGE_SIZE = 65536
BUFFERED_HIGH = 4 << 20
BUFFERED_LOW = 1 << 20


def _describe(description: RTCSessionDescription) -> bytes:
    return json.dumps({"sdp": description.sdp, "type": description.type}).encode() + b"\n"


async def receive(size: int) -> None:
    """Answer the offer on standard input, take size bytes, and say so."""
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    closed = asyncio.Event()
    received = 0

    @connection.on("datachannel")
    def on_datachannel(channel):
        @channel.on("message")
        def on_message(message):
            nonlocal received
            received += len(message)
            if received >= size:
                channel.send("all here")

        channel.on("close", closed.set)

    offer = json.loads(await asyncio.to_thread(sys.stdin.readline))
    await connection.setRemoteDescription(RTCSessionDescription(**offer))
    await connection.setLocalDescription(await connection.createAnswer())
    sys.stdout.buffer.write(_describe(connection.localDescription))
    sys.stdout.flush()
    await closed.wait()
    await connection.close()


async def send(size: int) -> float:
    """Send size bytes to a receiving process; return the seconds from the open channel to its word."""
    receiver = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __spec__.name, "receive", str(size)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert receiver.stdin is not None
    assert receiver.stdout is not None
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    channel = connection.createDataChannel("data")
    channel.bufferedAmountLowThreshold = BUFFERED_LOW
    opened, writable, confirmed = asyncio.Event(), asyncio.Event(), asyncio.Event()
    channel.on("open", opened.set)
    channel.on("bufferedamountlow", writable.set)
    channel.on("message", lambda _: confirmed.set())
    await connection.setLocalDescription(await connection.createOffer())
    receiver.stdin.write(_describe(connection.localDescription))
    answer = json.loads(await receiver.stdout.readline())
    await connection.setRemoteDescription(RTCSessionDescription(**answer))
    await opened.wait()
    message = os.urandom(MESSAGE_SIZE)
    started = time.perf_counter()
    sent = 0
    while sent < size:
        channel.send(message[: size - sent])
        sent += MESSAGE_SIZE
        if channel.bufferedAmount > BUFFERED_HIGH:
            writable.clear()
            await writable.wait()
    await confirmed.wait()
    seconds = time.perf_counter() - started
    await connection.close()
    await receiver.wait()
    return seconds


if __name__ == "__main__":
    role, wanted = sys.argv[1], int(sys.argv[2])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if role == "receive":
            runner.run(receive(wanted))
        else:
            print(json.dumps({"seconds": runner.run(send(wanted))}))
