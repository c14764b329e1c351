from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import json as wire

from flyx.errors import RemoteProtocolError
from flyx.signaling.announcements import stamped
from flyx.signaling.config import MAX_MESSAGE_SIZE
from flyx.signaling.messages import (
    CLOSE_CODES,
    MAX_CLIENT_ID_LENGTH,
    MAX_SDP_SIZE,
    Answer,
    AnswerData,
    CloseCode,
    Disconnect,
    DisconnectData,
    ErrorCode,
    IceCandidate,
    IceCandidateData,
    IceCandidateInit,
    IceServer,
    IceServersData,
    Join,
    JoinData,
    Joined,
    JoinedData,
    Limits,
    Message,
    Offer,
    OfferData,
    Paired,
    PairedData,
    Peer,
    Ping,
    Pong,
    RefreshIceServers,
    Relayed,
    Role,
    error_message,
    parse_untrusted,
    serialize,
)
from tests.thoroughness import share

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
client_ids = st.uuids(version=4).map(str)
sdps = text.filter(bool)
counts = st.integers(0, 2**53)
peers = st.builds(Peer, client_id=client_ids, role=st.sampled_from(Role), away=st.booleans())
arrivals = st.builds(JoinData, client_id=client_ids, role=st.sampled_from(Role), recovered=st.booleans())
returns = st.builds(
    JoinData, client_id=client_ids, resume_token=text.filter(bool), received=st.none() | counts
)
candidates = st.builds(
    IceCandidateInit,
    candidate=text,
    sdp_mid=st.none() | text,
    sdp_m_line_index=st.none() | st.integers(0, 65535),
    username_fragment=st.none() | text,
)
ice_servers = st.builds(
    IceServer,
    urls=st.lists(text, max_size=3).map(tuple),
    username=st.none() | sdps,
    credential=st.none() | sdps,
)
joined_data = st.builds(
    JoinedData,
    room_id=text,
    client_id=client_ids,
    role=st.sampled_from(Role),
    resume_token=st.none() | text.filter(bool),
    recovered=st.booleans(),
    received=counts,
    expires_at=st.none() | st.floats(0, 1e11),
    peers=st.lists(peers, max_size=3).map(tuple),
    ice_servers=st.lists(ice_servers, max_size=3).map(tuple),
    ice_servers_ttl=st.none() | st.floats(1, 1e6),
    wants_paired=st.booleans(),
    limits=st.builds(
        Limits,
        max_message_size=st.integers(0, 2**31),
        max_clients=st.integers(0, 256),
        grace=st.floats(0, 1e6),
    ),
)
messages = st.one_of(
    st.builds(Joined, data=joined_data),
    st.builds(Join, data=arrivals | returns),
    st.builds(
        RefreshIceServers,
        data=st.builds(
            IceServersData,
            ice_servers=st.lists(ice_servers, max_size=3).map(tuple),
            ice_servers_ttl=st.none() | st.floats(1, 1e6),
        ),
    ),
    st.builds(
        Offer,
        data=st.builds(OfferData, client_id=client_ids, sdp=sdps, target_id=st.none() | client_ids),
    ),
    st.builds(Answer, data=st.builds(AnswerData, client_id=client_ids, sdp=sdps)),
    st.builds(
        IceCandidate,
        data=st.builds(
            IceCandidateData,
            client_id=client_ids,
            candidate=st.none() | candidates,
            target_id=st.none() | client_ids,
        ),
    ),
    st.builds(
        Disconnect, data=st.builds(DisconnectData, client_id=client_ids, reason=text, away=st.booleans())
    ),
    st.builds(Paired, data=st.builds(PairedData, target_id=st.none() | client_ids)),
    st.just(Ping()),
    st.just(Pong()),
    st.builds(
        error_message,
        st.sampled_from(ErrorCode),
        text,
        fatal=st.booleans(),
        retry_after=st.none() | st.floats(0, 1e6),
    ),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=10,
)
types = st.sampled_from(
    ["joined", "join", "offer", "answer", "ice_candidate", "paired", "disconnect", "ping", "pong", "error"]
)


def code_of(frame: str | bytes) -> ErrorCode | None:
    """The code of the error that a frame raises; None if it is a message."""
    try:
        parse_untrusted(frame)
    except RemoteProtocolError as exc:
        fault = exc
    else:
        return None
    # The sentence becomes the text of an `error` message.
    assert 0 < len(str(fault)) < 300
    return ErrorCode(str(fault.fields["code"]))


@given(messages)
def test_every_message_survives_the_wire(message: Message) -> None:
    frame = serialize(message)
    assert parse_untrusted(frame) == message
    assert parse_untrusted(frame.encode()) == message
    assert set(json.loads(frame)) == {"type", "data"}


@given(messages, text)
def test_the_server_writes_the_speaker_over_what_a_client_says_of_it(message: Message, claim: str) -> None:
    tree = json.loads(serialize(message))
    tree["data"]["client_id"] = claim[:MAX_CLIENT_ID_LENGTH]
    heard = parse_untrusted(json.dumps(tree), "the speaker")
    if isinstance(heard, Relayed):
        assert heard.data.client_id == "the speaker"
        assert stamped(heard, "the speaker") == stamped(message, "the speaker")
    else:
        assert heard == parse_untrusted(json.dumps(tree))


@given(json_values, json_values)
def test_of_a_known_speaker_too_garbage_is_refused_and_no_more(kind: object, data: object) -> None:
    for tree in ({"type": kind, "data": data}, {"type": "offer", "data": data}, kind):
        with contextlib.suppress(RemoteProtocolError):
            parse_untrusted(json.dumps(tree), "the speaker")


@given(messages)
@settings(max_examples=share(25))
def test_every_truncation_is_refused_as_bad_json(message: Message) -> None:
    frame = serialize(message).encode()
    for length in range(len(frame)):
        assert code_of(frame[:length]) is ErrorCode.BAD_JSON


@given(messages, json_values)
def test_unknown_fields_are_ignored(message: Message, value: object) -> None:
    tree = json.loads(serialize(message))
    tree["x-later"] = 1
    tree["data"]["x-later"] = json.loads(json.dumps(value).replace("NaN", "0").replace("Infinity", "0"))
    assert parse_untrusted(json.dumps(tree)) == message


@given(st.binary(max_size=200) | text)
@example("\ud800")
@example(b"\xff\xfe")
@example("NaN")
@example('{"type":"ping","data":{"n":NaN}}')
@example("1" * 5000)
@example("[" * 60_000)
@example('{"type":' * 5000)
@example('{"type":"ping","data":"\\ud800"}')
@example('{"type":"\\ud800"}')
@example('{"\\ud800":"\\ud800","type":"offer","data":{"\\ud800":1}}')
def test_garbage_raises_nothing_but_remote_protocol_error(frame: str | bytes) -> None:
    code_of(frame)


@given(types | text, json_values)
def test_any_json_raises_nothing_but_remote_protocol_error(kind: str, data: object) -> None:
    for tree in (data, {"type": kind}, {"type": kind, "data": data}, {"type": data, "data": {}}):
        code_of(json.dumps(tree))


@given(messages, st.data())
def test_any_field_replaced_raises_nothing_but_remote_protocol_error(
    message: Message, data: st.DataObject
) -> None:
    tree = json.loads(serialize(message))
    if tree["data"]:
        tree["data"][data.draw(st.sampled_from(sorted(tree["data"])))] = data.draw(json_values)
    code_of(json.dumps(tree))


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("", ErrorCode.BAD_JSON),
        ("{", ErrorCode.BAD_JSON),
        (b"\xff", ErrorCode.BAD_JSON),
        ("\ud800", ErrorCode.BAD_JSON),
        ('{"type":"ping","data":{"n":NaN}}', ErrorCode.BAD_JSON),
        ('{"type":"ping"}'.encode("utf-16"), ErrorCode.BAD_JSON),
        ("1" * 5000, ErrorCode.BAD_JSON),
        ("[" * 60_000, ErrorCode.BAD_JSON),
        ("[" * 100 + "]" * 100, ErrorCode.BAD_MESSAGE),
        ("[" * 30_000 + "]" * 30_000, ErrorCode.BAD_JSON),
        ('{"type":"ping","data":{"n":' + "[" * 30_000 + "]" * 30_000 + "}}", ErrorCode.BAD_JSON),
        ("[]", ErrorCode.BAD_MESSAGE),
        ('"offer"', ErrorCode.BAD_MESSAGE),
        ("{}", ErrorCode.BAD_MESSAGE),
        ('{"type":"teleport","data":{}}', ErrorCode.UNKNOWN_TYPE),
        ('{"type":"","data":{}}', ErrorCode.UNKNOWN_TYPE),
        ('{"type":7,"data":{}}', ErrorCode.UNKNOWN_TYPE),
        # Half of a pair stands for no character (RFC 8259 §8.2).
        ('{"type":"\\ud800","data":{}}', ErrorCode.BAD_JSON),
        ('{"type":"offer","data":{"sdp":"\\ud800"}}', ErrorCode.BAD_JSON),
        ('{"type":"offer"}', ErrorCode.BAD_MESSAGE),
        ('{"type":"offer","data":[]}', ErrorCode.BAD_MESSAGE),
        ('{"type":"offer","data":{}}', ErrorCode.BAD_MESSAGE),
        ('{"type":"offer","data":{"sdp":""}}', ErrorCode.BAD_MESSAGE),
        ('{"type":"offer","data":{"sdp":7}}', ErrorCode.BAD_MESSAGE),
        ('{"type":"ice_candidate","data":{}}', ErrorCode.BAD_MESSAGE),
        ('{"type":"ice_candidate","data":{"candidate":"candidate:1"}}', ErrorCode.BAD_MESSAGE),
        ('{"type":"ice_candidate","data":{"candidate":{"candidate":"","sdpMLineIndex":"0"}}}', "bad_message"),
        ('{"type":"ice_candidate","data":{"candidate":{"candidate":"","sdpMLineIndex":-1}}}', "bad_message"),
        ('{"type":"disconnect","data":{"reason":"' + "x" * 201 + '"}}', ErrorCode.BAD_MESSAGE),
        ('{"type":"join","data":{"client_id":"a"}}', ErrorCode.BAD_MESSAGE),
        ('{"type":"join","data":{"client_id":"a","role":"sender","resume_token":"x"}}', "bad_message"),
        ('{"type":"join","data":{"client_id":"a","resume_token":""}}', ErrorCode.BAD_MESSAGE),
        ('{"type":"join","data":{"client_id":"a","resume_token":"x","received":-1}}', "bad_message"),
        ('{"type":"join","data":{"client_id":"a","resume_token":"x","received":1.5}}', "bad_message"),
        ('{"type":"join","data":{"client_id":"a","resume_token":"x","received":1e400}}', "bad_message"),
        ('{"type":"join","data":{"client_id":"a","resume_token":"' + "x" * 257 + '"}}', "bad_message"),
        ('{"type":"error","data":{"code":"x","message":"y","fatal":"yes"}}', ErrorCode.BAD_MESSAGE),
        (
            '{"type":"error","data":{"code":"x","message":"y","fatal":true,"retry_after":-1}}',
            ErrorCode.BAD_MESSAGE,
        ),
        (
            '{"type":"error","data":{"code":"x","message":"y","fatal":true,"retry_after":"1"}}',
            ErrorCode.BAD_MESSAGE,
        ),
        ('{"type":"ping","data":{"pad":"' + "x" * MAX_MESSAGE_SIZE + '"}}', ErrorCode.MESSAGE_TOO_BIG),
        # 3 bytes each: the limit counts bytes, not characters.
        ('{"type":"ping","data":{"pad":"' + "€" * 22_000 + '"}}', ErrorCode.MESSAGE_TOO_BIG),
        ('{"type":"offer","data":{"sdp":"' + "x" * (MAX_SDP_SIZE + 1) + '"}}', ErrorCode.BAD_MESSAGE),
    ],
    ids=lambda value: str(value)[:40],
)
def test_each_fault_has_its_code(frame: str | bytes, code: str) -> None:
    assert code_of(frame) == code


def test_a_message_of_exactly_the_limit_is_taken() -> None:
    frame = '{"type":"ping","data":{"pad":""}}'
    frame = frame.replace('""', '"' + "x" * (MAX_MESSAGE_SIZE - len(frame)) + '"')
    assert len(frame) == MAX_MESSAGE_SIZE
    assert parse_untrusted(frame) == Ping()


@pytest.mark.parametrize("unit", ["x", '"', "\n", "\x01", "é", "\U0001f600"])
def test_the_largest_sdp_still_fits_when_it_is_relayed(unit: str) -> None:
    longest = "x" * 64
    taken = len(wire.encode(unit)) - 2
    sdp = unit * (MAX_SDP_SIZE // taken)
    offer = Offer(data=OfferData(client_id=longest, sdp=sdp, target_id=longest))
    assert MAX_SDP_SIZE <= len(serialize(offer).encode()) <= MAX_MESSAGE_SIZE
    with pytest.raises(ValueError, match="longer than"):
        OfferData(sdp=sdp + unit)


def test_errors_do_not_repeat_the_message() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_untrusted('{"type":"secret-type","data":{"sdp":"secret"}}')
    assert "secret" not in str(caught.value)


def test_candidates_have_the_names_of_the_browsers() -> None:
    candidate = {
        "candidate": "candidate:1 1 udp",
        "sdpMid": "0",
        "sdpMLineIndex": 0,
        "usernameFragment": None,
    }
    frame = json.dumps({"type": "ice_candidate", "data": {"client_id": "a", "candidate": candidate}})
    message = parse_untrusted(frame)
    assert isinstance(message, IceCandidate)
    assert message.data.candidate is not None
    assert message.data.candidate.sdp_mid == "0"
    assert json.loads(serialize(message)) == json.loads(frame)


def test_the_end_of_candidates_is_null_on_the_wire() -> None:
    message = IceCandidate(data=IceCandidateData(client_id="a", candidate=None))
    assert json.loads(serialize(message))["data"] == {"client_id": "a", "candidate": None}


def test_fields_that_are_absent_are_left_out() -> None:
    # RTCIceServer would turn null into the user name "null".
    server = IceServer(urls=("stun:example.org",))
    assert json.loads(wire.encode(server)) == {"urls": ["stun:example.org"]}
    assert json.loads(serialize(Offer(data=OfferData(sdp="v=0")))) == {
        "type": "offer",
        "data": {"sdp": "v=0"},
    }


def test_ping_needs_no_data() -> None:
    assert parse_untrusted('{"type":"ping"}') == Ping()


def test_errors_of_later_versions_are_understood() -> None:
    message = parse_untrusted('{"type":"error","data":{"code":"from_2031","message":"No.","fatal":true}}')
    assert message.type == "error"


def test_every_close_code_is_in_the_table() -> None:
    assert set(CLOSE_CODES) == set(CloseCode)
    for number, row in CLOSE_CODES.items():
        assert row.code == number
        assert row.meaning
    retried = {row.code for row in CLOSE_CODES.values() if row.retry}
    assert retried == {1012, 1013, 4408, 4429}


def test_error_codes_are_snake_case() -> None:
    assert all(code.value == code.name.lower() for code in ErrorCode)
