"""`flyx send --copy`: the command for the other side goes to the clipboard, by way of the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from flyx.cli.screen import screen

if TYPE_CHECKING:
    from flyx.client import events

Copy = Annotated[
    bool,
    typer.Option(
        "--copy",
        envvar="FLYX_COPY",
        help="Put the command for the other side on the clipboard of this terminal, also over ssh",
    ),
]

COPIED = "Copied to the clipboard, if this terminal lets programs do that."
NOT_COPIED = "Not copied to the clipboard: there is no terminal to copy through."


def copying(tell: Callable[[events.Event], None]) -> Callable[[events.Event], None]:
    """Return a reporter that copies the command once there is a code, says so, and passes all events on."""
    from flyx.client.codes import receive_command
    from flyx.client.events import Notice, RoomOpened

    def tell_and_copy(event: events.Event) -> None:
        tell(event)
        if isinstance(event, RoomOpened):
            command = receive_command(event.code, event.server if event.pass_on else None)
            tell(Notice(COPIED if screen.copy(command) else NOT_COPIED))

    return tell_and_copy
