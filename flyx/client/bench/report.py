"""What the sender of a measurement has seen of it: the last block of its stream, a JSON object. Pure.

The other side can see neither what a sender waits for nor what it has to send again.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from msgspec.json import Decoder, encode

from flyx.client.limits import Limit
from flyx.errors import RemoteProtocolError
from flyx.grammar import MALFORMED, JsonObject, written

MAX_SIZE = 4096
"""Bytes of a report; a block that is larger is none."""

Amount = Annotated[int, Meta(ge=0, le=1 << 60)]
# Of a later release, perhaps one that this one does not know.
LimitName = Annotated[str, Meta(max_length=64)]


class Received(JsonObject):
    """What the speaker has received before, in the other direction.

    Attributes:
        rate: bytes a second.
        limit: what limited it, if that was at the speaker.
    """

    rate: Amount
    limit: LimitName | None = None


class Report(JsonObject):
    """What a sender has seen.

    Attributes:
        limit: what limited it, as far as it saw.
        rtt: round-trip time of the data in seconds.
        delivered: bytes that have arrived, all overhead included.
        resent: bytes that have left again because they seemed lost.
    """

    limit: LimitName | None = None
    rtt: Annotated[float, Meta(ge=0, le=3600)] | None = None
    delivered: Amount = written(0)
    resent: Amount = written(0)
    received: Received | None = None

    @property
    def resent_part(self) -> float | None:
        """Part of what was sent that was sent again; None if nothing was."""
        sent = self.delivered + self.resent
        return self.resent / sent if sent else None


_DECODER = Decoder(Report)


def serialize(report: Report) -> bytes:
    """Return a report as it goes over the wire."""
    return encode(report)


def parse_untrusted(data: bytes) -> Report:
    """Parse a report.

    Raises:
        RemoteProtocolError: it is none.
    """
    try:
        return _DECODER.decode(data)
    except MALFORMED as error:
        raise RemoteProtocolError(reason="a measurement without a report at its end") from error


def limit_named(name: str | None) -> Limit | None:
    """Return the limit of this name; None if this release does not know it."""
    return next((limit for limit in Limit if limit.value == name), None)
