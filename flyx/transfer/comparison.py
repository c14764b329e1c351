"""Files that the receiver has under the names of others, compared by what they hash to.

The receiver asks, and the sender answers with the digests of its own files, which it offers anyway. So the
receiver's content stays its own: the sender learns whether a file of that size is there and, if it is left
out, that it is the same, but no digest. Both hash at the same time.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from flyx.errors import RemoteProtocolError
from flyx.transfer.digests import DIGEST_SIZE, Algorithm, RunningDigest
from flyx.transfer.disk import BlockFailed, BlockRead, BlockRequest, StreamEnded
from flyx.transfer.manifest import BLOCK_SIZE, Entries, EntryKind

_NO_DIGEST = bytes(DIGEST_SIZE)
# What is known of a file.
_SAME = 1
_DIFFERS = 2


class Comparison:
    """The receiver's half: which of its files are those of a manifest.

    What was found out is good for later connections as well.
    """

    def __init__(self, manifest_id: str, earlier: Comparison | None = None) -> None:
        """Args:
        manifest_id: of what is offered.
        earlier: what was found out over an earlier connection, perhaps of another manifest.
        """
        self._manifest_id = manifest_id
        # By file: what is known.
        self._known = bytearray()
        if earlier is not None and earlier._manifest_id == manifest_id:
            self._known = earlier._known
        # Files in the order of asking, and how many of them are decided.
        self._asked = array("I")
        self._decided = 0
        # The digests of those that follow, as far as each side has told them.
        self._ours = bytearray()
        self._theirs = bytearray()

    def undecided(self, files: Iterable[int]) -> list[int]:
        """Return those of the files of which nothing is known yet."""
        return [file for file in files if not self._knowledge(file)]

    def same(self, files: Iterable[int]) -> frozenset[int]:
        """Return those of the files that are the same."""
        return frozenset(file for file in files if self._knowledge(file) == _SAME)

    def ask(self, files: Sequence[int]) -> None:
        """Wait for what both sides say about these files, which are undecided."""
        self._asked.extend(files)

    @property
    def is_complete(self) -> bool:
        """Whether both sides have said all that was asked."""
        return self._decided == len(self._asked)

    def take_ours(self, digests: Iterable[bytes | None]) -> None:
        """Take the digests of the next files here; None of one that cannot be read."""
        for digest in digests:
            self._ours += digest or _NO_DIGEST
        self._decide()

    def take_theirs(self, rows: Iterable[tuple[int, str | None]]) -> None:
        """Take what the sender tells: a file and its digest, None if it cannot be read.

        Raises:
            RemoteProtocolError: it was not asked for that now.
        """
        for file, digest in rows:
            at = self._decided + len(self._theirs) // DIGEST_SIZE
            if self._asked[at : at + 1].tolist() != [file]:
                raise RemoteProtocolError(reason="a digest that was not asked for")
            self._theirs += bytes.fromhex(digest) if digest else _NO_DIGEST
        self._decide()

    def _decide(self) -> None:
        end = min(len(self._ours), len(self._theirs))
        for at in range(0, end, DIGEST_SIZE):
            ours = self._ours[at : at + DIGEST_SIZE]
            is_same = ours == self._theirs[at : at + DIGEST_SIZE] and ours != _NO_DIGEST
            file = self._asked[self._decided]
            self._known.extend(bytes(max(0, file + 1 - len(self._known))))
            self._known[file] = _SAME if is_same else _DIFFERS
            self._decided += 1
        del self._ours[:end], self._theirs[:end]

    def _knowledge(self, file: int) -> int:
        return self._known[file] if file < len(self._known) else 0


class Hashing:
    """The sender's half: hashes the files that it is asked about, in that order, each of them once."""

    def __init__(self, entries: Entries, algorithm: Algorithm) -> None:
        self._entries = entries
        self._algorithm = algorithm
        # By entry: whether it has been asked about; made with the first question.
        self._seen = bytearray()
        # In the order of asking; how many of these have been answered.
        self._asked = array("I")
        self._answered = 0
        # Where reading stands.
        self._reading = 0
        self._offset = 0
        # Of the first that is not answered.
        self._digest = RunningDigest(algorithm)

    @property
    def is_busy(self) -> bool:
        """Whether something that was asked has not been answered."""
        return self._answered < len(self._asked)

    def ask(self, files: Sequence[int]) -> None:
        """Take a question.

        Raises:
            RemoteProtocolError: no honest receiver asks it.
        """
        self._seen = self._seen or bytearray(len(self._entries))
        for file in files:
            if file >= len(self._seen) or self._entries.kind(file) is not EntryKind.FILE:
                raise RemoteProtocolError(reason="it compares what is no file")
            if self._seen[file]:
                raise RemoteProtocolError(reason="it compares a file twice")
            self._seen[file] = True
        self._asked.extend(files)

    def next_reads(self, size: int, count: int) -> list[BlockRequest]:
        """Return the next blocks to read: at most so many, and no more once they have this size in all."""
        requests: list[BlockRequest] = []
        while self._reading < len(self._asked) and size > 0 and len(requests) < count:
            file = self._asked[self._reading]
            rest = self._entries[file].size - self._offset
            request = BlockRequest(file, self._offset, min(BLOCK_SIZE, rest), self._algorithm)
            requests.append(request)
            size -= request.length
            self._offset += request.length
            if request.length == rest:
                self._reading += 1
                self._offset = 0
        return requests

    def take(self, results: Iterable[BlockRead | StreamEnded | BlockFailed]) -> list[tuple[int, str | None]]:
        """Take what was read; return the answers that follow: a file and its digest, None if it has none."""
        answers: list[tuple[int, str | None]] = []
        for result in results:
            request = result.request
            if not self.is_busy or request.file != self._asked[self._answered]:
                # What was read ahead of a file that has failed.
                continue
            if isinstance(result, BlockFailed):
                if self._reading == self._answered:
                    self._reading, self._offset = self._reading + 1, 0
                answers.append((request.file, None))
            else:
                if request.length:
                    self._digest.add(result.digest)
                if request.offset + request.length < self._entries[request.file].size:
                    continue
                answers.append((request.file, self._digest.value().hex()))
            self._answered += 1
            self._digest = RunningDigest(self._algorithm)
        return answers
