"""Time-limited credentials for a TURN server that shares a secret with us.

The scheme of coturn's `use-auth-secret` (draft-uberti-behave-turn-rest-00): the user name is the Unix time at
which it ends, a colon and who it is for; the password is the HMAC-SHA1 of that, in base64. The TURN server
works it out by itself: it is never asked about a user, and a client that keeps its credentials has them for
nothing once their time is over.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from flyx.errors import InputError, RemoteProtocolError
from flyx.server.config import TurnConfig
from flyx.signaling.messages import IceServer, IceServersData, RefreshIceServers, parse_untrusted, serialize


def credentials(config: TurnConfig, client_id: str, now: float) -> IceServer:
    """Return the TURN service with credentials for one client.

    Args:
        config: the service.
        client_id: for the TURN server's quotas and logs; it says nothing of who that is.
        now: Unix time.
    """
    username = f"{int(now + config.ttl)}:{client_id}"
    digest = hmac.new(config.secret.encode(), username.encode(), hashlib.sha1).digest()
    return IceServer(urls=config.urls, username=username, credential=base64.b64encode(digest).decode())


def ice_servers(
    stun_urls: tuple[str, ...], config: TurnConfig | None, client_id: str, now: float
) -> IceServersData:
    """Return what the connections of one client may ask: STUN servers, and the TURN service if there is one.

    Args:
        stun_urls: "stun:host:port" (RFC 7064).
        config: the TURN service; None: there is none.
        client_id: see credentials().
        now: Unix time.
    """
    servers = tuple(IceServer(urls=(url,)) for url in stun_urls)
    if config is None:
        return IceServersData(ice_servers=servers)
    return IceServersData(
        ice_servers=(*servers, credentials(config, client_id, now)), ice_servers_ttl=config.ttl
    )


def check_ice_servers(stun_urls: tuple[str, ...], config: TurnConfig | None) -> None:
    """Check that clients take what ice_servers() returns: one that does not can never come in.

    Raises:
        InputError: they do not.
    """
    try:
        parse_untrusted(serialize(RefreshIceServers(ice_servers(stun_urls, config, "", 0.0))))
    except RemoteProtocolError as error:
        reason = f"no client takes these STUN and TURN servers: {error.fields['reason']}"
        raise InputError(reason=reason) from error
