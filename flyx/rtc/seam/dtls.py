"""What lies below an RTCDtlsTransport: OpenSSL's handles, its sockets, the path in use."""

from __future__ import annotations

import asyncio
from typing import Any

from aioice import Connection
from aioice.ice import StunProtocol
from aiortc import RTCDtlsTransport, RTCPeerConnection
from cryptography.hazmat.primitives.hashes import SHA256
from msgspec import Struct
from OpenSSL import SSL

from flyx.net.udp import UdpTransport
from flyx.rtc.seam.connection import COMPONENT, IceConnection, pair_in_use
from flyx.rtc.seam.ice import connection_below, connection_of
from flyx.rtc.seam.pair import Pair
from flyx.rtc.seam.relayed import RelayTransport
from flyx.rtc.tunnel import TunnelTransport

PRIVATE_NAMES: dict[type, tuple[str, ...]] = {
    RTCDtlsTransport: ("_ssl",),
    Connection: ("_protocols", "_queue"),
    SSL.Connection: ("_ssl", "_into_ssl", "_from_ssl"),
}
"""Attributes that instances of these classes have and this module uses."""

PRIVATE_NAMES_OF_PYOPENSSL = ("_lib", "_ffi")
"""Attributes of the module OpenSSL.SSL: the functions of libssl and libcrypto, and cffi to call them."""


def certificate_fingerprints(pc: RTCPeerConnection) -> tuple[bytes, bytes]:
    """Return the SHA-256 of our DTLS certificate and of the peer's, as OpenSSL has them: DTLS is connected.

    Not as the descriptions claim them, which went through a server.
    """
    assert pc.sctp is not None
    connection = pc.sctp.transport._ssl
    assert connection is not None, "not started"
    ours = connection.get_certificate(as_cryptography=True)
    theirs = connection.get_peer_certificate(as_cryptography=True)
    assert ours is not None
    assert theirs is not None, "aiortc connects to nobody without a certificate"
    return ours.fingerprint(SHA256()), theirs.fingerprint(SHA256())


def own_fingerprint(pc: RTCPeerConnection) -> bytes:
    """Return the SHA-256 of our DTLS certificate, as our descriptions tell it."""
    assert pc.sctp is not None
    (told,) = pc.sctp.transport.getLocalParameters().fingerprints
    return bytes.fromhex(told.value.replace(":", ""))


def tell_one_fingerprint(dtls: RTCDtlsTransport) -> None:
    """Have our descriptions tell the SHA-256 of our certificate alone, as those of browsers do (RFC 8122 §5).

    aiortc tells three. libdatachannel keeps the last, which it may compare with the first: it takes the
    algorithm from the description when ICE has connected, and begins ICE with an answer before it keeps that.
    """
    parameters = dtls.getLocalParameters()
    parameters.fingerprints = [each for each in parameters.fingerprints if each.algorithm == "sha-256"]
    dtls.getLocalParameters = lambda: parameters  # type: ignore[method-assign]


class RecordLayer(Struct, frozen=True):
    """A DTLS connection as OpenSSL has it: read and written through memory BIOs."""

    lib: Any
    ffi: Any
    connection: SSL.Connection
    ssl: Any
    incoming: Any
    """Where datagrams from the peer go."""
    outgoing: Any
    """Where records for the peer come from."""


def record_layer(dtls: RTCDtlsTransport) -> RecordLayer:
    """Return OpenSSL's handles; the handshake has been started."""
    connection = dtls._ssl
    assert connection is not None, "not started"
    return RecordLayer(
        lib=SSL._lib,  # type: ignore[attr-defined]  # private
        ffi=SSL._ffi,  # type: ignore[attr-defined]  # private
        connection=connection,
        ssl=connection._ssl,
        incoming=connection._into_ssl,
        outgoing=connection._from_ssl,
    )


class Path(Struct, frozen=True):
    """Where ICE sends: the protocol and the transport of the pair in use, and the peer's address."""

    protocol: asyncio.DatagramProtocol
    transport: asyncio.DatagramTransport
    address: tuple[str, int]


def path_identity(dtls: RTCDtlsTransport) -> object | None:
    """Return something that stays the same as long as the path does; None while there is none."""
    return pair_in_use(connection_below(dtls))


def path_in_use(dtls: RTCDtlsTransport) -> Path:
    """Return the path in use; there is one."""
    pair = pair_in_use(connection_below(dtls))
    assert pair is not None
    return Path(pair.protocol, pair.protocol.transport, pair.remote_addr)


def round_trip(dtls: RTCDtlsTransport) -> float | None:
    """Return how many seconds a check of the path in use took, if that is certain."""
    pair = pair_in_use(connection_below(dtls))
    return pair.round_trip if isinstance(pair, Pair) else None


def is_relayed(dtls: RTCDtlsTransport) -> bool:
    """Return whether the path in use goes through a TURN server, ours or the peer's, as far as we know."""
    pair = pair_in_use(connection_below(dtls))
    assert pair is not None
    return "relay" in (pair.local_candidate.type, pair.remote_candidate.type)


def heard(dtls: RTCDtlsTransport) -> None:
    """Tell ICE that the peer lives: something has come that it encrypted."""
    ice = connection_below(dtls)
    if isinstance(ice, IceConnection):
        ice.heard()


def datagram_protocols(dtls: RTCDtlsTransport) -> list[asyncio.DatagramProtocol]:
    """Return what takes the datagrams of each local candidate: STUN is answered there, the rest queued."""
    return list(connection_below(dtls)._protocols)


def fall_silent(pc: RTCPeerConnection) -> None:
    """Have the UDP sockets of a connection send nothing more, and outlive it for a while."""
    for protocol in connection_of(pc)._protocols:
        if isinstance(protocol.transport, UdpTransport):
            protocol.transport.fall_silent()


def redirect_datagrams(protocol: asyncio.DatagramProtocol, receiver: asyncio.DatagramProtocol) -> None:
    """Have the transport of an ICE protocol deliver to this receiver instead, and tell it of its end."""
    assert isinstance(protocol, StunProtocol)
    protocol.transport.set_protocol(receiver)


def take_queued_datagrams(dtls: RTCDtlsTransport) -> list[bytes]:
    """Return the datagrams that ICE has queued for aiortc, which will not see them."""
    queue = connection_below(dtls)._queue
    entries = []
    while not queue.empty():
        entries.append(queue.get_nowait())
    if None in entries:
        # The connection is lost, which aiortc must see.
        queue.put_nowait(None)
    return [entry[0] for entry in entries if entry is not None]


def queue_datagram(dtls: RTCDtlsTransport, datagram: bytes) -> None:
    """Give aiortc a datagram as if ICE had received it."""
    connection_below(dtls)._queue.put_nowait((datagram, COMPONENT))


def end_datagrams(dtls: RTCDtlsTransport) -> None:
    """Have aiortc's DTLS transport close as if the peer's close_notify had gone through it."""
    connection_below(dtls)._queue.put_nowait(None)


def socket_addresses(pc: RTCPeerConnection) -> tuple[tuple[Any, ...], tuple[Any, ...]] | None:
    """Return the addresses of the socket of the pair in use, and of where it sends to; None if unknown."""
    pair = pair_in_use(connection_of(pc))
    if pair is None:
        return None
    transport = pair.protocol.transport
    if isinstance(transport, RelayTransport | TunnelTransport):
        local, remote = transport.addresses
    else:
        local, remote = transport.get_extra_info("sockname"), pair.remote_addr
    return (local, remote) if isinstance(local, tuple) and local else None
