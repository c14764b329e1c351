"""The clients in a room, and what is kept for those whose connection is lost.

Both ends of a connection count the messages about peers that they take from each other: `join`, `offer`,
`answer`, `ice_candidate` and `disconnect`, from the first one after a `joined` that says `recovered: false`.
When a connection is lost, what had been sent at last may or may not have arrived. Its sender keeps that
tail, and the counts tell on return what is missing: no message is lost or comes twice.

    sent before the loss  1 2 3 4 [5 6 7 8]      the tail
    meant for it since                 [9 10 11]  the mailbox
    it has seen 6:               7 8    9 10 11   are sent; had it seen less than 4, there would be a hole

A hole is never papered over: then nothing is replayed, the client is told `recovered: false`, and the peers
start anew.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from flyx.signaling.messages import Role, encoded_size

MAX_MAILBOX_LENGTH: Final = 64

MAX_MAILBOX_SIZE: Final = 256 * 1024
MAX_KEPT_SIZE: Final = 1024 * 1024
"""Bytes of UTF-8: of one mailbox, and of all mailboxes and tails of a room together."""

MAX_TAIL_LENGTH: Final = 32
MAX_TAIL_SIZE: Final = 64 * 1024
"""What is kept of the messages that were sent to a connected client.

A whole exchange of offer, answer and candidates has about ten messages each way, and only what the network
holds can be missing.
"""

MAX_ADDRESS_LENGTH: Final = 64
"""Characters. An IPv6 network with its length has at most 43; what stands for a client without one is cut."""


def hash_token(token: str) -> str:
    """Return what is kept of a secret token. Tokens are random, so that nothing slower is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def matches(token: str, token_hash: str | None) -> bool:
    """Tell whether token is the one that was hashed; takes the same time whether it is, or there is none."""
    return hmac.compare_digest(hash_token(token), token_hash or "-" * 64)


class Tail:
    """The newest messages given to a connection, within MAX_TAIL_LENGTH and MAX_TAIL_SIZE, counted."""

    __slots__ = ("_kept", "_size", "count")

    def __init__(self, count: int = 0, kept: Iterable[str] = ()) -> None:
        """Args:
        count: messages that were sent before.
        kept: the last of them.
        """
        self.count = count
        self._kept = list(kept)
        self._size = sum(map(encoded_size, self._kept))

    def append(self, text: str) -> None:
        """Count one more message."""
        self.count += 1
        self._kept.append(text)
        self._size += encoded_size(text)
        while len(self._kept) > MAX_TAIL_LENGTH or self._size > MAX_TAIL_SIZE:
            self._size -= encoded_size(self._kept.pop(0))

    @property
    def texts(self) -> tuple[str, ...]:
        """What is kept, oldest first."""
        return tuple(self._kept)

    def since(self, count: int) -> tuple[str, ...] | None:
        """Return what came after the first `count` messages; None if that is not all kept, or not true."""
        return _after(self.count, self.texts, count)


def _after(sent: int, tail: tuple[str, ...], count: int) -> tuple[str, ...] | None:
    first = sent - len(tail)
    return tail[count - first :] if first <= count <= sent else None


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went over a connection that is no more.

    Attributes:
        received: messages taken from the client.
        sent: messages given to its connection.
        tail: the last of these, which may not have arrived.
    """

    received: int = 0
    sent: int = 0
    tail: tuple[str, ...] = ()

    def since(self, count: int) -> tuple[str, ...] | None:
        """Return what a client that has seen `count` messages lacks; None if that is not all kept."""
        return _after(self.sent, self.tail, count)


@dataclass(frozen=True, slots=True)
class Absence:
    """The time between the loss of a connection and the return of its client.

    Attributes:
        until: Unix time until which the place is held.
        traffic: None: it is unknown what arrived, or too much came since. There is a hole.
        mailbox: messages that came since, oldest first; empty if there is a hole.
        settled: False until the node of the connection has told what was still on its way to it then.
    """

    until: float
    traffic: Traffic | None
    mailbox: tuple[str, ...] = ()
    settled: bool = True

    @property
    def size(self) -> int:
        """Bytes kept for the client."""
        tail = self.traffic.tail if self.traffic else ()
        return sum(encoded_size(text) for text in (*tail, *self.mailbox))

    def with_message(self, text: str, room_left: int) -> Absence:
        """Return the absence after one more message; one that does not fit makes a hole.

        Args:
            text: the message.
            room_left: bytes that the room may keep besides.
        """
        if self.traffic is None:
            return self
        size = encoded_size(text)
        full = (
            len(self.mailbox) >= MAX_MAILBOX_LENGTH
            or sum(map(encoded_size, self.mailbox)) + size > MAX_MAILBOX_SIZE
            or size > room_left
        )
        if full:
            return Absence(self.until, None)
        return replace(self, mailbox=(*self.mailbox, text))

    def since(self, count: int | None) -> tuple[str, ...] | None:
        """Return what a client that has seen `count` messages lacks; None if there is a hole.

        It is unknown what a client lacks that does not count, or whose node died before it could tell.
        """
        if self.traffic is None or not self.settled or count is None:
            return None
        missing = self.traffic.since(count)
        return None if missing is None else (*missing, *self.mailbox)

    def amended(self, texts: tuple[str, ...] | None, room_left: int) -> Absence:
        """Return the absence, settled, once it is known what else was sent; what does not fit makes a hole.

        Args:
            texts: the last of what was sent; None: something unknown was.
            room_left: bytes that the room may keep besides.
        """
        traffic = self.traffic
        if traffic is None:
            return self
        if texts is None or sum(map(encoded_size, texts)) > room_left:
            return Absence(self.until, None)
        tail = Tail(traffic.sent, traffic.tail)
        for text in texts:
            tail.append(text)
        return Absence(self.until, Traffic(traffic.received, tail.count, tail.texts), self.mailbox)


@dataclass(frozen=True, slots=True)
class Member:
    """A client inside, connected or away.

    Attributes:
        client_id: made by the server.
        role: never changes.
        generation: of its newest connection: grows with each connection that a client makes to the room. What
            an older connection still does is ignored.
        node: the process that holds the connection; "" where there is only one.
        token_hash: of the token that the client shows on return.
        old_token_hash: of the one before: the answer that carried the newer one may have been lost.
        old_token_until: Unix time until which the one before is good; while away it is anyway.
        old_token_counts: a client that has only that one counts in this session: the newer one was given with
            `recovered: true`. Otherwise it does not know that a new session has begun.
        absence: None while connected.
        address: what its address counts as; "" if it has none.
        paired: of a receiver: its sender says that the two have paired. Of a sender: it tells who has.
        hold: seconds for which its place is held after its connection was lost, if more than the grace time.
    """

    client_id: str
    role: Role
    generation: int
    node: str
    token_hash: str
    old_token_hash: str | None = None
    old_token_until: float = 0.0
    old_token_counts: bool = False
    absence: Absence | None = None
    address: str = ""
    paired: bool = False
    hold: float = 0.0

    def accepts(self, token: str, now: float) -> bool:
        """Tell whether token is this member's."""
        newest = matches(token, self.token_hash)
        good = self.absence is not None or now < self.old_token_until
        older = matches(token, self.old_token_hash if good else None)
        return newest or older


NOBODY: Final = Member("", Role.RECEIVER, 0, "", "")
"""Stands for a member that is not there: its tokens are compared like those of one that is."""
