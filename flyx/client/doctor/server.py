"""The signaling server: is it there, is it flyx, does its clock agree with ours, does its WebSocket pass?"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import ssl
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime

from flyx import __version__
from flyx.client.doctor.finding import Finding, FindingState, milliseconds
from flyx.client.doctor.http import Origin, Reply, get
from flyx.client.signaling import Signaling
from flyx.errors import FlyxError, ServerRefused
from flyx.net.names import resolve
from flyx.net.tls import why_not_trusted
from flyx.rtc.attempts import NO_NAME_SERVER, failure_outcome
from flyx.signaling.messages import JoinedData, Role

MAX_SKEW = 60.0
"""Seconds between our clock and the server's that are no matter. The header tells whole seconds."""

LOOK_UP_TIMEOUT = 5.0
"""Seconds for the server's name."""

ANSWER_TIMEOUT = 7.0
"""Seconds for its answer, connections included."""

_NO_SERVER = "no transfer can begin: the two sides meet at the server"


async def check_name(origin: Origin) -> Finding:
    """Look the server's name up."""
    if _is_literal(origin.host):
        return Finding(
            "dns", FindingState.OK, "the server is named by its address", "no name needs to be looked up"
        )
    if origin.proxy:
        return Finding("dns", FindingState.OK, "left to the proxy", "the proxy looks the server's name up")
    begun = time.monotonic()
    try:
        async with asyncio.timeout(LOOK_UP_TIMEOUT):
            addresses = await resolve(origin.host, origin.port, socktype=socket.SOCK_STREAM)
    except OSError as error:
        outcome = NO_NAME_SERVER if isinstance(error, TimeoutError) else failure_outcome(error)
        advice = "check the name, and the network's name server; or name the server by its address"
        return Finding("dns", FindingState.FAILING, f"{origin.host} {outcome}", _NO_SERVER, advice)
    seconds = time.monotonic() - begun
    count = len(addresses)
    families = sorted({"IPv6" if a.family == socket.AF_INET6 else "IPv4" for a in addresses})
    figures = {"addresses": count, "families": families, "seconds": round(seconds, 6)}
    words = f"{origin.host} has {count} {'address' if count == 1 else 'addresses'}, {' and '.join(families)}"
    return Finding("dns", FindingState.OK, words, "names are found", figures=figures)


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


async def check_server(origin: Origin) -> Sequence[Finding]:
    """Ask the server how it is; return the findings of server and, if it has told its time, of clock."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            reply = await get(origin, "/status")
            if reply.status in (401, 404):
                # Its operator may keep /status to himself; this much any flyx server says.
                judged = _judge_health(await get(origin, "/healthz"), via(origin))
            else:
                judged = _judge_status(reply, via(origin))
    except OSError as error:
        return [_unreachable(error, via(origin))]
    except FlyxError as error:
        return [Finding("server", FindingState.FAILING, str(error), _NO_SERVER, error.hint or "")]
    clock = _clock(reply)
    return [judged, clock] if clock else [judged]


def via(origin: Origin) -> str:
    """Return the words for the proxy that may be on the way, if there is one: a dead one is passed by."""
    proxy = origin.proxy
    return f"; proxy: {proxy}" if proxy else ""


def _judge_status(reply: Reply, via: str) -> Finding:
    try:
        version = json.loads(reply.body)["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        version = None
    if reply.status != 200 or not isinstance(version, str):
        return _no_flyx(reply)
    figures = {"version": version, "rtt": round(reply.seconds, 6)}
    words = f"flyx {version} answers in {milliseconds(reply.seconds)}{via}"
    if version.split(".")[:2] != __version__.split(".")[:2]:
        meaning = f"this is flyx {__version__}: the two may not understand each other in all"
        return Finding(
            "server", FindingState.WARNING, words, meaning, "bring both to the same release", figures
        )
    return Finding("server", FindingState.OK, words, "the two sides can meet there", figures=figures)


def _judge_health(reply: Reply, via: str) -> Finding:
    try:
        healthy = json.loads(reply.body)["status"] == "ok"
    except (ValueError, KeyError, TypeError, RecursionError):
        healthy = False
    if reply.status != 200 or not healthy:
        return _no_flyx(reply)
    words = f"answers in {milliseconds(reply.seconds)}, and keeps its version to itself{via}"
    figures = {"rtt": round(reply.seconds, 6)}
    return Finding("server", FindingState.OK, words, "the two sides can meet there", figures=figures)


def _no_flyx(reply: Reply) -> Finding:
    words = f"something answers (HTTP {reply.status}), but not as a flyx server does"
    return Finding(
        "server", FindingState.FAILING, words, _NO_SERVER, "check --server: its host, its port, its path"
    )


def _unreachable(error: OSError, via: str) -> Finding:
    match error:
        case ssl.SSLCertVerificationError():
            reason, advice = why_not_trusted(error)
            words = f"its certificate {reason}"
        case ssl.SSLError():
            words = f"TLS fails: {error.reason}"
            advice = "does that port speak TLS? ws:// and http:// are without"
        case TimeoutError():
            words = "does not answer"
            advice = "is it running, and does a firewall let its port through?"
        case _:
            words = f"cannot be reached: {error.strerror or str(error) or type(error).__name__}"
            advice = "start one with `flyx serve`, or name another with --server or FLYX_SERVER"
    return Finding("server", FindingState.FAILING, words + via, _NO_SERVER, advice)


def _clock(reply: Reply) -> Finding | None:
    try:
        skew = parsedate_to_datetime(reply.headers["date"]).timestamp() - time.time()
    except (KeyError, ValueError, OverflowError, TypeError):
        return None
    figures = {"skew": round(skew)}
    if abs(skew) <= MAX_SKEW:
        return Finding("clock", FindingState.OK, "agrees with the server's", figures=figures)
    side = "behind" if skew > 0 else "ahead of"
    return Finding(
        "clock",
        FindingState.WARNING,
        f"{abs(skew):.0f} s {side} the server's",
        "certificates can seem not valid yet, or no longer",
        "have this computer, or the server, set its clock by the network (NTP)",
        figures,
    )


async def check_websocket(
    server: str, origin: Origin, api_token: str | None
) -> tuple[Finding, JoinedData | None]:
    """Make a room and leave it, as `flyx send` would; return also what the server told."""
    begun = time.monotonic()
    try:
        async with (
            asyncio.timeout(ANSWER_TIMEOUT),
            Signaling(server, None, Role.SENDER, api_token=api_token) as signaling,
        ):
            seconds = time.monotonic() - begun
            joined = signaling.joined
    except TimeoutError:
        words = f"there is no way to it within {ANSWER_TIMEOUT:g} s"
        advice = "see what is said of the server; some firewalls and proxies let no WebSocket through"
        return Finding("websocket", FindingState.FAILING, words, _NO_SERVER, advice), None
    except ServerRefused as error:
        meaning = "`flyx receive` may work all the same; STUN and TURN are not known from here"
        advice = error.hint or "give the server's token with --api-token or FLYX_API_TOKEN"
        return Finding("websocket", FindingState.WARNING, str(error), meaning, advice), None
    except FlyxError as error:
        return Finding("websocket", FindingState.FAILING, str(error), _NO_SERVER, error.hint or ""), None
    words = f"a room was made and left again in {milliseconds(seconds)}{via(origin)}"
    return Finding("websocket", FindingState.OK, words, figures={"seconds": round(seconds, 6)}), joined
