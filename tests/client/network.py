"""A bad network in front of a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from flyx.signaling.messages import Message, serialize
from tests.server.peers import until


class Network:
    """A TCP relay in front of a server, which can be cut, swallow what is under way, or lead elsewhere."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.url = ""
        self.listener: asyncio.Server
        # Bytes towards the client are read and lost, but for the answers to handshakes.
        self.deaf = False
        # So are bytes towards the server.
        self.mute = False
        # How many.
        self.swallowed = 0
        # Connections that ended with a reset.
        self.resets = 0
        # New connections are refused.
        self.down = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.down:
            writer.transport.abort()
            return
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, inner_writer}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, inner_writer, "mute"))
                group.create_task(self._pump(inner_reader, writer, "deaf"))
        finally:
            self._writers -= both
            for end in both:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, switch: str) -> None:
        try:
            while data := await reader.read(65536):
                if getattr(self, switch) and not data.startswith(b"HTTP/"):
                    self.swallowed += len(data)
                else:
                    writer.write(data)
            writer.close()
        except OSError:
            self.resets += 1
            writer.transport.abort()

    async def has_swallowed(self, *messages: Message) -> None:
        """Wait until all these are gone."""
        size = sum(len(serialize(message)) for message in messages)
        await until(lambda: self.swallowed >= size)

    def close(self) -> None:
        """End all connections, and take no more."""
        self.listener.close()
        self.cut()

    def cut(self) -> None:
        """End all connections at once."""
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def network(port: int) -> AsyncIterator[Network]:
    net = Network(port)
    net.listener = await asyncio.start_server(net.serve, "127.0.0.1", 0)
    net.url = f"ws://127.0.0.1:{net.listener.sockets[0].getsockname()[1]}"
    try:
        yield net
    finally:
        net.close()
        await net.listener.wait_closed()
