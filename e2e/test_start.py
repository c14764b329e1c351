"""What programs load until they end: whatever a transfer does not use costs it time at its start."""

from __future__ import annotations

from pathlib import Path

from e2e.processes import Flyx, FlyxProcess, names_in, write_random

NOT_USED = {
    # Media, which aiortc is made for.
    *("av", "numpy"),
    # DNS by multicast, of candidates and of rooms on the local network.
    *("dns.message", "dns.zone", "zeroconf"),
    # The server's, which a sender without one has.
    *("fastapi", "uvicorn", "starlette", "structlog", "prometheus_client", "redis"),
    # The server's too, and Typer's for values that need a conversion.
    "pydantic",
    # Bars and documents, for people.
    "rich",
}


def loaded(process: FlyxProcess) -> set[str]:
    """The modules that a process has loaded, told by Python on standard error (-X importtime)."""
    lines = process.err.splitlines()
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


def test_a_transfer_loads_nothing_that_it_does_not_use(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "photo.jpg", 1000)
    flyx.environment["PYTHONPROFILEIMPORTTIME"] = "1"
    sender = flyx.send(source)
    receiver = flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0)
    assert names_in(tmp_path / "in") == ["photo.jpg"]
    for process in (sender, receiver):
        modules = loaded(process)
        assert {"aiortc.rtcdatachannel", "flyx.rtc.sctp_transport"} <= modules
        assert modules & NOT_USED == set()
