"""CPace, a balanced PAKE: the cipher suite CPACE-X25519-SHA512, with an initiator and a responder.

Two parties that share a password-related string (prs) get the same intermediate session key (ISK). A party
that guessed wrong gets another one: it has one guess a run, and nothing to test further guesses with.

    generator  = Elligator2(SHA-512(generator_string(prs, ci, sid)))     as secret as the password
    share      = X25519(scalar, generator)                               goes over the wire
    ISK        = SHA-512(lv_cat("CPace255_ISK", sid, X25519(scalar, share of the peer)) || transcript_ir)

X25519 is that of `cryptography` (OpenSSL), in constant time; browsers have it in WebCrypto. The map to the
curve is Python. Nearly all of its time goes into two powers: their exponents are fixed, and random factors
blind their bases, so that their time tells nothing of the password. What is left is the hash of the password,
and about ten products and remainders of 255-bit integers, for which CPython promises no constant time. They
differ by nanoseconds in a run of hundreds of microseconds, and a fresh sid gives each run other numbers.

draft-irtf-cfrg-cpace-21; RFC 9380 §6.7.1 for Elligator 2; RFC 7748 for X25519.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

FIELD_SIZE = 32
"""Bytes of a field element, a scalar and a share."""

_DSI = b"CPace255"
_HASH_BLOCK_SIZE = 128
"""Bytes that SHA-512 takes at a time."""

_P = 2**255 - 19
_A = 486662
"""Of Curve25519: v² = u³ + A u² + u modulo P."""

_Z = 2
"""The non-square of Elligator 2 on this curve."""


class LowOrderPoint(ValueError):
    """A share with which every scalar gives the neutral element: the key would be known to all."""


def lv_cat(*parts: bytes) -> bytes:
    """Join parts, each behind its length in LEB128: no two lists give the same bytes."""
    return b"".join(_leb128(len(part)) + part for part in parts)


def _leb128(number: int) -> bytes:
    low, high = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _leb128(high) if high else bytes([low])


def transcript_ir(
    initiator_share: bytes, initiator_data: bytes, responder_share: bytes, responder_data: bytes
) -> bytes:
    """Return the transcript of a run whose initiator speaks first: both shares and associated data."""
    return lv_cat(initiator_share, initiator_data) + lv_cat(responder_share, responder_data)


def generator_string(prs: bytes, ci: bytes, sid: bytes) -> bytes:
    """Return what is hashed to the generator.

    Zeros fill the first block of the hash, so that how long a short prs is does not show.
    """
    padding = max(0, _HASH_BLOCK_SIZE - 1 - len(lv_cat(prs)) - len(lv_cat(_DSI)))
    return lv_cat(_DSI, prs, bytes(padding), ci, sid)


def calculate_generator(prs: bytes, ci: bytes, sid: bytes, *, entropy: Callable[[int], bytes]) -> bytes:
    """Return the generator of a run: 32 bytes, as secret as the password.

    Args:
        prs: the password-related string.
        ci: channel identifier: what both parties know of themselves and their channel.
        sid: public, and fresh in each run.
        entropy: returns so many secret random bytes; they change the time that it takes, not the result.
    """
    digest = hashlib.sha512(generator_string(prs, ci, sid)).digest()[:FIELD_SIZE]
    # decodeUCoordinate of RFC 7748: the highest bit does not count.
    element = int.from_bytes(digest, "little") & (1 << 255) - 1
    return _elligator2(element, _blinding(entropy), _blinding(entropy)).to_bytes(FIELD_SIZE, "little")


def _blinding(entropy: Callable[[int], bytes]) -> int:
    """Return a random field element that is not 0."""
    return 1 + int.from_bytes(entropy(FIELD_SIZE), "little") % (_P - 1)


def _elligator2(element: int, inverse_blinding: int, square_blinding: int) -> int:
    """Map a field element to the u coordinate of a point."""
    # 1 + Z r² is never 0: -1/Z is no square. The factor that hides it is taken off again.
    denominator = (1 + _Z * element * element) % _P
    inverse = pow(denominator * inverse_blinding % _P, _P - 2, _P) * inverse_blinding
    u = -_A * inverse % _P
    # Euler's criterion: whether u is on the curve; a square as a factor does not change that.
    v_squared = ((u + _A) * u + 1) * u % _P
    euler = pow(v_squared * square_blinding % _P * square_blinding % _P, (_P - 1) // 2, _P)
    # 1, or P - 1 where there is no such point: then it is on the curve for -u - A. No branch on either.
    return ((-u - _A) % _P, u)[euler & 1]


def scalar_mult_vfy(scalar: bytes, point: bytes) -> bytes:
    """Return X25519(scalar, point).

    Raises:
        LowOrderPoint: the result is the neutral element (all zeros): `cryptography` refuses that itself.
    """
    private, public = X25519PrivateKey.from_private_bytes(scalar), X25519PublicKey.from_public_bytes(point)
    try:
        return private.exchange(public)
    except ValueError as error:
        raise LowOrderPoint("a point of low order") from error


def intermediate_session_key(sid: bytes, shared: bytes, transcript: bytes) -> bytes:
    """Return the ISK, 64 bytes, of X25519(scalar, share of the peer) and the transcript of both."""
    return hashlib.sha512(lv_cat(_DSI + b"_ISK", sid, shared) + transcript).digest()
