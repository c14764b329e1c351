"""What content hashes to, and by which algorithm.

Each block has a digest; that of a file is over its block digests, in order; that of a transfer over its file
digests, in the order of the manifest; all of one transfer to one receiver by one Algorithm. So a receiver can
verify, keep and later resume block by block, and a file's digest never needs a second pass over its bytes.

Both algorithms are secure, and which is used is settled between two ends that have paired: to be talked out
of the faster one weakens nothing.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import deque
from collections.abc import Callable, Collection
from enum import Enum
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING

from flyx.transfer.manifest import MAX_ENTRIES

if TYPE_CHECKING:
    from hashlib import _Hash

    from blake3 import blake3

DIGEST_SIZE = 32
"""Bytes in a digest, of either algorithm."""


class Algorithm(Enum):
    """How digests are made; the values are the names that peers, journals and events have for them."""

    SHA256 = "sha256"
    """SHA-256 (FIPS 180-4): what every peer can, browsers too."""

    BLAKE3 = "blake3"
    """BLAKE3, unkeyed: 0.25 CPU seconds a GB where SHA-256 takes 0.9, on a processor with AVX-512 and SHA
    extensions. In the thread that asks, which lets go of the interpreter meanwhile, and no other: a pool of
    them would take the processors from the packets."""

    def begin(self) -> _Hash | blake3:
        """Return a hash of nothing yet."""
        return self.hasher()

    def digest(self, content: bytes | bytearray | memoryview) -> bytes:
        """Return what this content hashes to, DIGEST_SIZE bytes."""
        return self.hasher(content).digest()

    @cached_property
    def hasher(self) -> Callable[..., _Hash | blake3]:
        """What makes a hash, of some content if that is given; who hashes very much asks once."""
        return hashlib.sha256 if self is Algorithm.SHA256 else _blake3()

    def hole_digest(self, length: int) -> bytes:
        """Return the digest of a block that is a hole: so many zeros, at most BLOCK_SIZE."""
        return _hole_digest(self, length)


@cache
def _blake3() -> type[blake3]:
    """Return the class, whose module is loaded when it is first needed."""
    from blake3 import blake3

    return blake3


@lru_cache(maxsize=16)
def _hole_digest(algorithm: Algorithm, length: int) -> bytes:
    return algorithm.digest(bytes(length))


BLAKE3 = Algorithm.BLAKE3.value
"""The feature (flyx/pairing/messages.py) of those who understand HashWith."""


def algorithms_of(features: Collection[str]) -> tuple[Algorithm, ...]:
    """Return what two ends that have these features in common can hash with, the fastest first."""
    return (Algorithm.BLAKE3, Algorithm.SHA256) if BLAKE3 in features else (Algorithm.SHA256,)


class RunningDigest:
    """The digest of a file from its block digests, or of a transfer from its file digests."""

    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm
        self._hash = algorithm.begin()

    def add(self, digest: bytes | bytearray) -> None:
        """Append the next digest, or several in one string; order matters."""
        self._hash.update(digest)

    def value(self) -> bytes:
        """The digest of all added so far, DIGEST_SIZE bytes."""
        return self._hash.digest()

    def copy(self) -> RunningDigest:
        """Return another one, of all added so far."""
        other = RunningDigest(self._algorithm)
        other._hash = self._hash.copy()
        return other


class DigestQueue:
    """Files and their digests, oldest first, in 36 bytes each: of empty files, very many wait."""

    def __init__(self) -> None:
        self._files = array("I")
        self._digests = bytearray()
        # How many of them have been taken out.
        self._taken = 0

    def __len__(self) -> int:
        return len(self._files) - self._taken

    @property
    def first(self) -> int:
        """The oldest file; there is one."""
        return self._files[self._taken]

    def append(self, file: int, digest: bytes) -> None:
        """Add a file."""
        self._files.append(file)
        self._digests += digest

    def pop(self) -> tuple[int, bytes]:
        """Take out the oldest file; there is one."""
        at = self._taken
        file, digest = self._files[at], bytes(self._digests[at * DIGEST_SIZE : (at + 1) * DIGEST_SIZE])
        self._taken += 1
        if self._taken * 2 > len(self._files):
            # As many are moved as were taken out since the last time.
            del self._files[: self._taken]
            del self._digests[: self._taken * DIGEST_SIZE]
            self._taken = 0
        return file, digest


class TransferDigest:
    """The digest of a transfer from the digests of its files, of which some were there before it began.

    Those are told with keep(), the others with add(); each kind in the order of the manifest, and a file that
    is kept before any that follows it there is added.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        self._digest = RunningDigest(algorithm)
        # Oldest first: index and digest.
        self._kept: deque[tuple[int, bytes]] = deque()

    def keep(self, file: int, digest: bytes) -> None:
        """This file is complete already."""
        self._kept.append((file, digest))

    def add(self, file: int, digest: bytes) -> None:
        """This file has become complete."""
        self._catch_up(file)
        self._digest.add(digest)

    def value(self) -> bytes:
        """The digest, DIGEST_SIZE bytes: all files have been told."""
        self._catch_up(MAX_ENTRIES + 1)
        return self._digest.value()

    def _catch_up(self, file: int) -> None:
        while self._kept and self._kept[0][0] < file:
            self._digest.add(self._kept.popleft()[1])
