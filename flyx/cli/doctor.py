"""`flyx doctor`: what stands between this computer and a transfer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyx.cli.meeting import ApiToken, Server, TlsCa, named_server, trust
from flyx.cli.options import Json, output_option, read_secret, token_of
from flyx.cli.output import make_console, write_event
from flyx.cli.screen import can_draw, screen
from flyx.client.meeting import DEFAULT_SERVER
from flyx.errors import EXIT_FAILED, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from flyx.client.doctor.finding import Finding


def doctor(
    context: typer.Context,
    code: Annotated[
        str | None,
        typer.Argument(
            metavar="CODE",
            envvar="FLYX_DOCTOR_CODE",
            help="Code of a sender that waits, to try the way to it; - reads it from standard input",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path, output_option("Directory whose disk is examined")] = Path("."),
    server: Server = None,
    tls_ca: TlsCa = None,
    api_token: ApiToken = None,
    as_json: Json = False,
) -> None:
    """Examine the server, the network and this computer

    Says of each what it means for a transfer, and what to do. Exit status 1 if anything fails.

    With the code of a sender that waits, it also tries the way to it, and receives nothing.

    Example: flyx doctor --server wss://flyx.example.org
    """
    from flyx.cli.runtime import run
    from flyx.client.codes import parse_invitation
    from flyx.client.doctor.examination import ORDER, Examination, examine
    from flyx.client.doctor.finding import FindingState

    invitation = None if code is None else parse_invitation(read_secret("CODE", code))
    room_id = None if invitation is None else invitation.room_id
    server, _ = named_server(context, server, None if invitation is None else invitation.server)
    trust(tls_ca)
    token = token_of("--api-token", api_token)
    examination = Examination(server or DEFAULT_SERVER, token, output, room_id, is_named=server is not None)
    findings: list[Finding] = []

    def take(finding: Finding) -> None:
        findings.append(finding)
        if as_json:
            write_event("finding", **finding_fields(finding))

    begun = time.monotonic()
    if as_json:
        run(examine(examination, take))
        counts = {state.value: sum(finding.state is state for finding in findings) for state in FindingState}
        write_event("examined", **counts, seconds=round(time.monotonic() - begun, 3))
    else:
        console = make_console(stderr=False)
        if can_draw():
            screen.show([(_EXAMINING, len(_EXAMINING))])
        try:
            run(examine(examination, take))
        finally:
            screen.hide()
        show(findings, ORDER, console)
    if any(finding.state is FindingState.FAILING for finding in findings):
        raise typer.Exit(EXIT_FAILED)


_EXAMINING = "Examining the server, the network and this computer"


def finding_fields(finding: Finding) -> dict[str, Any]:
    """Return the fields of a finding, as flyx/docs/events.schema.json defines them."""
    return {
        "name": finding.name,
        "state": finding.state.value,
        "words": finding.words,
        "meaning": finding.meaning,
        "advice": finding.advice,
        "figures": dict(finding.figures),
    }


_LABELS = {
    "peer": "other side",
    "pair": "",
    "dns": "name",
    "websocket": "WebSocket",
    "stun": "STUN",
    "ipv6": "IPv6",
    "mapping": "NAT mapping",
    "filtering": "NAT filtering",
    "mtu": "path MTU",
    "turn": "relay",
    "mdns": "multicast",
    "offload": "UDP offload",
    "descriptors": "open files",
}
"""What people read for the names of findings; others are words already."""

_STYLES = {"ok": "green", "warning": "yellow", "failing": "bold red"}


def show(findings: Sequence[Finding], order: Sequence[str], console: Console) -> None:
    """Show all findings on one screen: a line for what is well, what it means and what to do for the rest."""
    console.print(_table(sorted(findings, key=lambda finding: order.index(finding.name))))
    console.print(verdict([finding.state.value for finding in findings]))


def verdict(states: Sequence[str]) -> str:
    """Return the sum of it."""
    failing, warnings = states.count("failing"), states.count("warning")
    parts = []
    if failing:
        parts.append(f"{failing} {'check fails' if failing == 1 else 'checks fail'}")
    if warnings:
        parts.append(f"{warnings} {'warning' if warnings == 1 else 'warnings'}")
    return ", ".join(parts) if parts else "All is well."


def _table(findings: Sequence[Finding]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        state = finding.state.value
        text = Text(printable(finding.words))
        if finding.meaning:
            text.append(f"{': ' if state == 'ok' else chr(10)}{printable(finding.meaning)}", "dim")
        if finding.advice:
            text.append(f"\ndo: {printable(finding.advice)}")
        table.add_row(Text(state, _STYLES[state]), _LABELS.get(finding.name, finding.name), text)
    return table
