"""Runs the checks side by side, each with a deadline; what goes wrong in one is a finding like any other.

name of the server, its status, its clock ─┐
a room on it ──> its STUN and TURN servers ─┼─> findings, as they come
this computer: offload, descriptors, disk, multicast ─┘
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flyx.client.doctor.finding import Finding, FindingState
from flyx.client.doctor.http import Origin, origin_of
from flyx.client.doctor.machine import check_descriptors, check_disk, check_mdns, check_offload
from flyx.client.doctor.network import check_network
from flyx.client.doctor.peer import OFFER_TIMEOUT, check_peer
from flyx.client.doctor.relay import check_relay, no_relay
from flyx.client.doctor.server import check_name, check_server, check_websocket
from flyx.errors import FlyxError
from flyx.rtc.peer import CONNECT_TIMEOUT
from flyx.rtc.servers import TurnServer, stun_servers, turn_servers
from flyx.signaling.messages import JoinedData

logger = logging.getLogger("flyx.client")

CHECK_TIMEOUT = 9.0
"""Seconds for one check. Those of STUN and TURN follow that of the WebSocket: twice as many in all."""

PEER_TIMEOUT = OFFER_TIMEOUT + CONNECT_TIMEOUT + 10.0
"""Seconds to connect to the other side, its server and its last words included."""

ORDER = (
    *("peer", "pair"),
    *("dns", "server", "clock", "websocket"),
    *("stun", "ipv6", "mapping", "filtering", "mtu", "turn"),
    *("mdns", "offload", "descriptors", "disk"),
)
"""The findings as people should read them."""

OnFinding = Callable[[Finding], None]


@dataclass(frozen=True, slots=True)
class Examination:
    """What is examined.

    Attributes:
        server: URL of the signaling server.
        api_token: the token that it asks of those who make rooms.
        directory: where files would be saved.
        room_id: of a sender that waits, to be connected to; None for nobody.
        is_named: whether the person has named the server: if not, there may be none.
    """

    server: str
    api_token: str | None
    directory: Path
    room_id: str | None = None
    is_named: bool = True


async def examine(examination: Examination, on_finding: OnFinding) -> None:
    """Run every check; report each finding as it comes.

    Raises:
        InputError: the server's URL, or a proxy's in the environment, is none.
    """
    origin = origin_of(examination.server)
    # Said here, once, if the environment names a proxy that is none.
    _ = origin.proxy
    found: asyncio.Queue[Finding | None] = asyncio.Queue()
    tell = found.put_nowait if examination.is_named else partial(_tell_unnamed, found.put_nowait)
    checks = asyncio.create_task(_run_all(examination, origin, tell))
    checks.add_done_callback(lambda _: found.put_nowait(None))
    try:
        while (finding := await found.get()) is not None:
            on_finding(finding)
        await checks
    finally:
        checks.cancel()
        await asyncio.gather(checks, return_exceptions=True)


async def _run_all(examination: Examination, origin: Origin, on_finding: OnFinding) -> None:
    async with asyncio.TaskGroup() as group:
        for name, check in (
            ("dns", _alone(lambda: check_name(origin))),
            ("server", lambda: check_server(origin)),
            ("offload", _alone(check_offload)),
            ("descriptors", _alone(check_descriptors)),
            ("disk", _alone(lambda: check_disk(examination.directory))),
            ("mdns", _alone(check_mdns)),
        ):
            group.create_task(_run(name, check, on_finding))
        if (room_id := examination.room_id) is not None:
            check = partial(check_peer, examination.server, room_id, local=not examination.is_named)
            group.create_task(_run("peer", check, on_finding, PEER_TIMEOUT))
        joined = await _join(examination, origin, on_finding)
        if joined is not None:
            _examine_paths(joined, group, on_finding)


async def _join(examination: Examination, origin: Origin, on_finding: OnFinding) -> JoinedData | None:
    joined: list[JoinedData] = []

    async def check() -> Sequence[Finding]:
        finding, told = await check_websocket(examination.server, origin, examination.api_token)
        joined.extend([told] if told else [])
        return [finding]

    await _run("websocket", check, on_finding)
    return joined[0] if joined else None


def _examine_paths(joined: JoinedData, group: asyncio.TaskGroup, on_finding: OnFinding) -> None:
    """Check the STUN and TURN servers that the server has told of."""
    stun, _ = stun_servers([url for server in joined.ice_servers for url in server.urls])
    with_credentials = [
        TurnServer(url, server.username, server.credential)
        for server in joined.ice_servers
        if server.username and server.credential
        for url in server.urls
    ]
    relays, unusable = turn_servers(
        [server for server in with_credentials if server.url[:4].lower() == "turn"]
    )
    has_relay = bool(relays) or joined.tunnel is not None
    group.create_task(_run("stun", lambda: check_network(stun, has_relay=has_relay), on_finding))
    for relay in relays:
        group.create_task(_run("turn", _alone(partial(check_relay, relay)), on_finding))
    for url in unusable:
        meaning = "this relay cannot be used"
        advice = "it is for whoever runs the server to mend (`flyx serve --turn`)"
        on_finding(Finding("turn", FindingState.FAILING, f"{url.url}: {url.reason}", meaning, advice))
    if not relays and not unusable:
        on_finding(no_relay(relays_itself=joined.tunnel is not None))


def _tell_unnamed(on_finding: OnFinding, finding: Finding) -> None:
    """Report a finding where no server is named: that there is none is no failure."""
    if finding.name == "server" and finding.state is FindingState.FAILING:
        on_finding(_NO_SERVER)
    elif finding.name != "websocket" or finding.state is not FindingState.FAILING:
        on_finding(finding)


_NO_SERVER = Finding(
    "server",
    FindingState.WARNING,
    "none is named, and none runs on this computer",
    "`flyx send` and `flyx receive` find each other on one local network; STUN and relays were not tried",
    "for other networks: `flyx serve` on a machine that both reach, and --server or FLYX_SERVER",
)


def _alone(check: Callable[[], Awaitable[Finding]]) -> Callable[[], Awaitable[Sequence[Finding]]]:
    async def run() -> Sequence[Finding]:
        return [await check()]

    return run


async def _run(
    name: str,
    check: Callable[[], Awaitable[Sequence[Finding]]],
    on_finding: OnFinding,
    patience: float | None = None,
) -> None:
    """Run one check; its failure is a finding, and not the end of the others."""
    findings: Sequence[Finding]
    patience = patience or CHECK_TIMEOUT
    try:
        async with asyncio.timeout(patience):
            findings = await check()
    except TimeoutError:
        words = f"no result within {patience:g} s"
        findings = [Finding(name, FindingState.FAILING, words, "a transfer may have to wait as long")]
    except FlyxError as error:
        findings = [Finding(name, FindingState.FAILING, str(error), advice=error.hint or "")]
    except OSError as error:
        words = f"could not be checked: {error.strerror or str(error) or type(error).__name__}"
        findings = [Finding(name, FindingState.WARNING, words)]
    except Exception as error:
        logger.error("the check of %s failed", name, exc_info=error)
        findings = [Finding(name, FindingState.WARNING, f"could not be checked: {type(error).__name__}")]
    for finding in findings:
        on_finding(finding)
