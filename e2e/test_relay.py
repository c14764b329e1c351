"""Two computers that cannot reach each other, and a real TURN server (coturn) that both can: e2e/edge.py.

Credentials come from `flyx serve --turn-secret`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.edge import Edge, paths
from e2e.processes import sha256, write_random
from e2e.services import SECRET, Coturn

PATIENCE = 20.0


def until(condition: Callable[[], bool]) -> None:
    """Wait for what nobody announces."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_a_file_goes_through_the_turn_server_where_there_is_no_other_way(edge: Edge, tmp_path: Path) -> None:
    server = edge.serve()
    edge.relay()
    source = write_random(tmp_path / "sent.bin", 20 * 10**6)
    sender = edge.send(source)
    receiver = edge.receive(sender.code(), tmp_path / "in")
    receiver.ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "sent.bin") == sha256(source)
    for side in (sender, receiver):
        assert ["relay" in path for path in paths(side)] == [True]
    assert 'flyx_transfers_total{outcome="relayed"} 1.0' in edge.metrics()
    # Neither the secret nor anybody's credentials are in the log.
    assert SECRET not in server.err


def test_a_server_with_turn_relays_where_there_is_no_other_way(edge: Edge, tmp_path: Path) -> None:
    server = edge.serve("--with-turn")
    [first] = edge.coturns()
    source = write_random(tmp_path / "sent.bin", 5 * 10**6)
    for number in range(2):
        sender = edge.send(source)
        receiver = edge.receive(sender.code(), tmp_path / f"in{number}")
        receiver.ends(0)
        sender.ends(0)
        assert sha256(tmp_path / f"in{number}" / "sent.bin") == sha256(source)
        assert ["relay" in path for path in paths(receiver)] == [True]
        if number == 0:
            # One that dies comes back, and relays again.
            os.kill(first, signal.SIGKILL)
            until(lambda: edge.coturns() not in ([], [first]) and '"turn":"ok"' in edge.fetch("/readyz"))
    server.kill()
    until(lambda: not edge.coturns())


def test_a_server_with_relay_passes_on_what_has_no_other_way(edge: Edge, tmp_path: Path) -> None:
    edge.serve("--relay", "2MB")
    source = write_random(tmp_path / "sent.bin", 10 * 10**6)
    sender = edge.send(source)
    began = time.monotonic()
    receiver = edge.receive(sender.code(), tmp_path / "in")
    receiver.ends(0)
    sender.ends(0)
    seconds = time.monotonic() - began
    assert sha256(tmp_path / "in" / "sent.bin") == sha256(source)
    for side in (sender, receiver):
        [path] = side.named("path")
        assert (path["local"], path["remote"], path["tunnelled"]) == ("relay", "relay", True)
    metrics = edge.metrics()
    assert "flyx_tunnels_opened_total 1.0" in metrics
    assert 'flyx_transfers_total{outcome="relayed"} 1.0' in metrics
    # All of it, at the rate that was allowed.
    passed = float(metrics.partition("\nflyx_tunnel_bytes_total ")[2].split()[0])
    assert 10 * 10**6 < passed < 2 * 2 * 10**6 * seconds
    assert seconds > 5


def turn_server_dies(edge: Edge, relay: Coturn) -> Callable[[], object]:
    """It forgets all that went through it."""
    relay.kill()
    return edge.relay


def cable_is_out(edge: Edge, relay: Coturn) -> Callable[[], object]:
    edge.cable("receiver", "down")
    return lambda: edge.cable("receiver", "up")


# With a relay that dies and credentials that end as well, test_turn.py tries it each time.
@pytest.mark.soak
@pytest.mark.parametrize("cut", [turn_server_dies, cable_is_out])
def test_a_transfer_whose_relayed_path_is_lost_goes_on_through_a_new_one(
    edge: Edge, tmp_path: Path, cut: Callable[[Edge, Coturn], Callable[[], object]]
) -> None:
    edge.serve()
    relay = edge.relay()
    source = write_random(tmp_path / "sent.bin", 40 * 10**6)
    edge.limit(20)
    sender = edge.send(source)
    receiver = edge.receive(sender.code(), tmp_path / "in")
    receiver.event("progress", lambda event: event["bytes"] > 10**6)
    mend = cut(edge, relay)
    for side in (sender, receiver):
        side.event("peer", state="lost")
    mend()
    edge.limit(1000)
    receiver.ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "sent.bin") == sha256(source)
    for side in (sender, receiver):
        assert ["relay" in path for path in paths(side)] == [True, True]
        # It is one transfer, told of once.
        assert len(side.named("done")) == 1
    assert receiver.event("done")["resumed"] == 0
