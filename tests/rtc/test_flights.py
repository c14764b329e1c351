"""A flight of the DTLS handshake that is lost does not cost the second that OpenSSL waits."""

from __future__ import annotations

import asyncio
import logging

import pytest

from flyx.rtc.peer import PeerConnection
from flyx.rtc.seam import ice
from tests.rtc.test_peer import connection


def lose(peer: PeerConnection, number: int) -> asyncio.Event:
    """Have the path lose a datagram of a peer's that is not STUN; return an event of that."""
    below = ice.connection_of(peer._pc)
    send, lost = below.sendto, asyncio.Event()
    sent = 0

    async def lossy(data: bytes, component: int) -> None:
        nonlocal sent
        sent += 1
        if sent == number:
            lost.set()
        else:
            await send(data, component)

    below.sendto = lossy  # type: ignore[method-assign]
    return lost


@pytest.mark.parametrize("number", [1, 2], ids=["first flight", "second flight"])
@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_flight_that_is_lost_is_sent_again_before_openssl_would(
    who: str, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "aiortc.rtcdtlstransport")
    async with connection() as server, connection() as client:
        answer = await client.answer(await server.offer())
        lost = lose(client if who == "client" else server, number)
        await server.accept_answer(answer)
        await asyncio.gather(server.connected(), client.connected())
    assert lost.is_set()
    assert "DTLS handling timeout" not in caplog.text
