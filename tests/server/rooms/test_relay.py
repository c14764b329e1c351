"""Relaying without waiting, and its slow twin: clients see the same, whichever store their rooms are in."""

from __future__ import annotations

import asyncio
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from flyx.server.config import ServerConfig
from flyx.server.rooms.attachment import Attachment
from flyx.server.rooms.hub import Hub
from flyx.server.rooms.store import MemoryRoomStore
from flyx.signaling.config import RoomConfig
from flyx.signaling.messages import (
    Answer,
    AnswerData,
    CloseCode,
    ErrorCode,
    IceCandidate,
    IceCandidateData,
    Offer,
    OfferData,
    Relayed,
)
from tests.server.peers import FakeClock
from tests.thoroughness import share


class DistantStore(MemoryRoomStore):
    """Rooms that always have to be waited for."""

    def at_hand(self, room_id: str) -> None:
        return None


class Ear:
    """A connection that keeps what is sent on it."""

    queued_size = 0
    gone = False

    def __init__(self) -> None:
        self.heard: list[str] = []

    def send(self, text: str) -> None:
        self.heard.append(text)

    def close(self, code: CloseCode, error_code: ErrorCode, reason: str) -> None:
        self.heard.append(f"{int(code)} {error_code.value} {reason}")


# Clients are numbered in the order in which they come: 0 is the sender, 3 never comes.
_CLIENTS = 3
_TARGETS = st.sampled_from([None, *range(_CLIENTS + 1)])
_STEPS = st.one_of(
    st.tuples(st.sampled_from(["offer", "answer", "candidate"]), st.integers(0, _CLIENTS - 1), _TARGETS),
    st.tuples(st.sampled_from(["lose", "leave"]), st.integers(0, _CLIENTS - 1), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([1, 20, 40]), st.none()),
)


def _message(kind: str, target: str | None) -> Relayed:
    if kind == "offer":
        return Offer(data=OfferData(sdp="v=0", target_id=target))
    if kind == "answer":
        return Answer(data=AnswerData(sdp="v=0"))
    return IceCandidate(data=IceCandidateData(candidate=None, target_id=target))


async def _play(
    store: MemoryRoomStore, steps: list[tuple[str, int, int | None]]
) -> tuple[list[list[str]], bool]:
    """Return what each client heard, ids replaced by numbers, and whether anything had to be waited for."""
    clock = FakeClock()
    hub = Hub(store, ServerConfig(), clock=clock)
    room_id = (await hub.create_room(RoomConfig(grace=30.0))).room.room_id
    ears = [Ear() for _ in range(_CLIENTS)]
    seats: list[Attachment] = []
    for ear in ears:
        attachment = await hub.enter(ear, room_id, None)
        assert attachment is not None
        seats.append(attachment)
    names = {attachment.client_id: str(number) for number, attachment in enumerate(seats)}
    ids = [*names, "nobody"]
    waited = False
    for kind, number, target in steps:
        match kind:
            case "lose":
                await hub.lose(seats[number], "lost")
            case "leave":
                await hub.leave(seats[number], "left")
            case "wait":
                clock.now += number
            case _:
                rest = hub.relay(seats[number], _message(kind, None if target is None else ids[target]))
                if rest is not None:
                    waited = True
                    await rest
    heard = []
    for ear in ears:
        # The first message, `joined`, has a token and a room that were drawn.
        texts = "\n".join(ear.heard[1:])
        for client_id, name in names.items():
            texts = texts.replace(client_id, name)
        heard.append(texts.split("\n"))
    return heard, waited


@settings(max_examples=share(50))
@given(st.lists(_STEPS, max_size=20))
def test_relaying_at_once_is_relaying(steps: list[tuple[str, int, int | None]]) -> None:
    at_once, _ = asyncio.run(_play(MemoryRoomStore(max_rooms=9), steps))
    in_turn, _ = asyncio.run(_play(DistantStore(max_rooms=9), steps))
    assert at_once == in_turn


def test_a_message_waits_unless_all_that_comes_of_it_is_to_tell_those_present() -> None:
    between_those_present: list[tuple[str, int, int | None]] = [("offer", 0, None), ("answer", 1, None)]
    heard, waited = asyncio.run(_play(MemoryRoomStore(max_rooms=9), between_those_present))
    assert not waited
    assert json.loads(heard[0][-1]) == {"type": "answer", "data": {"client_id": "1", "sdp": "v=0"}}
    # A mailbox is part of the room.
    _, waited = asyncio.run(_play(MemoryRoomStore(max_rooms=9), [("lose", 1, None), ("offer", 0, None)]))
    assert waited
    refused: list[tuple[str, int, int | None]] = [("answer", 0, None)]
    heard, waited = asyncio.run(_play(MemoryRoomStore(max_rooms=9), refused))
    assert waited
    assert json.loads(heard[0][-1])["data"]["code"] == "wrong_role"
    _, waited = asyncio.run(_play(DistantStore(max_rooms=9), between_those_present))
    assert waited
