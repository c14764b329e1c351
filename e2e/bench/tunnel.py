"""How much of the rate of `flyx serve --relay` does a transfer get?

    python -m e2e.bench.tunnel [--rates 400kB,2MB,20MB] [--seconds 5] [--runs 3]

Two computers that cannot reach each other, and the server in the middle: namespaces of this machine
(e2e/edge.py). A figure is the rate of the payload, from the first byte to the end of `flyx receive`, as a
part of the rate that is allowed; the median of the runs, with the least and the most. Headers take 1 to 5 %.
Needs root and iproute2.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from e2e.edge import Edge
from e2e.network import Network
from e2e.processes import write_random
from flyx.cli.turn_options import relay_of


def measure(rate: str, seconds: float) -> float:
    """Return the part of a rate that one transfer gets that takes so many seconds at that rate."""
    allowed = relay_of(rate, 1, 2, redis=False)
    assert allowed is not None
    with tempfile.TemporaryDirectory() as name, Network() as network:
        edge = Edge(network, Path(name))
        try:
            edge.serve("--relay", rate)
            sender = edge.send(write_random(Path(name) / "sent.bin", int(allowed.rate * seconds)))
            receiver = edge.receive(sender.code(), Path(name) / "in")
            # It may have to go on for long after the usual patience.
            receiver.ends(0, within=20 + 20 * seconds)
            sender.ends(0)
            done = receiver.event("done")
        finally:
            edge.close()
    return float(done["bytes"] / done["seconds"] / allowed.rate)


def main() -> None:
    """Measure and print the table."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rates", default="400kB,2MB,20MB")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    for rate in arguments.rates.split(","):
        parts = [100 * measure(rate, arguments.seconds) for _ in range(arguments.runs)]
        print(
            f"{rate:8} {statistics.median(parts):6.1f} % ({min(parts):.1f} to {max(parts):.1f})", flush=True
        )


if __name__ == "__main__":
    main()
