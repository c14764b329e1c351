from __future__ import annotations

from flyx.server.admission import affordable_connections
from tests.storage.support import descriptors_no_more_than


def test_a_server_has_no_more_connections_than_files() -> None:
    with descriptors_no_more_than(1000):
        assert affordable_connections(100) == 100
        assert affordable_connections(50_000) < 1000
        # As many as it likes is not more than it can.
        assert affordable_connections(0) == affordable_connections(50_000)
