"""The private names of aiortc, aioice and pyOpenSSL that flyx uses are still there, and do what it thinks."""

from __future__ import annotations

from importlib.metadata import requires, version
from typing import Any

import pytest
from aioice import Candidate, Connection, stun
from aioice.turn import TurnClientMixin
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCDtlsTransport,
    RTCIceTransport,
    RTCPeerConnection,
    RTCSctpTransport,
)
from OpenSSL import SSL

from flyx.rtc.sctp_transport import make_peer_connection
from flyx.rtc.seam import connection, dtls, flights, ice, pair, sctp, tunnel, turn


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
            TurnClientMixin: turn.TurnClient("anyone", "secret"),
            SSL.Connection: ssl,
            Candidate: Candidate.from_sdp("1 1 udp 1 192.0.2.1 9 typ host"),
        }
        modules = (connection, flights, pair, ice, turn, tunnel, dtls, sctp)
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


@pytest.mark.parametrize("kind", sorted(stun.ATTRIBUTES_BY_TYPE))
def test_a_stun_attribute_that_cannot_be_read_is_a_value_error(kind: int) -> None:
    """aioice drops a datagram for nothing else."""
    for size in range(24):
        attribute = kind.to_bytes(2, "big") + size.to_bytes(2, "big") + bytes(size + -size % 4)
        header = b"\x00\x01" + len(attribute).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + bytes(12)
        try:
            stun.parse_message(header + attribute)
        except ValueError:
            pass
