"""A bare client of the signaling protocol, for tests that look at single messages."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

PATIENCE = 60.0
"""Seconds for anything that is awaited, on a slow and busy machine."""


class Client:
    """Somebody in a room, by way of one server after the other.

    Attributes:
        joined: Data of the last `joined`.
        received: Messages about peers since the last one that was not recovered.
    """

    def __init__(self) -> None:
        self.joined: dict[str, Any] = {}
        self.received = 0
        self._socket: ClientConnection | None = None

    @property
    def socket(self) -> ClientConnection:
        assert self._socket is not None
        return self._socket

    @property
    def id(self) -> str:
        return str(self.joined["client_id"])

    @property
    def room(self) -> str:
        return str(self.joined["room_id"])

    async def enter(self, url: str, room: str | None = None) -> Self:
        """Enter a room, or make one."""
        self._socket = await connect(f"{url}/ws/{room}" if room else f"{url}/ws", ping_interval=None)
        self.joined = await self.expect("joined")
        return self

    async def knock(self, url: str, room: str) -> int | None:
        """Try to enter a room that does not let us in; the code with which the connection is closed."""
        self._socket = await connect(f"{url}/ws/{room}", ping_interval=None)
        return await self.close_code()

    async def resume(self, url: str) -> bool:
        """Come back by way of this server; tell whether nothing was lost."""
        await self.drop()
        self._socket = await connect(f"{url}/ws/{self.room}?resume=1", ping_interval=None)
        claim = {"client_id": self.id, "resume_token": self.joined["resume_token"], "received": self.received}
        await self.say("join", **claim)
        self.joined = await self.expect("joined")
        if not self.joined["recovered"]:
            self.received = 0
        return bool(self.joined["recovered"])

    async def say(self, kind: str, **data: Any) -> None:
        """Send a message."""
        await self.socket.send(json.dumps({"type": kind, "data": data}))

    async def hear(self) -> dict[str, Any]:
        """The next message."""
        async with asyncio.timeout(PATIENCE):
            message: dict[str, Any] = json.loads(await self.socket.recv())
        self.received += message["type"] in ("join", "offer", "answer", "ice_candidate", "disconnect")
        return message

    async def expect(self, kind: str) -> dict[str, Any]:
        """Data of the next message, which must be of this type."""
        message = await self.hear()
        assert message["type"] == kind, message
        return dict(message["data"])

    async def close_code(self) -> int | None:
        """The code with which the server closes the connection, whatever it says before."""
        try:
            while True:
                await self.hear()
        except ConnectionClosed:
            return self.socket.close_code

    async def drop(self) -> None:
        """Let the connection go without a goodbye."""
        if self._socket is not None:
            self._socket.transport.abort()
            await self._socket.wait_closed()
            self._socket = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drop()


async def talk(sender: Client, receiver: Client, word: str) -> None:
    """Pass an offer one way and its answer the other."""
    await sender.say("offer", sdp=word, target_id=receiver.id)
    assert (await receiver.expect("offer"))["sdp"] == word
    await receiver.say("answer", sdp=word)
    assert (await sender.expect("answer"))["sdp"] == word
