"""The private names of aiortc, aioice and pyOpenSSL that flyx uses are still there, and do what it thinks."""

from __future__ import annotations

import asyncio
import struct
from importlib.metadata import requires, version
from typing import Any

import pytest
from aioice import Candidate, Connection
from aioice.ice import StunProtocol
from aioice.turn import TurnClientUdpProtocol, TurnTransport
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCDtlsTransport,
    RTCIceTransport,
    RTCPeerConnection,
    RTCSctpTransport,
)
from OpenSSL import SSL

from flyx.rtc.driver import make_peer_connection
from flyx.rtc.seam import connection, dtls, ice, sctp, tunnel, turn
from tests.rtc.relay import Relay


def turn_client() -> TurnClientUdpProtocol:
    return TurnClientUdpProtocol(
        ("127.0.0.1", 3478), "anyone", "secret", lifetime=600, channel_refresh_time=500
    )


async def test_every_private_name_exists_in_the_installed_release() -> None:
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        channel = pc.createDataChannel("any")
        assert pc.sctp is not None
        gatherer = pc.sctp.transport.transport.iceGatherer
        ssl = SSL.Connection(SSL.Context(SSL.DTLS_METHOD))
        instances: dict[type, Any] = {
            type(gatherer): gatherer,
            Connection: gatherer._connection,
            RTCIceTransport: pc.sctp.transport.transport,
            RTCDtlsTransport: pc.sctp.transport,
            RTCDataChannel: channel,
            RTCPeerConnection: pc,
            RTCSctpTransport: pc.sctp,
            TurnTransport: TurnTransport(turn_client()),
            SSL.Connection: ssl,
            Candidate: Candidate.from_sdp("1 1 udp 1 192.0.2.1 9 typ host"),
        }
        modules = (connection, ice, turn, tunnel, dtls, sctp)
        used = [item for module in modules for item in module.PRIVATE_NAMES.items()]
        assert set(instances) == {kind for kind, _ in used}
        for kind, names in used:
            for name in names:
                assert hasattr(instances[kind], name), f"{kind.__name__}.{name}"
        for name in dtls.PRIVATE_NAMES_OF_PYOPENSSL:
            assert hasattr(SSL, name), name
    finally:
        await pc.close()


def test_aiortc_is_pinned_to_the_release_that_is_tested() -> None:
    assert f"aiortc=={version('aiortc')}" in (requires("flyx") or [])


async def test_without_a_network_the_loopback_is_a_candidate() -> None:
    pc = make_peer_connection(RTCConfiguration(iceServers=[]))
    try:
        pc.createDataChannel("any")
        candidates = await ice.gather_host_candidates(pc, [])
        assert [candidate.ip for candidate in candidates] == ice.LOOPBACK_ADDRESSES
    finally:
        await pc.close()


async def test_openssl_has_the_functions_that_a_record_layer_is_used_with() -> None:
    connection = SSL.Connection(SSL.Context(SSL.DTLS_METHOD))
    names = ("SSL_read", "SSL_write", "BIO_read", "BIO_write", "BIO_get_mem_data", "ERR_clear_error")
    assert all(hasattr(SSL._lib, name) for name in names)  # type: ignore[attr-defined]
    # Memory BIOs, which pyOpenSSL makes for a connection without a socket.
    assert connection._into_ssl is not None
    assert connection._from_ssl is not None


class Listener(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.datagrams: list[tuple[bytes, Any]] = []
        self.ends: list[Exception | None] = []

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.datagrams.append((data, addr))

    def connection_lost(self, exc: Exception | None) -> None:
        self.ends.append(exc)


async def test_what_a_relay_brings_goes_where_it_is_redirected() -> None:
    inner, listener = turn_client(), Listener()
    protocol = StunProtocol(Connection(ice_controlling=True))
    relayed: Any = TurnTransport(inner)
    protocol.connection_made(relayed)
    inner.receiver = protocol
    inner.channel_to_peer[0x4000] = ("192.0.2.1", 7)
    dtls.redirect_datagrams(protocol, listener)
    inner.datagram_received(struct.pack("!HH", 0x4000, 5) + b"hello", ("127.0.0.1", 3478))
    inner.connection_lost(None)
    assert listener.datagrams == [(b"hello", ("192.0.2.1", 7))]
    assert listener.ends == [None]


async def test_a_relay_that_has_gone_silent_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "RELAY_FAREWELL", 0.01)
    server = Relay()
    pc = make_peer_connection(RTCConfiguration(iceServers=[]))
    pc.createDataChannel("any")
    await ice.gather_host_candidates(pc, [])
    port = await server.listen()
    relay = turn.Relay(("127.0.0.1", port), "anyone", "secret", transport="udp", secure=False)
    assert await turn.relayed_candidate(pc, relay) is not None
    server.close()
    # aioice alone would ask it to let us go for a minute.
    async with asyncio.timeout(5.0):
        await pc.close()
    assert {task for task in asyncio.all_tasks() if "aioice" in repr(task)} == set()
