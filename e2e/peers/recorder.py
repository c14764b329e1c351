"""Records what our association receives and sends: SCTP packets at the DTLS boundary, decrypted.

For e2e/peers/aiortc_peer.py: FLYX_PEER_RECORD names the file to write, a packet a line: monotonic seconds,
`<` received or `>` sent, hexadecimal. FLYX_PEER_LOSS=0.1 loses a tenth of the packets, both ways, once the
association is established; what is lost on its way to us is recorded all the same.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from flyx.rtc import driver
from flyx.sctp.association import Association, State

RECORD_VARIABLE = "FLYX_PEER_RECORD"
LOSS_VARIABLE = "FLYX_PEER_LOSS"


def record(path: Path) -> None:
    """Have all associations of this process recorded."""
    # A line at a time: whoever reads it may have killed us.
    output = path.open("w", buffering=1)
    loss = float(os.environ.get(LOSS_VARIABLE, "0"))
    chance = random.Random("recorder").random

    class Recorded(Association):
        def receive_packets(self, packets: list[bytes], now: float) -> None:
            for packet in packets:
                output.write(f"{now:.6f} < {packet.hex()}\n")
            super().receive_packets(self._surviving(packets), now)

        def packets_to_send(self, now: float) -> list[bytes]:
            packets = super().packets_to_send(now)
            for packet in packets:
                output.write(f"{now:.6f} > {packet.hex()}\n")
            return self._surviving(packets)

        def _surviving(self, packets: list[bytes]) -> list[bytes]:
            if not loss or self.state is not State.ESTABLISHED:
                return packets
            return [packet for packet in packets if chance() >= loss]

    driver.Association = Recorded  # type: ignore[misc]  # on purpose: product code has no recorder
