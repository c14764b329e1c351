"""A file of more than 4 GiB goes to and from the page of `flyx serve`: a tab needs no more memory for it.

pytest e2e/test_browsers_large.py -m soak    needs 15 GB of disk
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.bench.browser import BROWSERS, LONG, room_for, watch_receiving, watch_sending
from e2e.browsers import DIALOGS, NO_DIALOGS, Tab
from e2e.processes import Flyx, sha256, write_random

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

SIZE = 4_400_000_000

MOST = 200.0
"""MB of memory that the process of a tab may have as its own."""

OpenTab = Callable[[str], Tab]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = write_random(tmp_path_factory.mktemp("source") / "film.mp4", SIZE)
    yield path
    path.unlink()


@pytest.fixture
def open_tab(browser: str, tmp_path: Path) -> Iterator[OpenTab]:
    """Opens a page in a browser that keeps on the disk what pages keep."""
    with BROWSERS[browser](tmp_path, room_for(SIZE)) as open_tab:
        yield open_tab


@pytest.mark.parametrize(
    ("browser", "dialogs"),
    [("chromium", DIALOGS), ("chromium", NO_DIALOGS), ("firefox", NO_DIALOGS)],
    ids=["chromium picked", "chromium kept", "firefox kept"],
)
def test_a_tab_receives_more_than_4_gib_in_bounded_memory(
    flyx: Flyx, open_tab: OpenTab, source: Path, dialogs: str
) -> None:
    tab = open_tab(dialogs)
    _, cost = watch_receiving(tab, flyx, source)
    assert cost.tab < MOST
    if dialogs == NO_DIALOGS:
        saved = tab.downloaded(LONG)
        assert sha256(saved) == sha256(source)
        saved.unlink()
    tab.close()


@pytest.mark.parametrize("browser", ["chromium", "firefox"])
def test_a_tab_sends_more_than_4_gib_in_bounded_memory(
    flyx: Flyx, open_tab: OpenTab, source: Path, tmp_path: Path
) -> None:
    tab = open_tab("")
    _, cost = watch_sending(tab, flyx, source, tmp_path / "in")
    assert cost.tab < MOST
    received = tmp_path / "in" / source.name
    assert sha256(received) == sha256(source)
    received.unlink()
    tab.close()
