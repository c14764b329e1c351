"""ICE: a candidate pair and its checks (RFC 8445 §6.1.2, §7.2)."""

from __future__ import annotations

import asyncio
import ipaddress
import time

from aioice import Candidate, stun
from aioice.ice import CandidatePair, StunProtocol

from flyx.rtc.nomination import CandidateKind, Rank, rank

PRIVATE_NAMES: dict[type, tuple[str, ...]] = {Candidate: ("_network_host",)}
"""Attributes that instances of these classes have and this module uses."""


class Pair(CandidatePair):
    """A candidate pair and how its checks went."""

    def __init__(self, protocol: StunProtocol, remote_candidate: Candidate) -> None:
        super().__init__(protocol, remote_candidate)
        # The check under way.
        self.transaction: Transaction | None = None
        # Seconds of the last round trip that was measured.
        self.round_trip: float | None = None
        # How many checks have been begun, and when a failed one may be again, on asyncio's clock.
        self.checks = 0
        self.retry_at = 0.0
        # The peer has checked this pair without nominating it: if it does so now, it means it.
        self.checked_plainly = False

    @property
    def rank(self) -> Rank:
        """How good it is."""
        return rank(_kind(self.local_candidate), _kind(self.remote_candidate))

    @property
    def hopeless(self) -> bool:
        """Whether a relay on the Internet would have to reach a private address."""
        relayed = self.local_candidate.type == "relay"
        return relayed and _is_private(self.remote_addr) and not _is_private(self.local_addr)

    @property
    def works(self) -> bool:
        """Whether its last check has succeeded."""
        return self.state is CandidatePair.State.SUCCEEDED

    @property
    def open(self) -> bool:
        """Whether its check is still to come, or under way."""
        return self.state in _OPEN


_PRIVATE_NETWORKS = tuple(
    ipaddress.ip_network(network)
    # RFC 1918, RFC 6598, RFC 3927; RFC 4193, RFC 4291 §2.5.6.
    for network in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"),
        *("fc00::/7", "fe80::/10"),
    )
)

_OPEN = (CandidatePair.State.FROZEN, CandidatePair.State.WAITING, CandidatePair.State.IN_PROGRESS)


def _is_private(address: tuple[str, int]) -> bool:
    host = ipaddress.ip_address(address[0])
    return any(host in network for network in _PRIVATE_NETWORKS)


def is_link_local(candidate: Candidate) -> bool:
    return ipaddress.ip_address(candidate._network_host).is_link_local


def _kind(candidate: Candidate) -> CandidateKind:
    return CandidateKind(candidate.type, candidate.priority)


class Transaction:
    """A STUN request that is repeated by our schedule, or at once when there is reason to."""

    def __init__(self, pair: CandidatePair, request: stun.Message, key: bytes) -> None:
        request.add_message_integrity(key)
        self._pair = pair
        self._request = request
        self._key = key
        self._answer: asyncio.Future[stun.Message] = asyncio.get_running_loop().create_future()
        self._sent_at: list[float] = []

    async def run(self, schedule: tuple[float, ...]) -> float | None:
        """Send the request until it is answered; return the round trip if it is certain.

        Raises:
            stun.TransactionFailed: the answer is an error, or came from elsewhere than the request went to.
            stun.TransactionTimeout: there is none.
        """
        transactions = self._pair.protocol.transactions
        transactions[self._request.transaction_id] = self  # type: ignore[assignment]  # all that is used of one
        try:
            for delay in schedule:
                self.send()
                await asyncio.wait((self._answer,), timeout=delay)
                if self._answer.done():
                    self._answer.result()
                    return time.monotonic() - self._sent_at[0] if len(self._sent_at) == 1 else None
            raise stun.TransactionTimeout
        finally:
            del transactions[self._request.transaction_id]

    def send(self) -> None:
        """Send the request once more."""
        self._sent_at.append(time.monotonic())
        self._pair.protocol.send_stun(self._request, self._pair.remote_addr)

    def response_received(self, message: stun.Message, addr: tuple[str, int]) -> None:
        """Take what the protocol has received for this transaction."""
        if self._answer.done() or not message.check_message_integrity(self._key):
            # Not from the peer: it may still answer (RFC 8489 §9.1.4).
            return
        # RFC 8445 §7.2.5.2.1: an answer from another address proves nothing about this pair.
        if message.message_class is stun.Class.RESPONSE and addr == self._pair.remote_addr:
            self._answer.set_result(message)
        else:
            self._answer.set_exception(stun.TransactionFailed(message))
