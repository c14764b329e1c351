from __future__ import annotations

import json

from flyx.server.redis import wire
from flyx.server.redis.backend import Item
from flyx.signaling.commands import CloseClient, Deliver
from flyx.signaling.messages import CloseCode, Error, ErrorCode, ErrorData, Pong
from tests.server.redis.parts import ROOM, occupied, shared

ENTRY = shared(occupied(("sender", "a1"), ("receiver", "b1")), 7, "a1:3")
SENDER, RECEIVER = (ENTRY.room.members[name] for name in ("sender", "receiver"))


def test_a_change_tells_each_node_what_its_own_clients_get() -> None:
    refusal = Error(data=ErrorData(code="no_such_peer", message="who?", fatal=False))
    effects = (
        Deliver(SENDER, Pong()),
        Deliver(RECEIVER, Pong()),
        Deliver(RECEIVER, refusal),
        CloseClient(RECEIVER, CloseCode.ROOM_CLOSED, ErrorCode.ROOM_CLOSED, "over"),
    )
    messages = wire.dump_changes(ENTRY, "a1:2", "record", ["b1", "c1"], effects)
    assert messages.keys() == {"b1", "c1"}
    head = ["room", ROOM, "incarnation", 7, "a1:3", "a1:2", "record"]
    *there, told = json.loads(messages["b1"])
    assert there == head
    [pong, error, close] = told
    assert [pong[:3], json.loads(pong[3])["type"], pong[4]] == [
        ["send", "receiver", RECEIVER.generation],
        "pong",
        True,
    ]
    # What is about no peer is not counted.
    assert json.loads(error[3])["type"] == "error"
    assert error[4] is False
    assert close == ["close", "receiver", RECEIVER.generation, 4410, "room_closed", "over"]
    assert json.loads(messages["c1"]) == [*head, []]


def test_an_item_is_written_as_it_stands_in_a_batch() -> None:
    item = Item(ROOM, ENTRY.state, "sender", (("receiver", 2), ("other", 5)), "text")
    assert json.loads(wire.dump_item(item)) == [ROOM, "sender", [["receiver", 2], ["other", 5]], "text"]
