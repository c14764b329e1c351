"""`flyx bench`: how fast this computer goes, and the path to another one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyx.cli.demo import parse_size
from flyx.cli.meeting import ApiToken, Local, Server, TlsCa, meeting_of, trust
from flyx.cli.options import (
    Json,
    Quiet,
    check_standard_input,
    naming,
    output_option,
    read_secret,
    token_of,
)
from flyx.cli.path_options import Bind, IceServers, NoRelay, RelayOnly, connection_options_of
from flyx.errors import InputError

if TYPE_CHECKING:
    from flyx.cli.bench_output import BenchOutput
    from flyx.client.bench.measured import Measured
    from flyx.client.bench.peer import Meeting
    from flyx.client.codes import Invitation


def bench(
    context: typer.Context,
    code: Annotated[
        str | None,
        typer.Argument(
            metavar="CODE",
            envvar="FLYX_BENCH_CODE",
            help="Code that `flyx bench --wait` shows elsewhere, to measure the path to it; - reads it from "
            "standard input",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait", envvar="FLYX_BENCH_WAIT", help="Wait for another computer, to measure the path to it"
        ),
    ] = False,
    size: Annotated[
        str,
        typer.Option(
            "--size",
            envvar="FLYX_BENCH_SIZE",
            metavar="SIZE",
            help="Bytes that each measurement moves at most, such as 20MB; it ends after some seconds anyway",
        ),
    ] = "1GB",
    output: Annotated[Path, output_option("Directory whose disk is measured")] = Path("."),
    server: Server = None,
    local: Local = None,
    tls_ca: TlsCa = None,
    api_token: ApiToken = None,
    relay_only: RelayOnly = False,
    no_relay: NoRelay = False,
    ice_server: IceServers = None,
    bind: Bind = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure how fast this computer is, or the path to another

    Alone, it measures the disk, hashing and transfers between two processes here, and names what limits them.

    With the code of another that waits, it measures the path between the two instead, and no disk.

    Example: flyx bench -o Downloads
    """
    from flyx.cli.bench_output import BenchOutput
    from flyx.cli.runtime import CONNECTIONS, run
    from flyx.client.bench.noise import Amount
    from flyx.client.bench.peer import Meeting

    begun = time.monotonic()
    with BenchOutput(quiet=quiet, as_json=as_json) as shown:
        if wait and code is not None:
            hint = "one side waits, and the other is given the code that it shows"
            raise InputError(reason="--wait and CODE exclude each other", hint=hint)
        typed = "-" if "-" in (ice_server or ()) else None
        check_standard_input({"CODE": code, "--api-token": api_token, "--ice-server": typed})
        with naming("--size"):
            most = parse_size(size)
            if not most:
                raise InputError(reason="0 bytes take no time", hint="write it like 500KB, 100MB or 1GiB")
        invitation = None if code is None else _invitation(code)
        where = meeting_of(context, server, local, None if invitation is None else invitation.server)
        trust(tls_ca)
        token = token_of("--api-token", api_token)
        connections = connection_options_of(relay_only, no_relay, ice_server, bind)
        meeting = Meeting(where.server, Amount(_PATH_TIME, most), connections)
        if invitation is not None:
            work = _visit(meeting, invitation, shown, local=where.local)
        elif wait:
            work = _host(meeting, token, shown, local=where.local)
        else:
            work = _bench_here(output, most, shown)
        run(work, loading=CONNECTIONS)
        shown.end(time.monotonic() - begun)


_PATH_TIME = 4.0
"""Seconds for each direction of a path."""

_HERE_TIME = 2.0
"""Seconds for each transfer between two processes here."""


def _invitation(code: str) -> Invitation:
    """Return what a code says; it has words, as that of any measurement has.

    Raises:
        InputError: it says nothing, or has none.
    """
    from flyx.client.codes import parse_invitation

    invitation = parse_invitation(read_secret("CODE", code))
    if not invitation.words:
        hint = "give the whole code that `flyx bench --wait` shows, such as K7M2QX-lemon-otter"
        raise InputError(reason="the words of the code are missing", hint=hint)
    return invitation


async def _bench_here(directory: Path, size: int, shown: BenchOutput) -> None:
    from flyx.cli.loopback import bench_transfer
    from flyx.client.bench.machine import HASHES, bench_disk, bench_hash
    from flyx.client.bench.measured import Part
    from flyx.client.bench.noise import Amount

    shown.begin("the disk")
    _take(shown, await bench_disk(directory, size))
    for part in HASHES:
        shown.begin("hashing")
        _take(shown, [await bench_hash(part)])
    for part in (Part.TRANSFER, Part.TRANSFER_1200):
        shown.begin("transfers between two processes")
        _take(shown, [await bench_transfer(part, Amount(_HERE_TIME, size), shown)])


async def _visit(meeting: Meeting, invitation: Invitation, shown: BenchOutput, *, local: bool) -> None:
    from flyx.client.bench.peer import visit

    shown.begin("the path")
    _take(shown, await visit(meeting, invitation.room_id, invitation.words, shown, local=local))


async def _host(meeting: Meeting, token: str | None, shown: BenchOutput, *, local: bool) -> None:
    from flyx.cli.send import serve_ourselves
    from flyx.client.bench.peer import host
    from flyx.client.codes import make_code

    code = make_code(None, None, is_open=False)
    _take(shown, await host(meeting, serve_ourselves if local else None, code, token, shown))


def _take(shown: BenchOutput, measured: list[Measured]) -> None:
    for one in measured:
        shown.take(one)
