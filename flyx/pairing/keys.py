"""What a pairing proves, and how: the transcript of an exchange, and the keys that follow from its secret.

The secret is CPace's ISK. HKDF (RFC 5869, SHA-256) makes a key for each proof of each side and for the
session; each output is one hash long, so that HKDF-Expand is one HMAC.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from enum import Enum

from msgspec import Struct

from flyx.pairing.cpace import lv_cat, transcript_ir
from flyx.pairing.messages import VERSION

_LABEL = b"flyx pairing"


class Role(Enum):
    """Which end; in the order of the transcript."""

    SENDER = "sender"
    RECEIVER = "receiver"

    @property
    def other(self) -> Role:
        """The other end."""
        return Role.RECEIVER if self is Role.SENDER else Role.SENDER


class Binding(Struct, frozen=True):
    """What both sides must see alike.

    Attributes:
        room_id: normalised.
        fingerprints: SHA-256 of each side's DTLS certificate, as our own DTLS connection has them.
    """

    room_id: str
    fingerprints: Mapping[Role, bytes]


class PairingSession(Struct, frozen=True):
    """A pairing that was made: how it is called on the wire (hex), and its secret key, 32 bytes."""

    id: str
    key: bytes


def channel_identifier(room_id: str) -> bytes:
    """Return what CPace is bound to from its first step on (its CI): the protocol, its version and the room.

    The certificates are not in it: the words could then not be told from the connection.
    """
    return lv_cat(_LABEL, str(VERSION).encode(), room_id.encode())


def exchange_transcript(shares: Mapping[Role, bytes]) -> bytes:
    """Return CPace's transcript: the receiver is the initiator; the associated data of each is its role."""
    receiver, sender = Role.RECEIVER, Role.SENDER
    return transcript_ir(shares[receiver], receiver.value.encode(), shares[sender], sender.value.encode())


def connection_transcript(binding: Binding, hellos: Mapping[Role, bytes], exchange: bytes) -> bytes:
    """Return all that both must see alike: the room, both certificates, both hellos to the byte, CPace."""
    return lv_cat(
        _LABEL,
        binding.room_id.encode(),
        *(binding.fingerprints[role] for role in Role),
        *(hellos[role] for role in Role),
        exchange,
    )


class Keys:
    """The keys of one exchange."""

    def __init__(self, isk: bytes, exchange: bytes, connection: bytes) -> None:
        """Args:
        isk: of CPace.
        exchange: the transcript of CPace, exchange_transcript().
        connection: the transcript of all, connection_transcript().
        """
        self._key = hmac.digest(_LABEL, isk, "sha256")
        self._exchange = exchange
        self._connection = connection

    def words_proof(self, prover: Role) -> bytes:
        """Proof that this side used the words, in this room and role."""
        return hmac.digest(self._derive(f"words {prover.value}"), self._exchange, "sha256")

    def connection_proof(self, prover: Role) -> bytes:
        """Proof that this side sees the whole transcript: both certificates and both hellos as well."""
        return hmac.digest(self._derive(f"connection {prover.value}"), self._connection, "sha256")

    def session(self) -> PairingSession:
        """The session that both sides can take up again."""
        name = hmac.digest(self._derive("session id"), self._connection, "sha256")
        key = hmac.digest(self._derive("session key"), self._connection, "sha256")
        return PairingSession(name.hex()[:32], key)

    def _derive(self, purpose: str) -> bytes:
        return hmac.digest(self._key, purpose.encode() + b"\x01", "sha256")
