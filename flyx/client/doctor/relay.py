"""Relays: does each TURN server, by each of its URLs, make an allocation for us (RFC 8656 §7)?

No datagram is sent through it: what a relay lets pass depends on the address of the peer, and the only peer
that is there, ourselves, is one that careful operators deny.
"""

from __future__ import annotations

import asyncio
import time

from flyx.client.doctor.finding import Finding, FindingState, milliseconds
from flyx.rtc.attempts import NO_ANSWER, OK, ServerAttempt
from flyx.rtc.relays import try_relay
from flyx.rtc.servers import TurnAddress

TRY_TIMEOUT = 5.0
"""Seconds for an allocation. A relay that needs longer is of little use."""

_LOST = "pairs without a direct path cannot be connected by this way"
_OPERATOR = "it is for whoever runs the server to mend"


async def check_relay(server: TurnAddress) -> Finding:
    """Have a server relay for us by one of its URLs, and give that back."""
    by = f"{server.host} by {server.transport.value}"
    begun = time.monotonic()
    try:
        async with asyncio.timeout(TRY_TIMEOUT):
            attempt = await try_relay(server)
    except TimeoutError:
        attempt = ServerAttempt(server.url, "turn", NO_ANSWER)
    seconds = time.monotonic() - begun
    figures = {
        "host": server.host,
        "port": server.port,
        "transport": server.transport.value.lower(),
        "outcome": attempt.outcome,
        "code": attempt.code,
    }
    if attempt.outcome == OK:
        figures["seconds"] = round(seconds, 6)
        words = f"{by} is ready in {milliseconds(seconds)}"
        return Finding(
            "turn", FindingState.OK, words, "it carries what finds no direct path", figures=figures
        )
    code = f" ({attempt.code})" if attempt.code else ""
    words = f"{by} {attempt.outcome}{code}"
    advice = _OPERATOR
    if attempt.code == 401:
        advice += ": `--turn-secret` is to be the relay's static-auth-secret"
    elif attempt.outcome == NO_ANSWER:
        advice += (
            ", unless this network keeps the packets: the same over TLS on port 443 passes most firewalls"
        )
    return Finding("turn", FindingState.FAILING, words, _LOST, advice, figures)


def no_relay(*, relays_itself: bool) -> Finding:
    """Return the finding for a server that names no TURN server; it may relay by itself, as a last resort."""
    if relays_itself:
        words = "no TURN server, but a last resort through the server itself"
        return Finding(
            "turn", FindingState.OK, words, "it carries what finds no direct path, as fast as it may"
        )
    meaning = "computers without a direct path cannot be connected: behind two symmetric NATs, or without UDP"
    advice = "the server's operator can add one: `flyx serve --with-turn`, or `--relay 2MB`"
    return Finding("turn", FindingState.WARNING, "the server names no relay", meaning, advice)
