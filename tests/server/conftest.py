from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest_asyncio

from flyx.server.app import Server
from tests.server.peers import http_of, local


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with Server(local()) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with http_of(server) as client:
        yield client
