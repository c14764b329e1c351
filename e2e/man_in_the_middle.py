"""A signaling server that lies: it is in between every sender and receiver, with connections of its own.

To its clients it is a signaling server; behind it stands an honest one. What they say of rooms passes;
offers, answers and candidates do not. Instead it makes an offer of its own to the receiver, and answers the
sender itself: two encrypted connections, with all that the two say in its hands. What pairing begins with,
which is in the descriptions, it may pass on in its own.
"""

from __future__ import annotations

import asyncio
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from flyx.net.loop import new_event_loop
from flyx.rtc.channel import Channel, Channels
from flyx.rtc.peer import PeerConnection
from flyx.transfer.messages import CONTROL_CHANNEL, DATA_CHANNEL

LABELS = (CONTROL_CHANNEL, DATA_CHANNEL)


class Attack(ABC):
    """What the man in the middle does once he is connected to both."""

    @abstractmethod
    async def run(self, room_id: str, to_sender: End, to_receiver: End) -> None:
        """Do it. The connections are closed when it returns."""


class End:
    """One of his two connections, and what came over it."""

    def __init__(self, connection: PeerConnection) -> None:
        self.connection = connection
        # Set by connected().
        self.channels: Channels
        self.heard: list[bytes | str] = []
        # Set when what is passed on has come to its end.
        self.closed = asyncio.Event()

    async def connected(self) -> None:
        """Wait for the channels."""
        self.channels = await self.connection.connected()

    def pass_on(self, to: End, alter: Callable[[bytes | str], bytes | str | None]) -> None:
        """Have the other connection say what comes from this one; None drops it."""
        for ours, theirs in (
            (self.channels.control, to.channels.control),
            (self.channels.data, to.channels.data),
        ):
            ours.listen(_Relay(self, theirs, alter))


class _Relay:
    def __init__(self, end: End, to: Channel, alter: Callable[[bytes | str], bytes | str | None]) -> None:
        self._end = end
        self._to = to
        self._alter = alter

    def message_received(self, message: bytes | str) -> None:
        self._end.heard.append(message)
        altered = self._alter(message)
        if altered is not None:
            self._to.send(altered)

    def channel_writable(self) -> None:
        pass

    def channel_closed(self) -> None:
        self._end.closed.set()


class ManInTheMiddle:
    """The lying server, in a thread of its own; a context manager."""

    def __init__(self, honest: str, attack: Attack, *, carries: bool = False) -> None:
        """Args:
        honest: URL of the honest server behind it.
        carries: the first messages of one description into the other.
        """
        self._honest = honest
        self._attack = attack
        self._carries = carries
        # By the receiver's client id.
        self._answers: dict[str, asyncio.Future[str]] = {}
        self._clients: dict[str, ServerConnection] = {}
        self._room_id = ""
        self._sender_id = ""
        # By the receiver's client id.
        self._ends: dict[str, tuple[End, End]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # All that clients said to it.
        self.seen: list[str] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        # Set in the thread.
        self.url = ""
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        # Whatever went wrong with the attack itself.
        self.errors: list[BaseException] = []

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self.errors, self.errors

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server: Server
        async with serve(
            self._client, "127.0.0.1", 0, subprotocols=[Subprotocol("flyx.v1")], close_timeout=1
        ) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            self.url = f"ws://127.0.0.1:{port}"
            self._ready.set()
            await self._stop.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for ends in self._ends.values():
                for end in ends:
                    await end.connection.close()

    async def _client(self, client: ServerConnection) -> None:
        assert client.request is not None
        url = self._honest + client.request.path
        async with connect(url, subprotocols=[Subprotocol("flyx.v1")], close_timeout=1) as server:
            ways = (self._from_client(client, server), self._from_server(client, server))
            tasks = [asyncio.create_task(way) for way in ways]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            code = server.close_code or 1000
        await client.close(code if code >= 4000 else 1000)

    async def _from_server(self, client: ServerConnection, server: ClientConnection) -> None:
        async for text in server:
            message = json.loads(text)
            if message["type"] == "joined":
                self._clients[message["data"]["client_id"]] = client
                if message["data"]["role"] == "sender":
                    self._sender_id = message["data"]["client_id"]
                    self._room_id = message["data"]["room_id"]
            await client.send(text)

    async def _from_client(self, client: ServerConnection, server: ClientConnection) -> None:
        async for text in client:
            self.seen.append(str(text))
            message = json.loads(text)
            match message["type"]:
                case "offer":
                    self._spawn(self._intercept(message["data"]["target_id"], message["data"]["sdp"]))
                case "answer":
                    me = next(name for name, other in self._clients.items() if other is client)
                    self._answers[me].set_result(message["data"]["sdp"])
                case "ice_candidate":
                    # The descriptions already have those of this machine.
                    pass
                case _:
                    await server.send(text)

    async def _intercept(self, receiver_id: str, offer: str) -> None:
        ends = tuple(End(PeerConnection(LABELS, [], lambda _: None)) for _ in range(2))
        to_sender, to_receiver = ends
        self._ends[receiver_id] = to_sender, to_receiver
        answered = self._answers[receiver_id] = asyncio.get_running_loop().create_future()
        ours = await to_receiver.connection.offer() + self._first_of(offer)
        await self._tell(receiver_id, "offer", client_id=self._sender_id, sdp=ours)
        theirs = await answered
        await to_receiver.connection.accept_answer(theirs)
        answer = await to_sender.connection.answer(offer) + self._first_of(theirs)
        await self._tell(self._sender_id, "answer", client_id=receiver_id, sdp=answer)
        for end in ends:
            await end.connected()
        try:
            await self._attack.run(self._room_id, to_sender, to_receiver)
        finally:
            for end in ends:
                await end.connection.close()

    def _first_of(self, sdp: str) -> str:
        lines = sdp.splitlines(keepends=True) if self._carries else []
        return "".join(line for line in lines if line.startswith("a=flyx-control:"))

    async def _tell(self, target: str, kind: str, **data: Any) -> None:
        await self._clients[target].send(json.dumps({"type": kind, "data": data}))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await work
            except (asyncio.CancelledError, ConnectionClosed):
                pass
            except BaseException as error:
                self.errors.append(error)

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
