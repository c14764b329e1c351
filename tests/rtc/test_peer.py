"""Two peer connections in one process, over real sockets on this machine."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvloop
from aioice import stun

from flyx.errors import PeerUnreachable, RemoteProtocolError, TransferInterrupted
from flyx.net import udp
from flyx.net.interfaces import Address, udp_socket
from flyx.net.loop import new_event_loop
from flyx.rtc import description, peer, relays
from flyx.rtc.channel import Channel
from flyx.rtc.dtls import DtlsBatcher
from flyx.rtc.peer import IceCandidateInit, PeerConnection, Reply
from flyx.rtc.sctp_transport import TIMER_RESOLUTION, SctpTransport
from flyx.rtc.seam import ice
from flyx.rtc.seam.connection import MAX_LEARNED_CANDIDATES
from flyx.rtc.servers import TurnServer
from flyx.sctp.association import Association
from flyx.sctp.config import DTLS_MTU
from flyx.sctp.pacing import Pacer

LABELS = ("control", "data")


class Ear:
    """Listens to a channel."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes | str] = asyncio.Queue()
        self.writable = asyncio.Event()
        self.closed = asyncio.Event()

    def message_received(self, message: bytes | str) -> None:
        self.messages.put_nowait(message)

    def channel_writable(self) -> None:
        self.writable.set()

    def channel_closed(self) -> None:
        self.closed.set()


@asynccontextmanager
async def connection(
    on_candidate: Callable[[IceCandidateInit | None], None] = lambda _: None,
    stun_urls: list[str] | None = None,
    *,
    probes: bool = True,
) -> AsyncIterator[PeerConnection]:
    made = PeerConnection(LABELS, stun_urls or [], on_candidate, probes=probes)
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def pair(*, probes: bool = True) -> AsyncIterator[tuple[PeerConnection, PeerConnection]]:
    """Two connections that are being made; everything they need is in their descriptions."""
    async with connection(probes=probes) as left, connection() as right:
        await left.accept_answer(await right.answer(await left.offer()))
        yield left, right


def listen(channel: Channel) -> Ear:
    ear = Ear()
    channel.listen(ear)
    return ear


async def test_what_comes_first_travels_in_the_descriptions() -> None:
    asked: list[object] = []

    def reply(first: Sequence[str], ours: bytes, theirs: bytes) -> list[str]:
        asked.append((tuple(first), (ours, theirs)))
        return ["c", "d"]

    async with connection() as left, connection() as right:
        await left.accept_answer(await right.answer(await left.offer(["a", "b"]), reply))
        ends = await asyncio.gather(left.connected(), right.connected())
        assert asked == [(("a", "b"), right.fingerprints())]
        ends[0].control.send("e")
        ends[1].control.send("f")
        ears = [listen(end.control) for end in ends]
        assert [await ears[0].messages.get() for _ in range(3)] == ["c", "d", "f"]
        assert await ears[1].messages.get() == "e"


@pytest.mark.parametrize("reply", [None, lambda *_: ()])
async def test_what_comes_first_comes_by_the_channel_to_who_has_not_taken_it(reply: Reply | None) -> None:
    async with connection() as left, connection() as right:
        await left.accept_answer(await right.answer(await left.offer(["a", "b"]), reply))
        ends = await asyncio.gather(left.connected(), right.connected())
        ends[0].control.send("c")
        ear = listen(ends[1].control)
        assert [await ear.messages.get() for _ in range(3)] == ["a", "b", "c"]


@pytest.mark.parametrize("make_loop", [new_event_loop, asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("silent", [False, True])
def test_of_a_connection_that_has_fallen_silent_not_even_the_kernel_answers_for_a_while(
    silent: bool, make_loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp, "KEPT_TIME", 0.5)

    async def scenario() -> None:
        async with pair() as (left, right):
            await asyncio.gather(left.connected(), right.connected())
            ends = left.ends()
            assert ends is not None
            if silent:
                left.fall_silent()
            await left.close()
            assert is_refused(ends[0]) is not silent
            # The time is the condition here.
            await asyncio.sleep(2 * udp.KEPT_TIME if silent else 0)
            assert is_refused(ends[0])

    # Its sockets are ours on any event loop.
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(scenario())


def is_refused(address: Address) -> bool:
    """Whether the kernel says by ICMP that nobody listens there, which it tells at once on this machine."""
    with udp_socket(address) as probe:
        probe.connect(address)
        try:
            for _ in range(2):
                probe.send(b"still coming")
        except ConnectionRefusedError:
            return True
        return False


@pytest.mark.parametrize("probes", [True, False])
async def test_a_connection_that_does_not_probe_the_path_keeps_to_packets_that_every_path_takes(
    probes: bool,
) -> None:
    async with pair(probes=probes) as (left, right):
        ours, theirs = await asyncio.gather(left.connected(), right.connected())
        ear = listen(theirs.data)
        size, largest = 0, 0
        # Some round trips, in which the answers to probes come.
        for _ in range(20):
            ours.data.send(bytes(100_000))
            size += len(await asyncio.wait_for(ear.messages.get(), 5.0))
            sctp = left._pc.sctp
            assert isinstance(sctp, SctpTransport)
            largest = max(largest, sctp.max_packet_size or 0)
        assert size == 2_000_000
        assert (largest > DTLS_MTU) is probes


@pytest.mark.parametrize("make_loop", [new_event_loop, asyncio.new_event_loop])
def test_the_loop_does_not_turn_at_full_speed_towards_a_deadline_that_is_near(
    make_loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with pair() as (left, right):
            await asyncio.gather(left.connected(), right.connected())
            sctp = left._pc.sctp
            assert isinstance(sctp, SctpTransport)
            called = asyncio.get_running_loop().create_future()
            monkeypatch.setattr(sctp, "_timeout", lambda: called.set_result(time.monotonic()))
            now = time.monotonic()
            near = SimpleNamespace(next_timeout=lambda: now + 0.0004, transmission=None)
            sctp._set_timer(cast(Association, near), now, None)
            assert await called > now + 0.0004
            # It would set the timer again.
            monkeypatch.undo()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(scenario())


async def test_a_timer_waits_less_than_that_where_bursts_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair() as (left, right):
        await asyncio.gather(left.connected(), right.connected())
        sctp = left._pc.sctp
        assert isinstance(sctp, SctpTransport)
        delays: list[float] = []
        loop = asyncio.get_running_loop()
        for kind in ("direct", "relayed", "tunnelled", "direct"):
            path = SimpleNamespace(
                is_relayed=kind == "relayed",
                is_tunnelled=kind == "tunnelled",
                record_overhead=37,
                round_trip=None,
            )
            controller = sctp._make_controller(cast(DtlsBatcher, path))
            transmission = SimpleNamespace(
                has_short_bursts=Pacer(1200, controller.max_burst).has_short_bursts
            )
            near = SimpleNamespace(next_timeout=lambda: 0.0004, transmission=transmission)
            with monkeypatch.context() as patched:
                patched.setattr(loop, "call_later", lambda delay, _: delays.append(delay))
                sctp._set_timer(cast(Association, near), 0.0, None)
        assert delays == [TIMER_RESOLUTION, 0.0004, 0.0004, TIMER_RESOLUTION]


async def test_a_connection_closes_also_when_all_tasks_are_cancelled_as_at_the_end_of_asyncio_run() -> None:
    async with pair() as (left, right):
        await asyncio.gather(left.connected(), right.connected())
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        async with asyncio.timeout(10):
            for _ in range(2):
                await left.close()
                await right.close()


async def test_messages_go_both_ways_on_both_channels() -> None:
    async with pair() as (left, right):
        ours, theirs = await left.connected(), await right.connected()
        for here, there in ((ours.control, theirs.control), (theirs.data, ours.data)):
            ear = listen(there)
            for message in ("text", b"bytes", b"", "", b"x" * 60_000):
                here.send(message)
                assert await ear.messages.get() == message
        assert ours.max_message_size >= 65536


async def test_the_path_names_its_candidate_types() -> None:
    async with pair() as (left, right):
        assert left.path() is None
        await asyncio.gather(left.connected(), right.connected())
        path = left.path()
        assert path is not None
        assert path.local == "host"


async def test_messages_before_anybody_listens_are_kept() -> None:
    async with pair() as (left, right):
        ours, theirs = await left.connected(), await right.connected()
        ours.control.send("first")
        ours.control.send("second")
        mark = listen(theirs.data)
        ours.data.send(b"mark")
        # Same association, later message: what was sent before it has arrived.
        assert await mark.messages.get() == b"mark"
        ear = listen(theirs.control)
        assert [await ear.messages.get(), await ear.messages.get()] == ["first", "second"]


async def test_a_full_send_buffer_is_not_writable_until_it_drains() -> None:
    async with pair() as (left, right):
        ours, theirs = await left.connected(), await right.connected()
        sender, receiver = listen(ours.data), listen(theirs.data)
        sent = 0
        while ours.data.writable:
            ours.data.send(bytes(65536))
            sent += 1
        await sender.writable.wait()
        assert ours.data.writable
        for _ in range(sent):
            assert len(await receiver.messages.get()) == 65536


async def test_closing_one_side_closes_the_channels_of_the_other() -> None:
    async with pair() as (left, right):
        _, theirs = await left.connected(), await right.connected()
        ears = [listen(theirs.control), listen(theirs.data)]
        await left.close()
        for ear in ears:
            await ear.closed.wait()


async def test_a_closed_channel_tells_a_late_listener_and_swallows_messages() -> None:
    async with pair() as (left, right):
        ours, _ = await left.connected(), await right.connected()
        await left.close()
        ear = listen(ours.control)
        await ear.closed.wait()
        ours.control.send("into the void")


def bare(sdp: str) -> str:
    """A description without its candidates, as a browser that trickles them gives it."""
    return "".join(f"{line}\r\n" for line in sdp.splitlines() if not line.startswith("a=candidate"))


async def all_told(candidates: asyncio.Queue[IceCandidateInit | None]) -> list[IceCandidateInit | None]:
    told = []
    while (candidate := await candidates.get()) is not None:
        told.append(candidate)
    return [*told, None]


async def test_descriptions_tell_one_fingerprint_the_sha_256_of_the_certificate() -> None:
    async with connection() as left, connection() as right:
        offer = await left.offer()
        answer = await right.answer(offer)
        await left.accept_answer(answer)
        await asyncio.gather(left.connected(), right.connected())
        for peer, sdp in ((left, offer), (right, answer)):
            (told,) = re.findall(r"a=fingerprint:(.*)\r\n", sdp)
            assert told == "sha-256 " + peer.fingerprints()[0].hex(":").upper()


async def test_candidates_are_told_one_by_one_and_suffice_alone() -> None:
    of_left: asyncio.Queue[IceCandidateInit | None] = asyncio.Queue()
    of_right: asyncio.Queue[IceCandidateInit | None] = asyncio.Queue()
    async with connection(of_left.put_nowait) as left, connection(of_right.put_nowait) as right:
        offer = await left.offer()
        assert "a=candidate" in offer
        assert "a=end-of-candidates" not in offer
        answer = await right.answer(bare(offer))
        for candidate in await all_told(of_right):
            # They come before the description they belong to, and wait for it.
            await left.add_candidate(candidate)
        await left.accept_answer(bare(answer))
        for candidate in await all_told(of_left):
            await right.add_candidate(candidate)
        await asyncio.gather(left.connected(), right.connected())


class StunResponder(asyncio.DatagramProtocol):
    """A STUN server (RFC 8489) that says everybody comes from 203.0.113.7."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        request = stun.parse_message(data)
        response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id)
        response.attributes["XOR-MAPPED-ADDRESS"] = ("203.0.113.7", addr[1])
        self.transport.sendto(bytes(response), addr)


async def own_address() -> str:
    """An IPv4 address of this machine that its host candidates can reach."""
    async with connection() as asking:
        candidates = [line for line in (await asking.offer()).splitlines() if line.startswith("a=candidate")]
    return next(address for line in candidates if ":" not in (address := line.split()[4]))


async def test_server_reflexive_candidates_trickle_after_the_description() -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(StunResponder, local_addr=("0.0.0.0", 0))
    told: asyncio.Queue[IceCandidateInit | None] = asyncio.Queue()
    url = f"stun:{await own_address()}:{transport.get_extra_info('sockname')[1]}"
    try:
        async with connection(told.put_nowait, [url]) as left:
            assert "srflx" not in await left.offer()
            lines = [candidate["candidate"] for candidate in await all_told(told) if candidate]
    finally:
        transport.close()
    assert any("203.0.113.7" in line and "typ srflx" in line for line in lines)


@pytest.mark.parametrize(
    "url", ["stun:", "http://x", "stun:256.256.256.256:1:2", "stun:no.such.host.invalid:3478"]
)
async def test_a_stun_server_that_cannot_be_used_costs_nothing_but_its_candidate(url: str) -> None:
    told: list[IceCandidateInit | None] = []
    async with connection(told.append, [url]) as left, connection() as right:
        await left.accept_answer(await right.answer(await left.offer()))
        await asyncio.gather(left.connected(), right.connected())


@pytest.mark.parametrize(
    "sdp",
    [
        "",
        "garbage",
        "v=0\r\n" * 1000,
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\n",
        "v=0\r\nm=application x y z\r\n",
        "\x00\x1b[2J",
    ],
)
async def test_a_bad_offer_is_a_protocol_error(sdp: str) -> None:
    async with connection() as right:
        with pytest.raises(RemoteProtocolError):
            await right.answer(sdp)


async def test_an_offer_of_audio_beside_the_channels_is_refused() -> None:
    async with connection() as left, connection() as right:
        offer = await left.offer()
        audio = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\n"
        with pytest.raises(RemoteProtocolError):
            await right.answer(offer + audio)


@pytest.mark.parametrize(
    "candidate",
    [
        "garbage",
        "candidate:",
        "candidate:1 1 udp x 10.0.0.1 9 typ host",
        "candidate:1 1 udp 1 ::: 9 typ host",
    ],
)
async def test_a_bad_candidate_is_ignored(candidate: str) -> None:
    async with pair() as (left, right):
        await left.add_candidate({"candidate": candidate, "sdpMid": "0", "sdpMLineIndex": 0})
        await asyncio.gather(left.connected(), right.connected())


async def test_candidates_beyond_the_limit_are_not_even_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description, "MAX_REMOTE_CANDIDATES", 3)
    monkeypatch.setattr(peer, "CONNECT_TIMEOUT", 0.5)
    of_right: asyncio.Queue[IceCandidateInit | None] = asyncio.Queue()
    async with connection() as left, connection(of_right.put_nowait) as right:
        answer = await right.answer(bare(await left.offer()))
        await left.accept_answer(bare(answer))
        for port in (1, 2, 3):
            line = f"candidate:1 1 udp 1 192.0.2.1 {port} typ host"
            await left.add_candidate({"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0})
        for candidate in await all_told(of_right):
            await left.add_candidate(candidate)
        with pytest.raises(PeerUnreachable):
            await left.connected()


async def test_a_peer_that_cannot_connect_names_what_was_tried_and_no_addresses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(peer, "CONNECT_TIMEOUT", 0.5)
    monkeypatch.setattr(relays, "RETRY_PAUSE", 60)
    caplog.set_level("DEBUG", "flyx.rtc")
    # Nothing listens at port 9, which is discard's (RFC 863).
    relay = TurnServer("turn:localhost:9?transport=tcp", "user", "password")
    left = PeerConnection(LABELS, [], lambda _: None, turn_servers=[relay])
    try:
        async with connection() as right:
            await left.accept_answer(bare(await right.answer(bare(await left.offer()))))
            line = "candidate:1 1 udp 1 192.0.2.1 9 typ host"
            await left.add_candidate({"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0})
            with pytest.raises(PeerUnreachable) as caught:
                await left.connected()
    finally:
        await left.close()
    told = f"{caught.value} {caught.value.hint}"
    assert "UDP to the other side got no answer" in told
    assert "flyx doctor" in told
    assert "192.0.2.1" not in told
    assert "192.0.2.1:9: " in caplog.text


async def test_checks_from_ever_new_ports_are_answered_and_not_returned() -> None:
    async with connection() as left, connection() as right:
        offer = await left.offer()
        # It has nowhere to send checks of its own to.
        answer = await right.answer(bare(offer))
        await left.accept_answer(bare(answer))
        host = next(address for address in ice.host_addresses(left._pc) if ":" not in address)
        line = next(line for line in offer.splitlines() if f" {host} " in line and "typ host" in line)
        where = host, int(line.split()[5])
        ufrag, password = (re.search(rf"a={name}:(\S+)", offer)[1] for name in ("ice-ufrag", "ice-pwd"))  # type: ignore[index]
        peer_ufrag = re.search(r"a=ice-ufrag:(\S+)", answer)[1]  # type: ignore[index]
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(100)]
        answered, checked = 0, set()
        try:
            for each in sockets:
                each.setblocking(False)
                each.bind((host, 0))
                check = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
                check.attributes |= {"USERNAME": f"{ufrag}:{peer_ufrag}", "PRIORITY": 1, "ICE-CONTROLLED": 5}
                check.add_message_integrity(password.encode())
                check.add_fingerprint()
                each.sendto(bytes(check), where)
            async with asyncio.timeout(20):
                while answered < len(sockets) or len(checked) < MAX_LEARNED_CANDIDATES:
                    await asyncio.sleep(0.01)
                    for number, each in enumerate(sockets):
                        with suppress(BlockingIOError):
                            got = stun.parse_message(each.recv(2000))
                            answered += got.message_class is stun.Class.RESPONSE
                            if got.message_class is stun.Class.REQUEST:
                                checked.add(number)
            assert len(checked) == MAX_LEARNED_CANDIDATES
        finally:
            for each in sockets:
                each.close()


async def test_giving_up_ends_the_wait_with_its_reason() -> None:
    async with connection() as left:
        await left.offer()
        waiting = asyncio.create_task(left.connected())
        left.give_up(TransferInterrupted(reason="the receiver left"))
        with pytest.raises(TransferInterrupted, match="the receiver left"):
            await waiting


async def test_a_peer_that_never_answers_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "CONNECT_TIMEOUT", 0.05)
    async with connection() as left:
        await left.offer()
        with pytest.raises(PeerUnreachable):
            await left.connected()


async def test_closing_while_connecting_is_clean() -> None:
    async with connection() as left, connection() as right:
        await left.accept_answer(await right.answer(await left.offer()))
        waiting = asyncio.create_task(left.connected())
        await left.close()
        with pytest.raises(PeerUnreachable):
            await waiting


@pytest.mark.parametrize(
    "url", ["turn:", "stun:127.0.0.1", "turns:127.0.0.1?transport=udp", "turn:127.0.0.1:1?transport=tcp", "x"]
)
async def test_a_turn_server_that_cannot_be_used_is_done_without(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "ALLOCATION_TIMEOUT", 0.1)
    told: asyncio.Queue[IceCandidateInit | None] = asyncio.Queue()
    made = PeerConnection(LABELS, [], told.put_nowait, turn_servers=[TurnServer(url, "user", "password")])
    try:
        await made.offer()
        while (candidate := await told.get()) is not None:
            assert "typ host" in candidate["candidate"]
    finally:
        await made.close()
