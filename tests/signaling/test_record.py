from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.signaling.commands import Enter, LoseConnection, Relay
from flyx.signaling.config import RoomConfig
from flyx.signaling.members import Traffic
from flyx.signaling.messages import Paired, PairedData
from flyx.signaling.record import BadRecord, dump_room, load_room
from flyx.signaling.room import Room, new_room, step

NOW = 1_000_000.0


def a_room() -> Room:
    """A room with something in every field."""
    config = RoomConfig(4, None, 5.0, True, 7.0, 9.0, 11.0)
    room = new_room("K7M2QX", config, NOW, owner_token="owner", creator="192.0.2.1")
    room, _ = step(room, Enter("s", "token of s", node="n1", hold=10.0), NOW)
    room, _ = step(room, Enter("r", "token of r", node="n2"), NOW)
    room, _ = step(room, LoseConnection("r", 2, "lost", Traffic(3, 9, ("eight", "nine")), settled=False), NOW)
    room, _ = step(room, Enter("q", "token of q", address="2001:db8::/64"), NOW)
    room, _ = step(room, Relay("s", 1, Paired(data=PairedData(target_id="q"))), NOW)
    room, _ = step(room, LoseConnection("s", 1, "lost", Traffic(0, 1, ("1",))), NOW)
    return room


RECORD = json.loads(dump_room(a_room()))


def test_a_room_comes_back_whole_and_its_record_is_short() -> None:
    assert load_room(dump_room(a_room())) == a_room()
    assert load_room(dump_room(a_room())).deadline == a_room().deadline
    empty = new_room("K7M2QX", RoomConfig(), NOW)
    assert load_room(dump_room(empty)) == empty
    assert len(dump_room(empty)) < 200


def test_no_token_is_in_a_record() -> None:
    assert "token of" not in dump_room(a_room())
    assert '"owner"' not in dump_room(a_room())


def objects(value: Any) -> list[dict[str, Any]]:
    """All objects in a value, itself included."""
    if isinstance(value, list):
        return [found for item in value for found in objects(item)]
    if isinstance(value, dict):
        return [value, *(found for item in value.values() for found in objects(item))]
    return []


@pytest.mark.parametrize("number", range(len(objects(RECORD))))
def test_a_field_of_a_later_version_is_ignored_wherever_it_is(number: int) -> None:
    record = json.loads(json.dumps(RECORD))
    objects(record)[number]["later"] = {"any": ["thing"]}
    assert load_room(json.dumps(record)) == a_room()


def change(**fields: Any) -> dict[str, Any]:
    return {**RECORD, **fields}


def change_member(number: int, **fields: Any) -> dict[str, Any]:
    members = [dict(member) for member in RECORD["members"]]
    members[number] |= fields
    return change(members=members)


@pytest.mark.parametrize("text", ["", "{", "\ud800", '{"version":"\ud800"}', b'"\xff"'])
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(BadRecord):
        load_room(text)


@pytest.mark.parametrize(
    "record",
    [
        change(version=2),
        change(version=None),
        change(room_id=""),
        change(created_at="yesterday"),
        change(generation=1),
        change(empty_since=NOW),
        change(members=[]),
        change(config={**RECORD["config"], "max_clients": 0}),
        change(config={**RECORD["config"], "grace": -1.0}),
        change(config={**RECORD["config"], "max_hold": -1.0}),
        change(config={**RECORD["config"], "unused_timeout": -1.0}),
        change(creator="1" * 65),
        change(owner_token_hash="secret"),
        change_member(1, client_id="s"),
        change_member(1, role="sender"),
        change_member(1, role="king"),
        change_member(1, token_hash="short"),
        change_member(1, address="1" * 65),
        change_member(1, paired=1),
        change_member(1, hold=-1.0),
        change_member(1, absence={"until": NOW, "traffic": {"sent": 1, "tail": ["a", "b"]}}),
        change_member(1, absence={"until": NOW, "traffic": {"sent": -1}}),
        change_member(1, absence={"until": NOW, "traffic": {}, "mailbox": ["x"] * 65}),
        change_member(1, absence={"until": NOW, "traffic": {"sent": 99, "tail": ["x"] * 33}}),
    ],
    ids=lambda record: str(record)[-60:],
)
def test_what_no_room_could_be_is_refused(record: dict[str, Any]) -> None:
    with pytest.raises(BadRecord) as caught:
        load_room(json.dumps(record))
    assert "secret" not in str(caught.value)


@given(st.integers(0, len(dump_room(a_room())) - 1))
def test_every_truncation_is_refused(length: int) -> None:
    with pytest.raises(BadRecord):
        load_room(dump_room(a_room())[:length])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_any_value_anywhere_is_a_room_or_a_bad_record(data: st.DataObject) -> None:
    record = json.loads(json.dumps(RECORD))
    place = record
    while True:
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(json_values)
        break
    try:
        room = load_room(json.dumps(record))
    except BadRecord:
        return
    assert load_room(dump_room(room)) == room
