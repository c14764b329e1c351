"""receive() of the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from inspect import isawaitable
from typing import Literal

from flyx.api.connecting import connections_of, meeting_of
from flyx.api.parameters import (
    AnyPath,
    HasFileno,
    choice_of,
    descriptor_of,
    path_of,
    patterns_of,
    rate_of,
    seconds_of,
)
from flyx.api.transfer import Transfer
from flyx.client.codes import parse_invitation
from flyx.client.meeting import RECONNECT_TIME
from flyx.client.receive import ReceiveOptions
from flyx.client.receive import receive as receive_files
from flyx.client.receiving import Confirm
from flyx.errors import Declined, InputError
from flyx.storage.writer import ExistingPolicy, Skip
from flyx.transfer.manifest import Manifest
from flyx.transfer.names import NamePolicy
from flyx.transfer.selection import Selection

_EXISTING = {
    "refuse": (ExistingPolicy.REFUSE, Skip.NOTHING),
    "overwrite": (ExistingPolicy.OVERWRITE, Skip.NOTHING),
    "rename": (ExistingPolicy.RENAME, Skip.NOTHING),
    "skip": (ExistingPolicy.REFUSE, Skip.EXISTING),
}


def receive(
    code: str,
    directory: AnyPath = ".",
    *,
    accept: bool | Callable[[Manifest], bool | Awaitable[bool]] = True,
    existing: Literal["refuse", "overwrite", "rename", "skip"] = "refuse",
    skip_existing: bool = False,
    checksum: bool = False,
    only: str | Iterable[str] = (),
    names: Literal["skip", "keep", "safe"] = "skip",
    stream: int | HasFileno | None = None,
    open: bool = False,
    wait: bool = False,
    limit: int | None = None,
    server: str | None = None,
    local: bool | None = None,
    relay_only: bool = False,
    no_relay: bool = False,
    reconnect: float = RECONNECT_TIME,
) -> Transfer:
    """Receive what a sender offers: return a transfer that begins when its events are asked for.

    Parameters are the options of `flyx receive` of these names.

    Args:
        code: that of the sender, also as part of a URL or of the line that `flyx send` prints.
        directory: where the files go; made if missing.
        accept: whether to take what is offered; or what is called with it, in the event loop, and says so,
            also as a coroutine. If that raises, the offer is declined.
        existing: what becomes of files whose names are taken: nothing is received, those there are replaced,
            those that come get new names, or are left out.
        skip_existing: leave out files that are here already, with the same size and time.
        checksum: leave out files that are here already, with the same content.
        only: one pattern or several, as in .gitignore, of what is wanted; none: all of it.
        names: what becomes of names that cannot be had here, or could steer a terminal: left out, kept if
            they can be had, or made safe.
        stream: where one file, or a stream, is written in the place of the directory: an open file, or its
            descriptor. It is not closed, and what is in the buffers of a file object comes later.
        open: trust the server with a sender whose code has no words.
        wait: if the sender is not there yet, wait for it.
        limit: bytes a second that the sender is asked to keep to; None: as many as it can.
        server: URL of a signaling server; None: that of the code, else one at ws://localhost:8000 if there,
            and the local network.
        local: True: on the local network alone, without any server; False: never there.
        relay_only: hide our addresses from the other side: go through a TURN server, and nothing else.
        no_relay: go through no TURN server.
        reconnect: seconds for which another connection is waited for when one is lost.

    Raises:
        InputError: a parameter cannot be used.
    """
    invitation = parse_invitation(code)
    meeting = meeting_of(invitation.server if server is None else server, local)
    patterns = patterns_of("only", only)
    policy, skip = _existing_of(existing, skip_existing=skip_existing, checksum=checksum)
    options = ReceiveOptions(
        server=meeting.server,
        room_id=invitation.room_id,
        words=invitation.words,
        ask_words=None,
        directory=path_of("directory", directory),
        existing=policy,
        confirm=None if accept is True else _confirm(accept),
        reconnect=seconds_of("reconnect", reconnect),
        trust_server=open,
        local=meeting.local,
        connections=connections_of(relay_only=relay_only, no_relay=no_relay),
        names=choice_of("names", NamePolicy, names),
        selection=Selection(patterns) if patterns else None,
        skip=skip,
        descriptor=None if stream is None else descriptor_of("stream", stream),
        wait=wait,
        limit=rate_of("limit", limit),
    )
    return Transfer(partial(receive_files, options))


def _existing_of(existing: str, *, skip_existing: bool, checksum: bool) -> tuple[ExistingPolicy, Skip]:
    """Return what to do about what exists.

    Raises:
        InputError: there is no such thing to do.
    """
    if existing not in _EXISTING:
        raise InputError(reason=f"existing is {existing!r}, and not one of {', '.join(map(repr, _EXISTING))}")
    if not (skip_existing or checksum) or existing == "skip":
        return _EXISTING[existing]
    if existing == "rename":
        which = "checksum" if checksum else "skip_existing"
        raise InputError(reason=f"{which} and existing='rename' exclude each other")
    return _EXISTING[existing][0], Skip.CONTENT if checksum else Skip.SAME


def _confirm(accept: bool | Callable[[Manifest], bool | Awaitable[bool]]) -> Confirm:
    """Return what asks the program whether to take what is offered."""

    async def confirm(offer: Manifest) -> bool:
        if not callable(accept):
            return bool(accept)
        try:
            answer = accept(offer)
            return bool(await answer if isawaitable(answer) else answer)
        except Exception as error:
            raise Declined from error

    return confirm
