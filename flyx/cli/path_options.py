"""Options about the paths that connections may take, of `flyx send` and `flyx receive`."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Annotated
from urllib.parse import unquote

import typer

from flyx.cli.options import secret_of
from flyx.errors import InputError, printable

if TYPE_CHECKING:
    from flyx.client.link import ConnectionOptions
    from flyx.signaling.messages import IceServer

_HINT = "write it like stun:stun.example.org, turn:user:password@turn.example.org or turns:…?transport=tcp"

RelayOnly = Annotated[
    bool,
    typer.Option(
        "--relay-only",
        envvar="FLYX_RELAY_ONLY",
        help="Hide our addresses from the other side: go through a TURN server, and nothing else",
    ),
]
NoRelay = Annotated[
    bool, typer.Option("--no-relay", envvar="FLYX_NO_RELAY", help="Go through no TURN server, whosever it is")
]
IceServers = Annotated[
    list[str] | None,
    typer.Option(
        "--ice-server",
        envvar="FLYX_ICE_SERVER",
        metavar="URL",
        show_default=False,
        help="STUN or TURN server besides those of the signaling server, such as "
        "turn:user:password@host; may be repeated; @FILE reads one from a file",
    ),
]
Bind = Annotated[
    str | None,
    typer.Option(
        "--bind",
        envvar="FLYX_BIND",
        metavar="ADDRESS|INTERFACE",
        show_default=False,
        help="Transfer from this local address, or those of this interface, alone",
    ),
]


def connection_options_of(
    relay_only: bool, no_relay: bool, ice_servers: list[str] | None, bind: str | None
) -> ConnectionOptions:
    """Return what the person allows connections.

    Raises:
        InputError: the options contradict each other, or one of them cannot be used.
    """
    from flyx.client.link import ConnectionOptions
    from flyx.rtc.policy import IcePolicy

    if relay_only and no_relay:
        hint = "--relay-only hides addresses behind a relay; --no-relay refuses all relays"
        raise InputError(reason="--relay-only and --no-relay exclude each other", hint=hint)
    policy = IcePolicy(relay_only=relay_only, no_relay=no_relay, bind=bind)
    if bind is not None:
        _check_bind(bind, policy.local_addresses())
    return ConnectionOptions(policy, tuple(ice_server_of(text) for text in ice_servers or ()))


def _check_bind(bind: str, addresses: list[str]) -> None:
    from flyx.net.interfaces import socket_address

    reason = "there is no such interface, or it has no address"
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            try:
                sock.bind(socket_address(address))
            except OSError as error:
                reason = error.strerror or str(error)
            else:
                return
    hint = "`ip address` shows the interfaces of this computer and their addresses"
    raise InputError(reason=f"--bind cannot be used: {bind}: {reason}", hint=hint)


def ice_server_of(text: str) -> IceServer:
    """Return the server that --ice-server names; of a TURN server with user and password before the host.

    A colon or @ in the user's name is written as %3A or %40.

    Raises:
        InputError: it names none. The message does not repeat a password.
    """
    from flyx.rtc.servers import check_url
    from flyx.signaling.messages import IceServer

    given = secret_of("--ice-server", text) or ""
    scheme, _, rest = given.partition(":")
    userinfo, has_user, where = rest.rpartition("@")
    url = f"{scheme}:{where}"
    # Without @ a password may be anywhere.
    shown = f"{printable(url)}: " if has_user else ""
    try:
        check_url(url)
    except ValueError as error:
        raise InputError(reason=f"--ice-server cannot be used: {shown}{error}", hint=_HINT) from None
    user, _, password = userinfo.partition(":")
    relays = scheme.lower().startswith("turn")
    if relays != bool(user and password) or (has_user and not relays):
        wants = "a TURN server wants a user and a password" if relays else "a STUN server wants no password"
        raise InputError(reason=f"--ice-server cannot be used: {shown}{wants}", hint=_HINT)
    if not relays:
        return IceServer(urls=(url,))
    return IceServer(urls=(url,), username=unquote(user), credential=unquote(password))
