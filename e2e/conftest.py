"""What end-to-end tests share: one signaling server for the session, and processes that end with the test."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.edge import Edge
from e2e.laboratory import Case, Laboratory, Outcome, check
from e2e.network import Network
from e2e.processes import Flyx, HostilePeer, Server, clean_environment

ROW = "network"
"""Property of a test: what it adds to the table of networks."""


@pytest.fixture(scope="session")
def signaling_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One `flyx serve` for all tests that do nothing to it; its end is checked, too."""
    home = tmp_path_factory.mktemp("server")
    # Who is killed has gone for good; others need not wait for the default of 30 s to hear of it.
    server = Server(clean_environment(home), home, "--grace", "5")
    yield server
    try:
        server.send_signal(signal.SIGTERM).ends(0)
    finally:
        server.kill()


@pytest.fixture
def flyx(signaling_server: Server, tmp_path: Path) -> Iterator[Flyx]:
    """Starts flyx processes in the test's own directory; ends them, and looks for tracebacks."""
    processes = Flyx(signaling_server.url, tmp_path, clean_environment(tmp_path))
    yield processes
    processes.close()


@pytest.fixture
def own_server(flyx: Flyx) -> Server:
    """A `flyx serve` that the test may kill."""
    server = Server(flyx.environment, flyx.directory)
    flyx.adopt(server)
    return server


@pytest.fixture
def hostile_peer(flyx: Flyx) -> Iterator[Callable[..., HostilePeer]]:
    """Starts peers that lie."""
    started: list[HostilePeer] = []

    def start(*arguments: str) -> HostilePeer:
        started.append(HostilePeer(flyx, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def laboratory(tmp_path: Path) -> Iterator[Laboratory]:
    """The internet of one test; its processes end with it, and none may have shown a traceback."""
    with Network() as network:
        laboratory = Laboratory(network, tmp_path)
        try:
            yield laboratory
        finally:
            laboratory.close()


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    """Two hosts and what they can both reach; its processes end with it."""
    with Network() as network:
        edge = Edge(network, tmp_path)
        try:
            yield edge
        finally:
            edge.close()


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str, Outcome], None]:
    """Makes an outcome a row of the table that the run ends with."""

    def record(name: str, outcome: Outcome) -> None:
        record_property(ROW, [name, *outcome.row])

    return record


@pytest.fixture
def judge(laboratory: Laboratory, tell: Callable[[str, Outcome], None]) -> Callable[[Case], None]:
    """Runs a case, and fails if it does not come out as it has to."""

    def run(case: Case) -> None:
        outcome = laboratory.run(case)
        tell(case.name, outcome)
        check(case, outcome)

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of the networks that were tried."""
    rows = []
    for result in ("passed", "failed", "xfailed"):
        for report in terminalreporter.stats.get(result, []):
            for name, cells in report.user_properties:
                if name == ROW and report.when == "call":
                    rows.append(["yes" if result == "passed" else "**no**", *cells])
    if not rows:
        return
    terminalreporter.section("networks")
    titles = ["as wanted", "case", "path", "seconds", "exits", "said"]
    for row in (titles, ["---"] * len(titles), *rows):
        terminalreporter.write_line(f"| {' | '.join(row)} |")
