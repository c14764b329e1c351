"""A peer that speaks the protocol and lies: `python -m e2e.peers.hostile_peer ROLE LIE SERVER [CODE]`.

A sender prints the code as a line of JSON, then lies to whoever pairs with it; a receiver pairs with the code
first. Each prints what the other side answered in the end, as {"heard": type, "code": code}. Everything below
the transfer is flyx itself.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from collections.abc import Awaitable, Callable

import zstandard

from flyx.client.link import Link
from flyx.client.pairing import PairingGate, begin_receiving
from flyx.client.signaling import Signaling
from flyx.net.loop import new_event_loop
from flyx.pairing.exchange import Code
from flyx.pairing.messages import VERSION
from flyx.rtc.channel import Channel, Channels
from flyx.signaling.messages import Join, Role
from flyx.transfer import messages
from flyx.transfer.digests import Algorithm, RunningDigest
from flyx.transfer.frames import FRAME_HEADER, FrameKind
from flyx.transfer.manifest import BLOCK_SIZE, Entry, EntryKind, Manifest
from flyx.transfer.messages import ControlMessage

CODE = Code("words", 2, "lemon-otter")
RECEIVER_HELLO = {"type": "hello", "agent": "liar"}
SENDER_HELLO = {**RECEIVER_HELLO, "code": "words", "words": 2}
CONTENT = b"content of the liar\n" * 100
ESCAPES = "\x1b[2J\x1b[1;1H\u202ehello\r\nfaked: line"


def say(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


class Wire:
    """The two channels, and what came over the control channel."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._heard: asyncio.Queue[ControlMessage | None] = asyncio.Queue()
        self._writable = asyncio.Event()
        channels.control.listen(self)
        channels.data.listen(_Deaf(self._writable))

    def message_received(self, message: bytes | str) -> None:
        self._heard.put_nowait(messages.parse_control_untrusted(message))

    def channel_writable(self) -> None:
        self._writable.set()

    def channel_closed(self) -> None:
        self._heard.put_nowait(None)
        self._writable.set()

    def tell(self, *told: ControlMessage) -> None:
        for message in told:
            self._channels.control.send(messages.serialize_control(message))

    def tell_raw(self, text: str) -> None:
        self._channels.control.send(text)

    async def send(self, *frames: bytes) -> None:
        """Send a data message when there is room; a closed channel takes everything."""
        await self._room(self._channels.data)
        self._channels.data.send(b"".join(frames))

    async def tell_slowly(self, *told: ControlMessage) -> None:
        """Tell when there is room."""
        for message in told:
            await self._room(self._channels.control)
            self.tell(message)

    @property
    def closed(self) -> bool:
        return self._channels.control.closed

    async def until(self, kind: type[ControlMessage]) -> ControlMessage | None:
        """Wait for a message of this type; None if the channel closed first."""
        while (message := await self._heard.get()) is not None:
            if isinstance(message, kind):
                return message
            if isinstance(message, messages.Cancel):
                self._heard.put_nowait(message)
                self._heard.put_nowait(None)
                return None
        self._heard.put_nowait(None)
        return None

    async def last_word(self) -> None:
        """Print the last thing that the other side says."""
        last: ControlMessage | None = None
        while (message := await self._heard.get()) is not None:
            last = message
            if isinstance(message, messages.Cancel):
                break
        say(heard=last.type if last else None, code=getattr(last, "code", None))

    async def _room(self, channel: Channel) -> None:
        while not channel.closed and not channel.writable:
            self._writable.clear()
            await self._writable.wait()


class _Deaf:
    def __init__(self, writable: asyncio.Event) -> None:
        self._writable = writable

    def message_received(self, message: bytes | str) -> None:
        pass

    def channel_writable(self) -> None:
        self._writable.set()

    def channel_closed(self) -> None:
        self._writable.set()


# What senders lie.


def frame(kind: FrameKind, file: int, offset: int, payload: bytes) -> bytes:
    return FRAME_HEADER.pack(kind, file, len(payload), offset) + payload


def whole_file(file: int, content: bytes) -> list[bytes]:
    digest = RunningDigest(Algorithm.SHA256)
    digest.add(Algorithm.SHA256.digest(content))
    return [
        frame(FrameKind.DATA, file, 0, content),
        frame(FrameKind.BLOCK_END, file, 0, Algorithm.SHA256.digest(content)),
        frame(FrameKind.FILE_END, file, len(content), digest.value()),
    ]


def manifest(*paths: str, size: int = len(CONTENT)) -> Manifest:
    return Manifest(
        Entry(path.rstrip("/"), EntryKind.DIRECTORY, 0, 0o777, 0)
        if path.endswith("/")
        else Entry(path, EntryKind.FILE, size, 0o777, 0)
        for path in paths
    )


async def offer(wire: Wire, offered: Manifest) -> bool:
    """Tell a manifest; whether it was accepted."""
    await wire.tell_slowly(*messages.manifest_messages(offered))
    return await wire.until(messages.Credit) is not None


async def send_paths(wire: Wire, *paths: str) -> None:
    """Offer these and send them all, accepted or not."""
    await offer(wire, manifest(*paths))
    for n, path in enumerate(paths):
        if not path.endswith("/"):
            await wire.send(*whole_file(n, CONTENT))


async def send_more_than_announced(wire: Wire) -> None:
    await offer(wire, manifest("grows", size=10))
    await wire.send(*whole_file(0, CONTENT))


async def send_elsewhere(wire: Wire) -> None:
    await offer(wire, manifest("elsewhere", size=1 << 21))
    await wire.send(frame(FrameKind.DATA, 0, 1 << 20, CONTENT))


async def offer_too_much(wire: Wire) -> None:
    await offer(wire, manifest("huge", size=1 << 53))


async def send_another_digest(wire: Wire) -> None:
    await offer(wire, manifest("damaged"))
    data, _, end = whole_file(0, CONTENT)
    await wire.send(data, frame(FrameKind.BLOCK_END, 0, 0, bytes(32)), end)


async def send_another_file_digest(wire: Wire) -> None:
    await offer(wire, manifest("damaged"))
    data, block, _ = whole_file(0, CONTENT)
    await wire.send(data, block, frame(FrameKind.FILE_END, 0, len(CONTENT), bytes(32)))


async def flood_with_blocks(wire: Wire) -> None:
    await offer(wire, manifest("flood", size=1 << 30))
    block = bytes(BLOCK_SIZE // 8)
    for offset in range(0, 1 << 30, len(block)):
        if wire.closed:
            break
        await wire.send(frame(FrameKind.DATA, 0, offset, block))


async def send_bomb(wire: Wire) -> None:
    """A block of 1 MiB, compressed, that has 512 MiB and says that it has one."""
    await offer(wire, manifest("bomb", size=BLOCK_SIZE))
    bomb = zstandard.compress(bytes(BLOCK_SIZE << 9))
    # Magic number, descriptor (a size of eight bytes, one segment), size: RFC 8878 §3.1.1.1.
    header = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", BLOCK_SIZE)
    packed = header + bomb[zstandard.frame_header_size(bomb) :]
    digest = Algorithm.SHA256.digest(bytes(BLOCK_SIZE))
    await wire.send(frame(FrameKind.PACKED, 0, 0, packed), frame(FrameKind.BLOCK_END, 0, 0, digest))


async def send_unasked(wire: Wire) -> None:
    """More than a receiver that takes whatever is offered lets come before that is told."""
    part = bytes(messages.MIN_MESSAGE_SIZE)
    for offset in range(0, messages.EAGER_CREDIT, len(part)):
        await wire.send(frame(FrameKind.DATA, 0, offset, part))


async def flood_with_paths(wire: Wire) -> None:
    count, deep = 1_000_000, "/".join(["x" * 250] * 10)
    start = messages.ManifestStart(manifest_id="0" * 64, entries=count, files=count, bytes=0, roots=1)
    await wire.tell_slowly(start, messages.Roots(names=["d"]))
    for first in range(0, count, 5):
        if wire.closed:
            break
        rows: list[messages.Row] = [(f"d/{deep}/{n}", "file", 0, 0o644, 0) for n in range(first, first + 5)]
        await wire.tell_slowly(messages.ManifestPiece(first=first, entries=rows))


async def cancel_with_escapes(wire: Wire) -> None:
    wire.tell(messages.Cancel(code="failed", message=ESCAPES))


async def say_nonsense(wire: Wire) -> None:
    wire.tell_raw('{"type": "' + ESCAPES.encode("unicode_escape").decode() + '"}')


async def fail_with_escapes(wire: Wire) -> None:
    await offer(wire, manifest("never sent"))
    await wire.send(frame(FrameKind.FILE_FAILED, 0, 0, ESCAPES.encode()))


async def say_literally(wire: Wire, *texts: str) -> None:
    for text in texts:
        wire.tell_raw(text)


async def say_done(wire: Wire) -> None:
    await offer(wire, manifest("never sent"))
    wire.tell(messages.Done())


Lie = Callable[[Wire], Awaitable[None]]

SENDER_LIES: dict[str, Lie] = {
    "more than announced": send_more_than_announced,
    "elsewhere": send_elsewhere,
    "too much": offer_too_much,
    "another digest": send_another_digest,
    "another file digest": send_another_file_digest,
    "flood of blocks": flood_with_blocks,
    "bomb": send_bomb,
    "unasked": send_unasked,
    "flood of paths": flood_with_paths,
    "escapes": cancel_with_escapes,
    "nonsense": say_nonsense,
    "done": say_done,
    "fails with escapes": fail_with_escapes,
}


# What receivers lie.


async def accept_what_is_not_there(wire: Wire) -> None:
    await wire.until(messages.ManifestEnd)
    wire.tell(messages.Accept(below=1000))


async def confirm_what_was_not_sent(wire: Wire) -> None:
    await wire.until(messages.ManifestEnd)
    wire.tell(messages.Accept(below=1), messages.Saved(files=[0]))


async def complete_at_once(wire: Wire) -> None:
    await wire.until(messages.ManifestEnd)
    wire.tell(messages.Accept(below=1), messages.Complete(files=1, bytes=1, sha256="0" * 64))


async def take_credit_back(wire: Wire) -> None:
    await wire.until(messages.ManifestEnd)
    wire.tell(messages.Credit(bytes=100, written=0), messages.Credit(bytes=99, written=0))


async def verify_what_was_not_sent(wire: Wire) -> None:
    await wire.until(messages.ManifestEnd)
    wire.tell(messages.Credit(bytes=100, written=1 << 60))


async def keep_what_is_not_there(wire: Wire) -> None:
    await wire.until(messages.ManifestEnd)
    wire.tell(messages.Kept(files=[(9, "0" * 64)]))


async def have_more_than_there_is(wire: Wire) -> None:
    await wire.until(messages.ManifestEnd)
    wire.tell(messages.Have(file=0, first=0, sha256=["0" * 64] * 500))


async def have_out_of_order(wire: Wire) -> None:
    await wire.until(messages.ManifestEnd)
    wire.tell(messages.Have(file=0, first=3, sha256=["0" * 64]))


async def send_data(wire: Wire) -> None:
    await wire.send(*whole_file(0, CONTENT))


async def take_and_read_no_more(wire: Wire) -> None:
    """Grant credit without end; the test stops this process."""
    await wire.until(messages.ManifestEnd)
    wire.tell(messages.Accept(below=1), messages.Credit(bytes=1 << 60, written=0))
    say(granted=True)


RECEIVER_LIES: dict[str, Lie] = {
    "accepts": accept_what_is_not_there,
    "confirms": confirm_what_was_not_sent,
    "completes": complete_at_once,
    "takes back": take_credit_back,
    "verifies": verify_what_was_not_sent,
    "keeps": keep_what_is_not_there,
    "has too much": have_more_than_there_is,
    "has out of order": have_out_of_order,
    "data": send_data,
    "escapes": cancel_with_escapes,
    "nonsense": say_nonsense,
    "stands still": take_and_read_no_more,
}

DAWDLING = "dawdles"
SAYS = "says:"
"""A JSON list of texts follows."""

OTHER_VERSION = "speaks version "
"""And which."""


async def speak_other_version(channels: Channels, hello: dict[str, object], lie: str) -> None:
    """Greet as another version would, and print what is answered to that."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    channels.control.listen(_Queueing(heard))
    version = int(lie.removeprefix(OTHER_VERSION))
    channels.control.send(json.dumps({**hello, "version": version}))
    while (answer := json.loads(await heard.get()))["type"] == "hello":
        pass
    say(heard=answer["type"], code=answer["reason"])


BEGINNING = "begins to pair and leaves, again and again"


async def begin_again_and_again(server: str, room_id: str) -> None:
    """Have the sender answer in the exchange, leave without a proof, and come again while it takes us."""
    answered = 0
    while True:
        async with Signaling(server, room_id, Role.RECEIVER) as signaling:
            link = Link(signaling, None)
            listener = asyncio.create_task(_listen(signaling, link))
            channels = await link.connection.connected()
            heard: asyncio.Queue[str] = asyncio.Queue()
            channels.control.listen(_Queueing(heard))
            channels.control.send(json.dumps({**RECEIVER_HELLO, "version": VERSION, "nonce": "5e" * 16}))
            # The base point of the curve: as good a share as any.
            channels.control.send(json.dumps({"type": "pake", "share": "09" + "00" * 31}))
            while (answer := json.loads(await heard.get()))["type"] == "hello":
                pass
            listener.cancel()
            await link.close()
        if answer["type"] != "pake":
            break
        answered += 1
        say(answered=answered)


class _Queueing:
    def __init__(self, heard: asyncio.Queue[str]) -> None:
        self._heard = heard

    def message_received(self, message: bytes | str) -> None:
        self._heard.put_nowait(str(message))

    def channel_writable(self) -> None:
        pass

    def channel_closed(self) -> None:
        self._heard.put_nowait('{"type": null, "reason": null}')


async def send(server: str, lie: str) -> None:
    async with Signaling(server, None, Role.SENDER) as signaling:
        room_id = signaling.joined.room_id
        say(code=f"{room_id}-{CODE.password}")
        while not isinstance(joined := await signaling.receive(), Join):
            pass
        link = Link(signaling, joined.data.client_id)
        listener = asyncio.create_task(_listen(signaling, link))
        await link.offer()
        channels = await link.connection.connected()
        if lie.startswith(OTHER_VERSION):
            await speak_other_version(channels, SENDER_HELLO, lie)
            return
        gate = PairingGate(room_id, CODE)
        await gate.pair(gate.begin(), link.connection, channels)
        wire = Wire(channels)
        if lie.startswith("paths:"):
            await send_paths(wire, *json.loads(lie.removeprefix("paths:")))
        elif lie.startswith(SAYS):
            await say_literally(wire, *json.loads(lie.removeprefix(SAYS)))
        else:
            await SENDER_LIES[lie](wire)
        await wire.last_word()
        listener.cancel()
        await link.close()


async def receive(server: str, lie: str, code: str) -> None:
    room_id, _, password = code.partition("-")
    if lie == BEGINNING:
        await begin_again_and_again(server, room_id)
        return
    async with Signaling(server, room_id, Role.RECEIVER) as signaling:
        link = Link(signaling, None)
        listener = asyncio.create_task(_listen(signaling, link))
        channels = await link.connection.connected()
        if lie == DAWDLING:
            say(connected=True)
            await asyncio.Event().wait()
        if lie.startswith(OTHER_VERSION):
            await speak_other_version(channels, RECEIVER_HELLO, lie)
            return
        await begin_receiving(room_id, None, known=lambda _: password).run(link.connection, channels)
        wire = Wire(channels)
        if lie.startswith(SAYS):
            await say_literally(wire, *json.loads(lie.removeprefix(SAYS)))
        else:
            await RECEIVER_LIES[lie](wire)
        await wire.last_word()
        listener.cancel()
        await link.close()


async def _listen(signaling: Signaling, link: Link) -> None:
    while True:
        link.take(await signaling.receive())


if __name__ == "__main__":
    role, lie, server, *rest = sys.argv[1:]
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(send(server, lie) if role == "sender" else receive(server, lie, rest[0]))
