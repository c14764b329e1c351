"""Stream reset (RFC 6525): how data channels are closed (RFC 8831 §6.7).

One request of ours is under way at a time. An outgoing reset waits until everything of its streams has left;
the peer carries it out once it has everything up to the TSN that the request names.
"""

from __future__ import annotations

from collections.abc import Sequence

from flyx.sctp import chunks
from flyx.sctp.chunks import OutgoingReset, ReconfigResponse, ReconfigResult
from flyx.sctp.serial import TSN_MODULUS, widen

MAX_STREAMS_PER_REQUEST = 200
"""Streams in one request: 400 bytes, which fit every packet."""


class StreamResets:
    """Requests of both sides, and what became of them."""

    def __init__(self, initial_request: int, peer_initial_request: int) -> None:
        """Args:
        initial_request: our first Re-configuration Request Sequence Number: our initial TSN (RFC 6525 §4.1).
        peer_initial_request: the peer's.
        """
        self._next_request = initial_request
        # The last request of the peer that was carried out or denied, and how.
        self._peer_request = peer_initial_request - 1
        self._last_result = ReconfigResult.NOTHING_TO_DO
        # Streams of ours to be reset, in order of the wish.
        self._wanted: list[int] = []
        # Our request under way.
        self.pending: OutgoingReset | None = None
        # Answers to send.
        self._responses: list[ReconfigResponse] = []
        # A reset of the peer's that waits for data still missing.
        self._deferred: OutgoingReset | None = None
        # Streams whose resets are done: ours, as the peer has confirmed; the peer's, as we have carried out.
        self.outgoing_done: list[int] = []
        self.incoming_done: list[int] = []

    @property
    def wants(self) -> bool:
        """Whether streams wait for a request."""
        return bool(self._wanted) and self.pending is None

    def want(self, streams: Sequence[int]) -> None:
        """Reset these streams of ours as soon as everything of them has left."""
        self._wanted += [s for s in streams if s not in self._wanted]

    def request(self, ready: Sequence[int], last_tsn: int) -> None:
        """Begin a request for those of the wanted streams that are ready."""
        chosen = [stream for stream in self._wanted if stream in ready][:MAX_STREAMS_PER_REQUEST]
        if self.pending is not None or not chosen:
            return
        self._wanted = [stream for stream in self._wanted if stream not in chosen]
        number = self._next_request % TSN_MODULUS
        self.pending = OutgoingReset(number, self._peer_request % TSN_MODULUS, last_tsn % TSN_MODULUS, chosen)
        self._next_request += 1

    def wanted(self) -> list[int]:
        """Streams of ours that wait to be reset."""
        return list(self._wanted)

    def receive(self, reconfig: chunks.Reconfig, cumulative: int) -> None:
        """Take the peer's requests and responses.

        Args:
            reconfig: parsed.
            cumulative: the TSN up to which everything has arrived, never wrapping.
        """
        for parameter in reconfig.parameters:
            match parameter:
                case OutgoingReset():
                    self._receive_outgoing(parameter, cumulative)
                case chunks.IncomingReset(request=request, streams=streams):
                    self._answer(request, ReconfigResult.PERFORMED)
                    self.want(streams)
                case ReconfigResponse():
                    self._receive_response(parameter)
        for number in reconfig.unknown:
            self._answer(number, ReconfigResult.DENIED)

    def data_arrived(self, cumulative: int) -> None:
        """More data has come: a deferred reset may be due."""
        deferred = self._deferred
        if deferred is not None and widen(deferred.last_tsn, cumulative) <= cumulative:
            self._deferred = None
            self._perform(deferred)

    def take_responses(self) -> list[ReconfigResponse]:
        """Return the answers to send."""
        responses, self._responses = self._responses, []
        return responses

    def _receive_outgoing(self, request: OutgoingReset, cumulative: int) -> None:
        number = widen(request.request, self._peer_request)
        if number == self._peer_request:
            # Our answer was lost.
            self._answer(request.request, self._last_result)
        elif number != self._peer_request + 1:
            self._responses.append(ReconfigResponse(request.request, ReconfigResult.BAD_SEQUENCE_NUMBER))
        elif widen(request.last_tsn, cumulative) > cumulative:
            self._deferred = request
            self._responses.append(ReconfigResponse(request.request, ReconfigResult.IN_PROGRESS))
        else:
            self._perform(request)

    def _perform(self, request: OutgoingReset) -> None:
        self.incoming_done += request.streams
        self._answer(request.request, ReconfigResult.PERFORMED)

    def _answer(self, request: int, result: ReconfigResult) -> None:
        self._peer_request = widen(request, self._peer_request)
        self._last_result = result
        self._responses.append(ReconfigResponse(request, result))

    def _receive_response(self, response: ReconfigResponse) -> None:
        pending = self.pending
        if pending is None or response.response != pending.request:
            return
        if response.result == ReconfigResult.IN_PROGRESS:
            return
        self.pending = None
        # Denied or done, nothing more will be sent on these streams under their old numbers.
        self.outgoing_done += pending.streams
