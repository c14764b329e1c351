"""Rooms on the local network, without a server that a person has set up.

A sender that no server was named to serves its room itself (OwnServer) and announces it; a receiver looks for
it there. What announcements are made of, and what is believed of them, is in flyx.signaling.local. Multicast
DNS is loaded when it is spoken: not for a room on a server.

A receiver asks, one after another: the server that there is by default, if any; the ports of LOCAL_PORTS on
this computer, which needs no network; and every server that announces the room. The first that claims to have
the room is believed. If that was a lie, which the pairing shows, the search goes on.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Hashable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import urlsplit

from msgspec import Struct

from flyx.client import events
from flyx.client.reach import network_addresses, reach_of
from flyx.client.signaling import Interrupted, Restored, Signaling
from flyx.errors import (
    NoSuchRoom,
    RoomNotFound,
    SenderGone,
    ServerProtocolError,
    ServerUnreachable,
    SignalingError,
    without_credentials,
)
from flyx.net.connect import ATTEMPT_DELAY, connect_tcp
from flyx.signaling.local import (
    LOCAL_PORTS,
    SERVICE_TYPE,
    draw_label,
    is_announced,
    is_label,
    properties_of,
    url_of_address,
    worth_trying,
)
from flyx.signaling.messages import Message, Role

if TYPE_CHECKING:
    from flyx.net.dnssd import Found

logger = logging.getLogger("flyx.client")

LOOK_FOR = 6.0
"""Seconds for which a receiver looks for the room. Questions go out after 0, 1 and 3 s: wifi may lose two."""

SAY_AFTER = 1.5
"""Seconds after which it says that it looks."""

MAX_PLACES = 32
MAX_SEARCH = 20.0
"""Servers that are asked for the room at most, and seconds after which no other one is."""

LAST_LOOK = 1.0
"""Seconds for another place to be found when the sender in the first one was not the right one."""

REACH_TIMEOUT = 3.0
"""Seconds for the addresses of an announcement to accept a connection."""

ENDING_TIME, ENDING_TRIES = 0.5, 10
"""Seconds in which a process that is killed ends what it has accepted, and how often that is looked at."""

JOIN_TIMEOUT = 4.0
"""Seconds for a server on this network to let us into a room, or to say that there is none."""

_HERE = "127.0.0.1"


class OwnServer(Protocol):
    """A server that serves one room from this process."""

    @property
    def port(self) -> int:
        """Where it listens, on all addresses."""

    @property
    def url(self) -> str:
        """For clients on this computer."""

    @property
    def api_token(self) -> str:
        """What makes the room."""


Serve = Callable[[], AbstractAsyncContextManager[OwnServer]]

Tell = Callable[[events.Event], None]


class Room(Struct, frozen=True):
    """A room that we are in.

    Attributes:
        server: URL of its server, without credentials; of a room that we have made, as others reach it.
        local: the sender serves itself.
        pass_on: others do not find the room without that URL.
        here_only: the server is reached from this computer alone.
    """

    signaling: Signaling
    server: str
    local: bool
    pass_on: bool = False
    here_only: bool = False


class SignalingOfSender(Signaling):
    """A room on a server on the sender's computer, as a rule its own process; that is this one or near it."""

    def __init__(self, url: str, room_id: str, hold: float) -> None:
        super().__init__(url, room_id, Role.RECEIVER, hold=hold, direct=True)
        self._address = _address_of(url)

    async def receive(self) -> Message | Interrupted | Restored:
        """As Signaling.receive().

        Raises:
            SenderGone: the connection is lost, and nothing listens there any more.
        """
        told = await super().receive()
        if isinstance(told, Interrupted) and await _is_refused(*self._address):
            # Other servers come back with what they knew. This one does not if it is the sender's process; a
            # `flyx serve` on its computer is announced in the same way, and nobody here can tell them apart.
            raise SenderGone
        return told


@asynccontextmanager
async def make_room(
    server: str | None,
    serve: Serve | None,
    api_token: str | None,
    tell: Tell,
    *,
    hold: float,
    room_id: str | None = None,
) -> AsyncIterator[Room]:
    """Make a room and join it as its sender: on a server, or where there is none, on one of our own.

    Args:
        server: to be asked; None: none is.
        serve: makes our own if there is no flyx server at `server`, which nobody has named and is on this
            computer; None: then that is an error.
        api_token: for `server`.
        tell: called with whether others can find our own server.
        hold: seconds for which we would like our place held while the connection is lost.
        room_id: of the room, normalised; None: the server draws it.

    Raises:
        SignalingError: the server did not let us in, or is not there, or the room is taken.
    """
    new = partial(Signaling, room_id=room_id, role=Role.SENDER, is_new=room_id is not None, hold=hold)
    async with AsyncExitStack() as stack:
        signaling: Signaling | None = None
        if server is not None:
            asked = new(server, api_token=api_token)
            signaling = await _join(asked, stack, is_optional=serve is not None)
        if signaling is not None:
            assert server is not None
            made_id = signaling.joined.room_id
            if serve is not None and (port := urlsplit(server).port):
                # The other computer has not named it either. It may serve this one alone.
                _begin(_announce(port, made_id, lambda _: None), stack)
            reach = await reach_of(server, made_id)
            url, pass_on = reach.url or without_credentials(server), serve is None
            here_only = reach.url is None if pass_on else not reach.by_others
            yield Room(signaling, url, local=False, pass_on=pass_on, here_only=here_only)
            return
        assert serve is not None
        own = await stack.enter_async_context(serve())
        signaling = new(own.url, api_token=own.api_token, direct=True)
        await stack.enter_async_context(signaling)
        _begin(_announce(own.port, signaling.joined.room_id, tell), stack)
        url = _url_for_others(own.port) or own.url
        yield Room(signaling, url, local=True, here_only=not network_addresses())


async def _join(signaling: Signaling, stack: AsyncExitStack, *, is_optional: bool) -> Signaling | None:
    """Make a room on a server; None if it is optional and there is no flyx server."""
    try:
        async with asyncio.timeout(JOIN_TIMEOUT if is_optional else None):
            return await stack.enter_async_context(signaling)
    except (ServerUnreachable, ServerProtocolError, TimeoutError):
        if not is_optional:
            raise
        return None


def _begin(work: Coroutine[Any, Any, None], stack: AsyncExitStack) -> None:
    """Do something until the stack is left."""
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)


async def _announce(port: int, room_id: str, tell: Tell) -> None:
    from flyx.net.dnssd import Service, announce

    label = draw_label(secrets.token_bytes)
    properties = await asyncio.to_thread(properties_of, room_id, label)
    in_trouble = False

    def tell_of(trouble: str | None) -> None:
        nonlocal in_trouble
        if trouble is None and in_trouble:
            tell(events.Notice("Others on this network can find this computer now."))
        elif trouble is not None and (url := _url_for_others(port)):
            tell(events.Notice(f"Others may not find this computer: {trouble}. They can add --server {url}"))
        elif trouble is not None:
            tell(events.Notice(f"Only a receiver on this computer can reach it: {trouble}."))
        in_trouble = trouble is not None

    try:
        await announce(Service(SERVICE_TYPE, label, port, properties), tell_of)
    except Exception as error:
        # Receivers that are given the URL find us all the same.
        logger.error("announcing failed", exc_info=error)


def _url_for_others(port: int) -> str | None:
    """Return a URL that leads others on our network here; None if we have no address that one could write."""
    addresses = [address for address in network_addresses() if "%" not in address]
    return url_of_address(addresses[0], port) if addresses else None


class Place(Struct, frozen=True):
    """Where the room may be. `local` as in Room; those with the same source are ways to one server."""

    url: str
    local: bool
    source: Hashable


async def find_rooms(
    room_id: str,
    server: str | None,
    tell: Tell,
    *,
    local: bool,
    hold: float,
    look_for: float | None = None,
) -> AsyncGenerator[Room, None]:
    """Join a room as its receiver wherever it is; should that one turn out to be a lie, go on with the next.

    While one is yielded we are in it. To be closed after use (contextlib.aclosing).

    Args:
        room_id: normalised.
        server: to be asked; None: none is.
        tell: called when it takes a while.
        local: look on this computer and its network as well.
        hold: seconds for which we would like our place held while the connection is lost.
        look_for: seconds for which it is looked for on the network; None: LOOK_FOR.

    Raises:
        SignalingError: it is nowhere, or it cannot be entered.
    """
    if not local:
        assert server is not None
        async with Signaling(server, room_id, Role.RECEIVER, hold=hold) as signaling:
            yield Room(signaling, without_credentials(server), local=False)
        return
    # Senders, and sources of places, that were met: one may be found in several places.
    met: set[Hashable] = set()
    failure: SignalingError | None = None
    async with _Search(room_id, server, tell, look_for or LOOK_FOR) as search:
        while (place := await search.next(LAST_LOOK if met else None)) is not None:
            if place.source in met:
                continue
            async with AsyncExitStack() as stack:
                try:
                    signaling = await _enter(place, room_id, stack, hold)
                except (NoSuchRoom, ServerUnreachable, TimeoutError) as error:
                    logger.debug("%s is not at %s: %r", room_id, without_credentials(place.url), error)
                    continue
                except SignalingError as error:
                    failure = failure or error
                    continue
                senders = {peer.client_id for peer in signaling.joined.peers}
                if senders <= met:
                    continue
                met |= {place.source, *senders}
                search.be_quiet()
                yield Room(signaling, without_credentials(place.url), place.local)
    if not met:
        raise failure or RoomNotFound(room_id=room_id, where=search.where)


async def _enter(place: Place, room_id: str, stack: AsyncExitStack, hold: float) -> Signaling:
    async with asyncio.timeout(JOIN_TIMEOUT):
        if place.local:
            return await stack.enter_async_context(SignalingOfSender(place.url, room_id, hold))
        return await stack.enter_async_context(Signaling(place.url, room_id, Role.RECEIVER, hold=hold))


class _Search:
    """Looks for the places where a room may be, in the background of an `async with` block.

    Attributes:
        where: where it has looked, as a person reads it.
    """

    def __init__(self, room_id: str, server: str | None, tell: Tell, look_for: float) -> None:
        self._room_id = room_id
        self._server = server
        self._tell = tell
        self._look_for = look_for
        # Those that have not been taken; None after the last.
        self._places: asyncio.Queue[Place | None] = asyncio.Queue()
        self._urls: set[str] = set()
        self._taken = 0
        self._began_at = time.monotonic()
        # Why the network could not be looked at.
        self._trouble: str | None = None
        # Whether announcements are those of the room, by what they say.
        self._judged: dict[Hashable, bool] = {}
        self._saying: asyncio.Task[None]
        self._looking: asyncio.Task[None]
        self._reaching: set[asyncio.Task[None]] = set()

    @property
    def where(self) -> str:
        asked = "on this computer" if self._server is None else f"at {self._server}, on this computer"
        if self._trouble:
            return f"{asked}, but not on this network: {self._trouble}"
        return f"{asked} and on this network"

    async def __aenter__(self) -> Self:
        if self._server is not None:
            self._add(Place(self._server, False, self._server))
        self._saying = asyncio.create_task(self._say())
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = (self._saying, self._looking, *self._reaching)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def be_quiet(self) -> None:
        """Say no more that we look: something is found."""
        self._saying.cancel()

    async def next(self, patience: float | None) -> Place | None:
        """Return the next place, or None if there is none.

        Args:
            patience: seconds to wait for it; None: as long as it is looked for.
        """
        if self._taken >= MAX_PLACES or (self._taken and time.monotonic() > self._began_at + MAX_SEARCH):
            return None
        self._taken += 1
        try:
            async with asyncio.timeout(patience):
                return await self._places.get()
        except TimeoutError:
            return None

    def _add(self, place: Place) -> None:
        if place.url not in self._urls and len(self._urls) < MAX_PLACES:
            self._urls.add(place.url)
            self._places.put_nowait(place)

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(self._look_for):
                await asyncio.gather(self._try_own_ports(), self._browse())
        except TimeoutError:
            pass
        finally:
            self._places.put_nowait(None)

    async def _say(self) -> None:
        await asyncio.sleep(SAY_AFTER)
        self._tell(events.Notice(f"Looking for {self._room_id} on this network"))

    async def _try_own_ports(self) -> None:
        for port in LOCAL_PORTS:
            await self._try_here(port)

    async def _try_here(self, port: int) -> None:
        if await _accepts(_HERE, port):
            self._add(Place(url_of_address(_HERE, port), True, port))

    async def _browse(self) -> None:
        from flyx.net.dnssd import Browser, CannotDiscover

        try:
            async with Browser(SERVICE_TYPE, is_label) as browser:
                while True:
                    await self._examine(await browser.next())
        except CannotDiscover as error:
            self._trouble = str(error)

    async def _examine(self, found: Found) -> None:
        key = found.label, found.properties
        if key not in self._judged:
            self._judged[key] = await asyncio.to_thread(
                is_announced, self._room_id, found.label, dict(found.properties)
            )
        if self._judged[key] and len(self._reaching) < MAX_PLACES:
            self._reaching.add(asyncio.create_task(self._reach(found)))

    async def _reach(self, found: Found) -> None:
        """Try the addresses of an announcement, each a little after the one before it (RFC 8305 §5).

        Unlike those of a name, all that answer are wanted: the first one may be another program's.
        """
        from flyx.net.dnssd import interfaces

        here = interfaces()
        addresses = worth_trying(found.addresses, here.networks)
        if found.port in LOCAL_PORTS:
            # Two computers can have one address, that of their bridges.
            elsewhere = [text for text in addresses if text.partition("%")[0] not in here.addresses]
            if len(elsewhere) < len(addresses):
                # We have asked these ports here before, when the sender may not have been there yet.
                await self._try_here(found.port)
            addresses = elsewhere
        with suppress(TimeoutError):
            async with asyncio.timeout(REACH_TIMEOUT):
                await asyncio.gather(*(self._try(found, *each) for each in enumerate(addresses)))

    async def _try(self, found: Found, number: int, address: str) -> None:
        await asyncio.sleep(number * ATTEMPT_DELAY)
        if await _accepts(address, found.port):
            self._add(Place(url_of_address(address, found.port), True, (found.label, found.port)))


def _address_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


async def _is_refused(address: str, port: int) -> bool:
    """Whether a computer says that nothing listens there.

    A process that is killed may lose its connections before what it listens on: this one is then let in, and
    ended as well.
    """
    try:
        async with asyncio.timeout(REACH_TIMEOUT):
            for _ in range(ENDING_TRIES):
                if not await _ends_at_once(address, port):
                    break
                await asyncio.sleep(ENDING_TIME / ENDING_TRIES)
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError):
        pass
    return False


async def _ends_at_once(address: str, port: int) -> bool:
    """Whether a connection is accepted and ended within ENDING_TIME, though we have said nothing."""
    with await connect_tcp(address, port) as sock:
        try:
            async with asyncio.timeout(ENDING_TIME):
                return not await asyncio.get_running_loop().sock_recv(sock, 1)
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False


async def _accepts(address: str, port: int) -> bool:
    """Whether anything accepts a connection there."""
    try:
        sock = await connect_tcp(address, port)
    except OSError:
        return False
    sock.close()
    return True
