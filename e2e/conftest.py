"""What end-to-end tests share: one signaling server for the session, and processes that end with the test."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.laboratory import Laboratory
from e2e.network import Network
from e2e.processes import Flyx, Liar, Server, clean_environment


@pytest.fixture(scope="session")
def signaling_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One `flyx serve` for all tests that do nothing to it; its end is checked, too."""
    home = tmp_path_factory.mktemp("server")
    server = Server(clean_environment(home), home)
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
def liar(flyx: Flyx) -> Iterator[Callable[..., Liar]]:
    """Starts peers that lie."""
    started: list[Liar] = []

    def start(*arguments: str) -> Liar:
        started.append(Liar(flyx, *arguments))
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
