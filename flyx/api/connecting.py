"""What parameters of the API say about the way to the other side, checked."""

from __future__ import annotations

from flyx.client.link import ConnectionOptions
from flyx.client.meeting import Meeting, meet
from flyx.client.websocket import websocket_url
from flyx.errors import InputError
from flyx.rtc.policy import IcePolicy


def meeting_of(server: str | None, local: bool | None) -> Meeting:
    """Return where to meet.

    Raises:
        InputError: there is no such place.
    """
    if server is None:
        return meet(None, local)
    if local:
        raise InputError(reason="server and local exclude each other")
    websocket_url(server)
    return meet(server, local)


def connections_of(*, relay_only: bool, no_relay: bool) -> ConnectionOptions:
    """Return what is allowed connections.

    Raises:
        InputError: nothing is.
    """
    if relay_only and no_relay:
        raise InputError(reason="relay_only and no_relay exclude each other")
    return ConnectionOptions(IcePolicy(relay_only=relay_only, no_relay=no_relay))
