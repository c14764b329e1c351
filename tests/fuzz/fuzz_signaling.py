"""What a server may say to a client, which believes none of it.

The input is connections in a row, each a list of messages made as grammar.py says, or any bytes, and then its
end with some close code. The client joins, hears, answers, tells which receivers have paired, and comes back;
it may end with a FlyxError alone.
"""

from __future__ import annotations

import asyncio
import json

from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from flyx.client.signaling import Interrupted, Restored, RetryPolicy, Signaling
from flyx.errors import FlyxError
from flyx.signaling import messages
from flyx.signaling.messages import Join, Role
from tests.fuzz.grammar import make_parts
from tests.fuzz.source import Source
from tests.fuzz.target import Target

ID = "00000000-0000-4000-8000-000000000000"
PEER_ID = "00000000-0000-4000-8000-000000000001"
CANDIDATE = {"candidate": "candidate:1 1 udp 1 192.0.2.7 1 typ host", "sdpMid": "0", "sdpMLineIndex": 0}
JOINED = {
    "room_id": "K7M2QX",
    "client_id": ID,
    "role": "sender",
    "resume_token": "t" * 43,
    "recovered": False,
    "expires_at": 2e9,
    "peers": [{"client_id": PEER_ID, "role": "receiver"}],
    "ice_servers": [{"urls": ["stun:192.0.2.1:3478"], "username": "a", "credential": "b"}],
    "ice_servers_ttl": 60.0,
    "limits": {"max_message_size": 65536, "max_clients": 16, "grace": 30.0},
    "received": 0,
    "wants_paired": True,
}
EXAMPLES = [
    {"type": "joined", "data": JOINED},
    {"type": "join", "data": {"client_id": PEER_ID, "role": "receiver"}},
    {"type": "offer", "data": {"client_id": PEER_ID, "sdp": "v=0"}},
    {"type": "answer", "data": {"client_id": PEER_ID, "sdp": "v=0"}},
    {"type": "ice_candidate", "data": {"client_id": PEER_ID, "candidate": CANDIDATE}},
    {"type": "disconnect", "data": {"client_id": PEER_ID, "reason": "gone"}},
    {"type": "paired", "data": {"target_id": PEER_ID}},
    {"type": "ice_servers", "data": {"ice_servers": JOINED["ice_servers"], "ice_servers_ttl": 60.0}},
    {"type": "error", "data": {"code": "room_full", "message": "no", "fatal": False}},
    {"type": "ping", "data": {}},
    {"type": "pong", "data": {}},
]
CLOSE_CODES = [1000, 1006, 1011, 1013, *map(int, messages.CloseCode), 4999]
MAX_CONNECTIONS = 4
MAX_MESSAGES = 64


class Socket:
    """A connection over which the input speaks."""

    local_address, remote_address = ("127.0.0.1", 4000), ("127.0.0.1", 8000)

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = source.integer(0, MAX_MESSAGES)
        self._honest = source.integer(0, 3)
        self.said = 0

    async def recv(self) -> str | bytes:
        source = self._source
        self._left -= 1
        if self._left < 0 or not source.left:
            code = source.pick(CLOSE_CODES)
            raise ConnectionClosedError(None if code == 1006 else Close(code, ""), None)
        if self._honest:
            self._honest = 0
            return json.dumps(EXAMPLES[0])
        return source.rest() if not source.integer(0, 31) else make_parts(source, EXAMPLES)

    async def send(self, text: str) -> None:
        assert messages.parse_untrusted(text)
        self.said += 1

    async def close(self, code: int = 1000) -> None:
        pass


class Client(Signaling):
    """A client whose connections are the input's."""

    def __init__(self, source: Source) -> None:
        super().__init__("ws://192.0.2.1", "K7M2QX", Role.SENDER, retry=RetryPolicy(0.0, 0.0))
        self._source = source
        self.sockets: list[Socket] = []

    async def _connect(self, path: str) -> Socket:  # type: ignore[override]  # all of a connection that is used
        if len(self.sockets) == MAX_CONNECTIONS:
            raise FlyxError(reason="the input is at its end")
        self.sockets.append(Socket(self._source))
        return self.sockets[-1]


async def speak(client: Client) -> None:
    async with client:
        while True:
            heard = await client.receive()
            if not isinstance(heard, Interrupted | Restored):
                client.post(heard)
            if isinstance(heard, Join):
                client.tell_paired(heard.data.client_id)


def one_input(data: bytes) -> None:
    """Have a client hear a server."""
    try:
        asyncio.run(speak(Client(Source(data))))
    except FlyxError:
        pass


TARGETS = {"signaling": Target(one_input, base=5_000, per_byte=300)}
