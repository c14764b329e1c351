"""For the operator: is the server alive, is it ready, how is it doing.

`health` is for load balancers, which may ask at any time. `router` tells more, on the same port as
everything else, behind a token, or on a port of its own.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Response
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import BaseModel, Field

from flyx import __version__
from flyx.server.http.dependencies import HubOfApp
from flyx.server.http.errors import bearer, errors, require_token, unavailable
from flyx.server.metrics import CONTENT_TYPE
from flyx.server.rooms.store import UNAVAILABLE
from flyx.signaling.messages import ErrorCode

health = APIRouter()


class Health(BaseModel):
    """The process answers."""

    status: str = "ok"


class Readiness(Health):
    """Clients should be sent here."""

    turn: Annotated[
        Literal["ok", "down"] | None,
        Field(description="Of a server that has a coturn of its own (--with-turn), whether that answers."),
    ] = None


class ServerStatus(BaseModel):
    """How the server is."""

    version: str
    uptime: Annotated[float, Field(description="Seconds since the start.")]
    rooms: int
    clients: Annotated[int, Field(description="Clients connected to this process.")]


@health.get("/healthz")
async def healthz() -> Health:
    """Answer, and so show that the process is alive; nothing else is looked at."""
    return Health()


@health.get("/readyz", responses=errors(HTTPStatus.SERVICE_UNAVAILABLE), response_model_exclude_none=True)
async def readyz(hub: HubOfApp) -> Readiness:
    """Tell whether clients should be sent here: not while the server is drained or cannot reach its rooms.

    If its coturn is down, the answer says so, and clients are sent all the same: most pairs need none.
    """
    if hub.stopping:
        raise unavailable(ErrorCode.SERVER_STOPPING, "the server is stopping")
    if not hub.ready:
        raise unavailable(ErrorCode.UNAVAILABLE, UNAVAILABLE)
    if hub.metrics.turn_up is None:
        return Readiness()
    return Readiness(turn="ok" if hub.metrics.turn_up else "down")


async def _may_watch(
    hub: HubOfApp, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> None:
    require_token(hub.config.metrics_token, credentials)


router = APIRouter(dependencies=[Depends(_may_watch)], responses=errors(HTTPStatus.UNAUTHORIZED))


@router.get("/status")
async def server_status(hub: HubOfApp) -> ServerStatus:
    """Tell the version, the uptime and how much is going on."""
    return ServerStatus(
        version=__version__,
        uptime=hub.clock() - hub.started_at,
        rooms=await hub.room_count(),
        clients=hub.client_count,
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={int(HTTPStatus.OK): {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(hub: HubOfApp) -> Response:
    """Tell everything that is counted, in the text format of Prometheus."""
    text = hub.metrics.expose(
        rooms=await hub.room_count(),
        connections=hub.admission.connections.total,
        tasks=len(asyncio.all_tasks()),
        queues=hub.queue_sizes(),
    )
    return Response(text, media_type=CONTENT_TYPE)
