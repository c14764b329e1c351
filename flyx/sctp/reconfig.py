"""Stream reset (RFC 6525): how data channels are closed (RFC 8831 §6.7).

One request of ours is under way at a time. An outgoing reset waits until everything of its streams has left,
and holds back what is queued on them afterwards; the peer carries it out once it has everything up to the TSN
that the request names. Peers that send requests before the last one is answered (pion does, against RFC 6525
§5.1.1) get all of them carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flyx.errors import RemoteProtocolError
from flyx.sctp import chunks
from flyx.sctp.chunks import IncomingReset, OutgoingReset, ReconfigResponse, ReconfigResult
from flyx.sctp.rto import RTO_MAX
from flyx.sctp.send_queue import SendQueue
from flyx.sctp.serial import TSN_MODULUS, widen
from flyx.sctp.timers import Timer, Timers

MAX_STREAMS_PER_REQUEST = 200
"""Streams in one request: 400 bytes, which fit every packet."""

MAX_WAITING_REQUESTS = 64
"""Resets of the peer's that wait for data; it is to ask again for more."""

_ASK_AGAIN = (ReconfigResult.IN_PROGRESS, ReconfigResult.REQUEST_IN_PROGRESS)
_DONE = (ReconfigResult.PERFORMED, ReconfigResult.NOTHING_TO_DO)


class StreamResets:
    """Requests of both sides, and what became of them."""

    def __init__(
        self,
        initial_request: int,
        peer_initial_request: int,
        *,
        queue: SendQueue,
        timers: Timers,
        incoming_streams: Callable[[], list[int]],
        supported: bool,
        max_retries: int,
    ) -> None:
        """Args:
        initial_request: our first Re-configuration Request Sequence Number: our initial TSN (RFC 6525 §4.1).
        peer_initial_request: the peer's.
        queue: what we send from.
        timers: for Timer.RECONFIG.
        incoming_streams: returns the peer's streams in use: what a reset of all streams means.
        supported: the peer knows RE-CONFIG; if not, streams are ours to close alone.
        max_retries: requests without an answer after which the peer counts as gone.
        """
        self._queue = queue
        self._timers = timers
        self._incoming_streams = incoming_streams
        self._supported = supported
        self._max_retries = max_retries
        self._next_request = initial_request
        # The last request of the peer that was taken.
        self._peer_request = peer_initial_request - 1
        # What became of the last ones, oldest first.
        self._results: dict[int, ReconfigResult] = {}
        # Streams of ours to be reset, in order of the wish.
        self._wanted: dict[int, None] = {}
        # Our request under way, and how often it was repeated in vain.
        self.pending: OutgoingReset | None = None
        self._retries = 0
        # Answers to send.
        self._responses: list[ReconfigResponse] = []
        # Resets of the peer's that wait for data still missing.
        self._deferred: dict[int, OutgoingReset] = {}
        # Streams whose resets are done: ours, as the peer has confirmed; the peer's, as we have carried out.
        self.outgoing_done: list[int] = []
        self.incoming_done: list[int] = []

    def want(self, streams: Sequence[int]) -> None:
        """Reset these streams of ours as soon as everything of them has left."""
        self._wanted.update(dict.fromkeys(streams))

    def chunks_to_send(self, now: float, last_tsn: int, rto: float) -> list[bytes]:
        """Return RE-CONFIG chunks to send: a new request if one is due, and the answers to the peer's.

        Args:
            now: monotonic seconds.
            last_tsn: the last TSN given to data of ours.
            rto: seconds until the request is repeated.
        """
        serialized = []
        if self._wanted and self.pending is None:
            ready = [stream for stream in self._wanted if not self._queue.waits(stream)]
            if ready:
                serialized += self._request(ready[:MAX_STREAMS_PER_REQUEST], last_tsn, now + rto)
        responses, self._responses = self._responses, []
        # At most two parameters to a chunk (RFC 6525 §3.1).
        return serialized + [chunks.serialize_reconfig([response]) for response in responses]

    def _request(self, streams: list[int], last_tsn: int, deadline: float) -> list[bytes]:
        for stream in streams:
            del self._wanted[stream]
        if not self._supported:
            self.outgoing_done += streams
            return []
        for stream in streams:
            self._queue.hold(stream)
        self.pending = OutgoingReset(
            self._next_request % TSN_MODULUS,
            self._peer_request % TSN_MODULUS,
            last_tsn % TSN_MODULUS,
            streams,
        )
        self._next_request += 1
        self._retries = 0
        self._timers.start(Timer.RECONFIG, deadline)
        return [chunks.serialize_reconfig([self.pending])]

    def handle_timeout(self, now: float, rto: float) -> list[bytes]:
        """Return the request once more (RFC 6525 §5.1.1).

        Raises:
            RemoteProtocolError: it has been repeated too often.
        """
        if self.pending is None:
            return []
        self._retries += 1
        if self._retries > self._max_retries:
            raise RemoteProtocolError(reason="the peer does not answer stream resets")
        self._timers.start(Timer.RECONFIG, now + min(rto * 2 ** min(self._retries, 5), RTO_MAX))
        return [chunks.serialize_reconfig([self.pending])]

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
                case IncomingReset():
                    self._receive_incoming(parameter)
                case ReconfigResponse():
                    self._receive_response(parameter)
        for request in reconfig.unknown:
            number = self._take(request)
            if number is not None:
                self._answer(number, ReconfigResult.DENIED)

    def data_arrived(self, cumulative: int) -> None:
        """More data has come: deferred resets may be due."""
        if self._deferred:
            due = [
                n for n, reset in self._deferred.items() if widen(reset.last_tsn, cumulative) <= cumulative
            ]
            for number in due:
                self._perform(number, self._deferred.pop(number))

    def _take(self, request: int) -> int | None:
        """Return the number of a request that is the one due; others are answered here, if at all."""
        number = widen(request, self._peer_request)
        if number == self._peer_request + 1 and len(self._deferred) < MAX_WAITING_REQUESTS:
            self._peer_request = number
            return number
        if number <= self._peer_request:
            # Our answer was lost, unless it is older than any whose answer may be.
            result = self._results.get(number, ReconfigResult.BAD_SEQUENCE_NUMBER)
            self._responses.append(ReconfigResponse(request, result))
        # One beyond the next has overtaken it, and has to come again. RFC 6525 §5.2.1 would refuse it, which
        # pion takes for an answer.
        return None

    def _receive_outgoing(self, request: OutgoingReset, cumulative: int) -> None:
        number = self._take(request.request)
        if number is None:
            return
        if widen(request.last_tsn, cumulative) > cumulative:
            self._deferred[number] = request
            self._answer(number, ReconfigResult.IN_PROGRESS)
        else:
            self._perform(number, request)

    def _receive_incoming(self, request: IncomingReset) -> None:
        number = self._take(request.request)
        if number is not None:
            self._answer(number, ReconfigResult.PERFORMED)
            ours = self._queue.stream_ids()
            # Only those that something was sent on: others have nothing to begin anew with.
            self.want([stream for stream in request.streams or ours if stream in ours])

    def _perform(self, number: int, request: OutgoingReset) -> None:
        # None named means all (RFC 6525 §4.1).
        named = request.streams or self._incoming_streams()
        # Once each, however many requests come together.
        self.incoming_done = list(dict.fromkeys([*self.incoming_done, *named]))
        self._answer(number, ReconfigResult.PERFORMED)

    def _answer(self, number: int, result: ReconfigResult) -> None:
        self._results[number] = result
        if len(self._results) > 2 * MAX_WAITING_REQUESTS:
            del self._results[next(iter(self._results))]
        self._responses.append(ReconfigResponse(number % TSN_MODULUS, result))

    def _receive_response(self, response: ReconfigResponse) -> None:
        pending = self.pending
        if pending is None or response.response != pending.request:
            return
        if response.result in _ASK_AGAIN:
            self._retries = 0
            return
        self.pending = None
        self._timers.stop(Timer.RECONFIG)
        for stream in pending.streams:
            if response.result in _DONE:
                self._queue.reset(stream)
            else:
                # Denied: the channel is closed all the same, but the stream's numbers go on.
                self._queue.release(stream)
        self.outgoing_done += pending.streams
