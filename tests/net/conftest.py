from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from flyx.net.loop import new_event_loop


@pytest.fixture(params=[new_event_loop, asyncio.SelectorEventLoop], ids=["flyx", "asyncio"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """Each kind of event loop that flyx may run on."""
    factory: Callable[[], asyncio.AbstractEventLoop] = request.param
    with asyncio.Runner(loop_factory=factory) as running:
        yield running
