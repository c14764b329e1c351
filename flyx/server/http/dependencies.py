"""What the handlers of requests are given: the hub, and what the address of a client counts as."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from flyx.server.limits import address_key
from flyx.server.rooms.hub import Hub


# A coroutine, because FastAPI runs plain functions on threads.
async def hub_of(connection: HTTPConnection) -> Hub:
    """Return the hub of the application that a request came to."""
    hub = connection.app.state.hub
    assert isinstance(hub, Hub)
    return hub


HubOfApp = Annotated[Hub, Depends(hub_of)]


def address_of(connection: HTTPConnection) -> str:
    """Return what the address of a client counts as, for rates."""
    return address_key(connection.client.host if connection.client else "")
