"""send() of the API."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Literal

from flyx.api.connecting import connections_of, meeting_of
from flyx.api.parameters import (
    AnyPath,
    HasFileno,
    choice_of,
    descriptor_of,
    paths_of,
    patterns_of,
    rate_of,
    seconds_of,
    token_of,
)
from flyx.api.transfer import Transfer
from flyx.client.broadcast import Stream
from flyx.client.codes import make_code
from flyx.client.compression import Compression
from flyx.client.local import OwnServer
from flyx.client.meeting import RECONNECT_TIME
from flyx.client.send import SendOptions
from flyx.client.send import send as send_files
from flyx.errors import InputError
from flyx.pairing.exchange import Code
from flyx.pairing.words import MAX_WORDS, MIN_WORDS
from flyx.signaling.codes import normalise_room_id
from flyx.storage.exclusions import Exclusions
from flyx.storage.links import Links
from flyx.transfer.patterns import Patterns


def send(
    paths: AnyPath | Iterable[AnyPath] = (),
    *,
    text: str | None = None,
    stream: int | HasFileno | None = None,
    name: str = "stream",
    server: str | None = None,
    local: bool | None = None,
    receivers: int = 1,
    wait: float | None = None,
    words: int | None = None,
    code: str | None = None,
    room: str | None = None,
    open: bool = False,
    links: Literal["keep", "follow", "skip"] = "keep",
    exclude: str | Iterable[str] = (),
    gitignore: bool = False,
    compress: Literal["auto", "on", "off"] = "auto",
    limit: int | None = None,
    relay_only: bool = False,
    no_relay: bool = False,
    api_token: str | None = None,
    reconnect: float = RECONNECT_TIME,
) -> Transfer:
    """Send files, a text or a stream: return a transfer that begins when its events are asked for.

    Its first event with a code is RoomOpened. Parameters are the options of `flyx send` of these names.

    Args:
        paths: one path or several; none if there is a text or a stream.
        text: a text that the other side shows.
        stream: an open file, or its descriptor, that is sent from where it is to its end, whose size nobody
            has to know. It is not closed.
        name: what receivers save a stream as.
        server: URL of a signaling server; None: one at ws://localhost:8000 if there, else none: the room is
            served from this process, and found on the local network.
        local: True: on the local network alone, without any server; False: never there.
        receivers: it ends when so many have everything; 0: it goes on until it is closed.
        wait: seconds without any receiver after which it fails; None: it waits.
        words: how many random words the code has, 2 to 8; None: 2.
        code: words of your own for the code.
        room: the six characters of the code before its words, if nobody has that room; None: any.
        open: a code without words: the server is then trusted.
        links: what becomes of symbolic links inside directories.
        exclude: one pattern or several, as in .gitignore, of what is left out.
        gitignore: leave out what the .gitignore files in the directories say, and .git.
        compress: compress what shrinks where that saves time, wherever it saves bytes, or never.
        limit: bytes a second that all receivers get together at most; None: as many as can be.
        relay_only: hide our addresses from the other side: go through a TURN server, and nothing else.
        no_relay: go through no TURN server.
        api_token: the token that the server asks of those who make rooms.
        reconnect: seconds for which a lost connection is tried again.

    Raises:
        InputError: a parameter cannot be used.
    """
    meeting = meeting_of(server, local)
    if receivers < 0:
        raise InputError(reason=f"receivers is {receivers}: it is 0, for no end, or more")
    chosen = paths_of("paths", paths)
    if sum((bool(chosen), text is not None, stream is not None)) != 1:
        raise InputError(reason="one of paths, text and stream is to be sent, and no other")
    if stream is not None and not receivers:
        raise InputError(reason="a stream cannot be sent to any number of receivers")
    options = SendOptions(
        server=meeting.server,
        paths=chosen,
        text=text,
        stream=None if stream is None else Stream(descriptor_of("stream", stream), name),
        code=_code_of(words, code, is_open=open),
        room_id=None if room is None else normalise_room_id(room),
        receivers=receivers,
        compression=choice_of("compress", Compression, compress),
        limit=rate_of("limit", limit),
        wait=None if wait is None else seconds_of("wait", wait),
        api_token=token_of("api_token", api_token),
        reconnect=seconds_of("reconnect", reconnect),
        serve=_serve if meeting.local else None,
        connections=connections_of(relay_only=relay_only, no_relay=no_relay),
        links=choice_of("links", Links, links),
        exclusions=Exclusions(_patterns_of(exclude), gitignore),
    )
    return Transfer(partial(send_files, options))


def _code_of(words: int | None, own: str | None, *, is_open: bool) -> Code:
    """Return what receivers have to know.

    Raises:
        InputError: there is no such code.
    """
    if sum((words is not None, own is not None, is_open)) > 1:
        raise InputError(reason="words, code and open exclude each other")
    if words is not None and not MIN_WORDS <= words <= MAX_WORDS:
        raise InputError(reason=f"words is {words}, and not {MIN_WORDS} to {MAX_WORDS}")
    return make_code(own, words, is_open=is_open)


def _patterns_of(exclude: str | Iterable[str]) -> Patterns:
    texts = patterns_of("exclude", exclude)
    for text in texts:
        if not Patterns([text]):
            raise InputError(reason=f"exclude: this pattern can match nothing: {text}")
    return Patterns(texts)


def _serve() -> AbstractAsyncContextManager[OwnServer]:
    """Return a server of our own, whose modules are loaded only now."""
    from flyx.server.embedded import EmbeddedServer

    return EmbeddedServer()
