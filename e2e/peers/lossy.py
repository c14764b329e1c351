"""Loses SCTP packets of our association on purpose, at the DTLS boundary.

For e2e/peers/aiortc_peer.py: FLYX_PEER_LOSS=0.1 loses a tenth of the packets, both ways, once the association
is established. FLYX_TRACE records what is lost on its way to us all the same, and nothing that is lost on its
way out.
"""

from __future__ import annotations

import os
import random

from flyx.rtc import sctp_transport
from flyx.sctp.association import Association, State

LOSS_VARIABLE = "FLYX_PEER_LOSS"


def lose() -> None:
    """Have all associations of this process lose what the variable says."""
    loss = float(os.environ[LOSS_VARIABLE])
    chance = random.Random("lossy").random

    class Lossy(Association):
        def receive_packets(self, packets: list[bytes], now: float) -> None:
            super().receive_packets(self._surviving(packets), now)

        def packets_to_send(self, now: float) -> list[bytes]:
            return self._surviving(super().packets_to_send(now))

        def _surviving(self, packets: list[bytes]) -> list[bytes]:
            if self.state is not State.ESTABLISHED:
                return packets
            return [packet for packet in packets if chance() >= loss]

    sctp_transport.Association = Lossy  # type: ignore[misc]  # on purpose: product code loses nothing
