"""Servers that break the protocol, in this process: what they say is checked when it arrives, and bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve

from flyx.client import signaling
from flyx.client.signaling import Interrupted, Restored, RetryPolicy, Signaling
from flyx.errors import InputError, ServerProtocolError, SignalingError
from flyx.signaling import messages
from flyx.signaling.codes import is_room_id, normalise_room_id
from flyx.signaling.config import MAX_MESSAGE_SIZE
from flyx.signaling.messages import IceCandidate, IceCandidateData, Role
from tests.hostile_text import HOSTILE, Place, changed, example, text_places
from tests.server.peers import until

OURS, THEIRS = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
QUICK = RetryPolicy(first_pause=0.01, longest_pause=0.05, limit=20.0)


def joined(role: Role = Role.SENDER, **data: object) -> dict[str, Any]:
    """A `joined` as a flyx server could say it, with these fields instead."""
    return {
        "type": "joined",
        "data": {
            "room_id": "K7M2QX",
            "client_id": OURS,
            "role": role,
            "resume_token": "token",
            "expires_at": 2e9,
            "peers": [{"client_id": THEIRS, "role": Role.RECEIVER if role is Role.SENDER else Role.SENDER}],
            "ice_servers": [
                {"urls": ["turn:example.org?transport=udp"], "username": "1:x", "credential": "secret"}
            ],
            "tunnel": {"token": "token"},
            "limits": {"max_message_size": 65536, "max_clients": 16, "grace": 30.0},
            "ice_servers_ttl": 3600.0,
            **data,
        },
    }


@asynccontextmanager
async def lying(*answers: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that answers each connection as the next of these does, then waits for its end."""
    left = list(answers)

    async def answer(socket: ServerConnection) -> None:
        await left.pop(0)(socket)
        await socket.wait_closed()

    async with serve(answer, "127.0.0.1", 0, compression=None, close_timeout=0.1) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


def says(*told: object) -> Callable[[ServerConnection], Awaitable[None]]:
    """Say these, one after the other."""

    async def answer(socket: ServerConnection) -> None:
        for message in told:
            await socket.send(json.dumps(message))

    return answer


def says_after_claim(*told: object) -> Callable[[ServerConnection], Awaitable[None]]:
    """The same after the client has said who it is."""

    async def answer(socket: ServerConnection) -> None:
        await socket.recv()
        await says(*told)(socket)

    return answer


async def hangs_up(socket: ServerConnection) -> None:
    await socket.send(json.dumps(joined()))
    socket.transport.abort()


LIES: dict[str, dict[str, Any]] = {
    "a room_id that is none": {"room_id": "K7M2Q"},
    "a room_id to be forgiven": {"room_id": "k7m2qx"},
    "another room": {"room_id": "K7M2QY"},
    "another role": {"role": "receiver"},
    "an empty client_id": {"client_id": ""},
    "no resume_token": {"resume_token": None},
    "a session that was not there": {"recovered": True},
    "messages that were never sent": {"received": 1},
    "a time before all times": {"expires_at": -1},
    "a time after all times": {"expires_at": 1e300},
    "itself as a peer": {"peers": [{"client_id": OURS, "role": "receiver"}]},
    "one peer twice": {"peers": [{"client_id": THEIRS, "role": "receiver"}] * 2},
    "another sender": {"peers": [{"client_id": THEIRS, "role": "sender"}]},
    "too many peers": {"peers": [{"client_id": f"c{n}", "role": "receiver"} for n in range(257)]},
    "too many ICE servers": {"ice_servers": [{"urls": [f"stun:h{n}" for n in range(11)]}] * 3},
    "a web page as an ICE server": {"ice_servers": [{"urls": ["https://example.org"]}]},
    "no token for a tunnel": {"tunnel": {"token": ""}},
    "limits that let nothing through": {"limits": {"max_message_size": 0, "max_clients": 16}},
    "a room of one": {"limits": {"max_message_size": 65536, "max_clients": 1}},
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_joined_that_a_server_cannot_say_is_a_named_error(lie: str) -> None:
    async with lying(says(joined(**LIES[lie]))) as url:
        with pytest.raises(ServerProtocolError, match="The signaling server broke the protocol"):
            async with Signaling(url, "K7M2QX", Role.SENDER):
                pass


@pytest.mark.parametrize("role", list(Role))
async def test_a_joined_that_a_server_can_say_is_taken(role: Role) -> None:
    async with lying(says(joined(role))) as url, Signaling(url, "K7M2QX", role) as client:
        assert client.joined.room_id == "K7M2QX"


CHECKED = [place for place in text_places(joined()) if place not in [("type",), ("data", "role")]]


def test_the_joined_above_has_every_field_of_its_model() -> None:
    """Of text, that is; a new one has to be put there, and is tried with hostile text then."""
    shown = {tuple(k for k in place if isinstance(k, str)) for place in text_places(joined())}
    known = {tuple(k for k in place if isinstance(k, str)) for place in text_places(example(messages.Joined))}
    assert known <= shown


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("place", CHECKED, ids=lambda place: ".".join(map(str, place)))
async def test_no_field_of_joined_takes_hostile_text(place: Place, kind: str) -> None:
    is_url = "urls" in place
    text = f"stun:{HOSTILE[kind]}" if is_url else HOSTILE[kind]
    # What is never shown may be odd, as long as it is text: it goes to ICE servers or back to this server.
    odd = text.isprintable() and (
        place[-1] in ("username", "credential")
        or ((is_url or place[-1] in ("resume_token", "token")) and text.isascii() and " " not in text)
    )
    async with lying(says(changed(joined(), place, text))) as url:
        client = Signaling(url, "K7M2QX", Role.SENDER)
        if odd:
            async with client:
                pass
        else:
            with pytest.raises(SignalingError) as caught:
                await client.__aenter__()
            assert HOSTILE[kind] not in str(caught.value)


@given(st.text(max_size=8) | st.from_regex(r"\A[0-9A-Z]{6}\Z"))
def test_a_room_id_is_what_normalising_leaves_alone(text: str) -> None:
    try:
        normalised = normalise_room_id(text)
    except InputError:
        assert not is_room_id(text)
    else:
        assert is_room_id(normalised)
        assert is_room_id(text) == (normalised == text)


RESUMED: dict[str, dict[str, Any]] = {
    "another client": {"client_id": THEIRS, "peers": []},
    "another room": {"room_id": "000000"},
    "another role": {"role": "receiver"},
    "another session than any": {"received": 5},
    "a token that cannot be sent": {"resume_token": "\r\n"},
}


@pytest.mark.parametrize("lie", RESUMED)
async def test_a_resumption_is_checked_like_the_first_time(lie: str) -> None:
    async with lying(hangs_up, says_after_claim(joined(**RESUMED[lie]))) as url:
        async with Signaling(url, None, Role.SENDER, retry=QUICK) as client:
            assert isinstance(await client.receive(), Interrupted)
            with pytest.raises(ServerProtocolError):
                await client.receive()


async def test_a_server_that_always_claims_to_have_what_was_never_sent_is_not_asked_for_ever() -> None:
    claims = joined(recovered=True, received=7)
    async with lying(hangs_up, says_after_claim(claims), says_after_claim(claims)) as url:
        async with Signaling(url, None, Role.SENDER, retry=QUICK) as client:
            assert isinstance(await client.receive(), Interrupted)
            with pytest.raises(ServerProtocolError, match="a session that was not there"):
                await client.receive()


def _told(kind: str, role: Role) -> dict[str, Any]:
    about = {"client_id": THEIRS}
    other = Role.RECEIVER if role is Role.SENDER else Role.SENDER
    data: dict[str, dict[str, Any]] = {
        "join": {**about, "role": other},
        "offer": {**about, "sdp": "v=0"},
        "answer": {**about, "sdp": "v=0"},
        "ice_candidate": {**about, "candidate": None},
        "disconnect": about,
    }
    return {"type": kind, "data": data[kind]}


@pytest.mark.parametrize(
    ("role", "message"),
    [
        (Role.SENDER, _told("offer", Role.SENDER)),
        (Role.RECEIVER, _told("answer", Role.RECEIVER)),
        (Role.SENDER, _told("join", Role.RECEIVER)),
        (Role.RECEIVER, _told("join", Role.SENDER)),
        (Role.SENDER, {"type": "join", "data": {"client_id": OURS, "resume_token": "x"}}),
        (Role.SENDER, joined()),
        (Role.SENDER, changed(_told("answer", Role.SENDER), ("data", "client_id"), "")),
        *[
            (role, changed(_told(kind, role), ("data", "client_id"), text))
            for role, kinds in (
                (Role.SENDER, ("join", "answer", "ice_candidate", "disconnect")),
                (Role.RECEIVER, ("join", "offer", "ice_candidate", "disconnect")),
            )
            for kind in kinds
            for text in (HOSTILE["lines"], HOSTILE["surrogates"], HOSTILE["bidi"])
        ],
    ],
    ids=repr,
)
async def test_what_a_server_cannot_say_to_this_role_is_a_named_error(
    role: Role, message: dict[str, Any]
) -> None:
    async with lying(says(joined(role), message)) as url, Signaling(url, "K7M2QX", role) as client:
        with pytest.raises(ServerProtocolError):
            await client.receive()


async def test_a_message_that_is_too_large_is_a_named_error_and_not_read() -> None:
    async def answer(socket: ServerConnection) -> None:
        await says(joined())(socket)
        await socket.send("x" * (MAX_MESSAGE_SIZE + 1))

    async with lying(answer) as url, Signaling(url, None, Role.SENDER) as client:
        with pytest.raises(ServerProtocolError, match="a message is too large"):
            await client.receive()


async def test_pings_without_end_are_answered_by_as_many_pongs_as_are_read() -> None:
    """One that asks and does not read fills no memory: one pong waits at most."""
    pings, said = 2000, 0
    asked = asyncio.Event()

    async def answer(socket: ServerConnection) -> None:
        nonlocal said
        many = [{"type": "ping", "data": {}}] * pings
        await says(joined(), *many, _told("disconnect", Role.SENDER))(socket)
        await asked.wait()
        async for message in socket:
            said += json.loads(message)["type"] == "pong"
            if json.loads(message)["type"] == "disconnect":
                break

    async with lying(answer) as url:
        async with Signaling(url, None, Role.SENDER) as client:
            assert isinstance(await client.receive(), messages.Disconnect)
            asked.set()
        assert 1 <= said < pings


async def test_what_nobody_takes_is_dropped_and_the_session_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signaling, "MAX_OUTGOING_SIZE", 10_000)
    claims: list[dict[str, Any]] = []

    async def back(socket: ServerConnection) -> None:
        claims.append(json.loads(await socket.recv())["data"])
        await says(joined())(socket)

    async with lying(hangs_up, back) as url:
        async with Signaling(url, None, Role.SENDER, retry=QUICK) as client:
            assert isinstance(await client.receive(), Interrupted)
            for _ in range(1000):
                client.post(IceCandidate(data=IceCandidateData(candidate=None, target_id=THEIRS)))
            assert await client.receive() == Restored(recovered=False)
    assert "received" not in claims[0]


async def test_a_connection_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signaling, "MAX_OUTGOING_LENGTH", 100)

    async with lying(says(joined()), says_after_claim(joined())) as url:
        async with Signaling(url, None, Role.SENDER, retry=QUICK) as client:
            for _ in range(101):
                client.post(IceCandidate(data=IceCandidateData(candidate=None, target_id=THEIRS)))
            assert isinstance(await client.receive(), Interrupted)
            assert await client.receive() == Restored(recovered=False)


def refreshed(url: str, username: str = "2:x", credential: str = "newer") -> dict[str, Any]:
    servers = [{"urls": [url], "username": username, "credential": credential}]
    return {"type": "ice_servers", "data": {"ice_servers": servers, "ice_servers_ttl": 60.0}}


async def test_newer_ice_servers_take_the_place_of_the_older_ones() -> None:
    answers = says(joined(), refreshed("turn:turn.example.org"), {"type": "offer", "data": {}})
    async with lying(answers) as url, Signaling(url, "K7M2QX", Role.SENDER) as client:
        with pytest.raises(ServerProtocolError):
            await client.receive()
        assert [server.credential for server in client.ice_servers] == ["newer"]


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("place", ["url", "username", "credential"])
async def test_no_field_of_newer_ice_servers_takes_hostile_text(place: str, kind: str) -> None:
    text = f"stun:{HOSTILE[kind]}" if place == "url" else HOSTILE[kind]
    odd = text.isprintable() and (place != "url" or (text.isascii() and " " not in text))
    told = refreshed(**({"url": "turn:turn.example.org"} | {place: text}))
    async with lying(says(joined(), told)) as url, Signaling(url, "K7M2QX", Role.SENDER) as client:
        before = client.ice_servers
        receiving = asyncio.create_task(client.receive())
        if odd:
            await until(lambda: client.ice_servers != before)
            receiving.cancel()
            return
        with pytest.raises(SignalingError) as caught:
            await receiving
        assert HOSTILE[kind] not in str(caught.value)
        assert client.ice_servers == before
