"""What a pairing proves, and how: the transcript of an exchange, and the keys that follow from its secret.

The secret is SPAKE2's. HKDF (RFC 5869, SHA-256) makes a key for each proof of each side and for the session;
each output is one hash long, so that HKDF-Expand is one HMAC.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

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


@dataclass(frozen=True, slots=True)
class Binding:
    """What both sides must see alike.

    Attributes:
        room_id: normalised.
        fingerprints: SHA-256 of each side's DTLS certificate, as our own DTLS connection has them.
    """

    room_id: str
    fingerprints: Mapping[Role, bytes]


@dataclass(frozen=True, slots=True)
class Session:
    """A pairing that was made: how it is called on the wire (hex), and its secret key, 32 bytes."""

    id: str
    key: bytes


def identities(room_id: str) -> tuple[bytes, bytes]:
    """Return the identities of the sender and of the receiver for SPAKE2."""
    sender, receiver = (
        _join(_LABEL, str(VERSION).encode(), room_id.encode(), role.value.encode()) for role in Role
    )
    return sender, receiver


class Keys:
    """The keys of one exchange."""

    def __init__(
        self,
        secret: bytes,
        binding: Binding,
        hellos: Mapping[Role, bytes],
        elements: Mapping[Role, bytes],
    ) -> None:
        """Args:
        secret: of SPAKE2.
        hellos: what each side said first, to the byte.
        elements: each side's message of SPAKE2.
        """
        self._key = hmac.digest(_LABEL, secret, "sha256")
        self._exchange = _join(*(elements[role] for role in Role))
        self._transcript = _join(
            _LABEL,
            binding.room_id.encode(),
            *(binding.fingerprints[role] for role in Role),
            *(hellos[role] for role in Role),
            self._exchange,
        )

    def words_proof(self, prover: Role) -> bytes:
        """Proof that this side used the words, in this room and role."""
        return hmac.digest(self._derive(f"words {prover.value}"), self._exchange, "sha256")

    def connection_proof(self, prover: Role) -> bytes:
        """Proof that this side sees the whole transcript: both certificates and both hellos as well."""
        return hmac.digest(self._derive(f"connection {prover.value}"), self._transcript, "sha256")

    def session(self) -> Session:
        """The session that both sides can take up again."""
        name = hmac.digest(self._derive("session id"), self._transcript, "sha256")
        key = hmac.digest(self._derive("session key"), self._transcript, "sha256")
        return Session(name.hex()[:32], key)

    def _derive(self, purpose: str) -> bytes:
        return hmac.digest(self._key, purpose.encode() + b"\x01", "sha256")


def _join(*parts: bytes) -> bytes:
    """Join parts so that no two different lists give the same bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
