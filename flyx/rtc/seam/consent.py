"""Consent of the peer to what we send (RFC 7675), for as long as an ICE connection lives."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from aioice import stun
from aioice.ice import StunProtocol

if TYPE_CHECKING:
    from flyx.rtc.seam.connection import IceConnection

CONSENT_INTERVAL = 5.0
"""Seconds between consent checks, times 0.8 to 1.2 (RFC 7675 §5.1)."""

CONSENT_TIMEOUT = 30.0
"""Seconds without a sign of life after which nothing more is sent (RFC 7675 §5.1)."""


class _ConsentCheck:
    """A consent check that stays answerable for as long as the answer may count."""

    def __init__(self, connection: IceConnection, key: bytes) -> None:
        self._connection = connection
        self._key = key

    def response_received(self, message: stun.Message, addr: tuple[str, int]) -> None:
        """Take what the protocol has received for this transaction."""
        if message.message_class is stun.Class.RESPONSE and message.check_message_integrity(self._key):
            self._connection.heard()


async def ask_for_consent(connection: IceConnection) -> None:
    """Ask the peer every few seconds whether it still wants what we send; return after a long silence.

    RFC 7675 §5.1. The controlling side nominates by the way, so that both sides use the same pair even if two
    nominations have overtaken one another.
    """
    assert connection.remote_password is not None
    key = connection.remote_password.encode()
    pending: list[tuple[float, StunProtocol, bytes]] = []
    loop = asyncio.get_running_loop()
    try:
        while (now := loop.time()) - connection.heard_at < CONSENT_TIMEOUT:
            while pending and now - pending[0][0] > CONSENT_TIMEOUT:
                _forget(*pending.pop(0)[1:])
            pair = connection.selected
            if pair is not None:
                request = connection.build_request(pair, nominate=True)
                request.add_message_integrity(key)
                check = _ConsentCheck(connection, key)
                pair.protocol.transactions[request.transaction_id] = check  # type: ignore[assignment]
                pending.append((now, pair.protocol, request.transaction_id))
                pair.protocol.send_stun(request, pair.remote_addr)
            pause = CONSENT_INTERVAL * random.uniform(0.8, 1.2)  # noqa: S311  # no secret
            await asyncio.sleep(min(pause, connection.heard_at + CONSENT_TIMEOUT - now))
    finally:
        for _, protocol, transaction_id in pending:
            _forget(protocol, transaction_id)


def _forget(protocol: StunProtocol, transaction_id: bytes) -> None:
    protocol.transactions.pop(transaction_id, None)
