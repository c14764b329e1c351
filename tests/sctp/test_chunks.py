"""flyx/sctp/chunks.py: layouts by section of the RFCs, round trips, and what peers may do wrong."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.errors import RemoteProtocolError
from flyx.sctp import chunks
from flyx.sctp.chunks import (
    CauseCode,
    ForwardTsn,
    IncomingReset,
    Init,
    OutgoingReset,
    ReconfigResponse,
    Sack,
)

U16, U32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
PARSERS = (
    chunks.parse_init_untrusted,
    chunks.parse_sack_untrusted,
    chunks.parse_forward_tsn_untrusted,
    chunks.parse_reconfig_untrusted,
)
INIT = Init(1, 2, 3, 4, 5, b"cookie!", True, True, frozenset({130, 192}))
SACK = Sack(10, 1000, [(2, 3), (5, 9)], [7, 8])
FORWARD = ForwardTsn(77, [(1, 2), (3, 4)])
RECONFIG = [OutgoingReset(1, 2, 3, (4, 5, 6)), ReconfigResponse(9, 1)]


def value(chunk):
    """The value of a serialized chunk, without header and padding."""
    return memoryview(chunk)[4 : int.from_bytes(chunk[2:4], "big")]


EXAMPLES = (
    (chunks.parse_init_untrusted, chunks.serialize_init(INIT)),
    (chunks.parse_sack_untrusted, chunks.serialize_sack(SACK)),
    (chunks.parse_forward_tsn_untrusted, chunks.serialize_forward_tsn(FORWARD)),
    (chunks.parse_reconfig_untrusted, chunks.serialize_reconfig(RECONFIG)),
)


def test_rfc_9260_section_3_3_2_init():
    init = Init(0x01020304, 0x00010000, 0x10, 0x20, 0x0A0B0C0D, extensions=frozenset({192}))
    assert chunks.serialize_init(init) == bytes.fromhex(
        "01000019 01020304 00010000 0010 0020 0a0b0c0d 80080005 c0000000"
    )


def test_rfc_9260_section_3_3_3_init_ack_has_the_cookie():
    serialized = chunks.serialize_init(Init(1, 2, 3, 4, 5, b"abcd"))
    assert serialized[0] == 2
    assert serialized.endswith(bytes.fromhex("00070008") + b"abcd")


def test_rfc_9260_section_3_3_4_sack_example():
    # TSNs 10, 11, 12, 14, 15 and 17 have arrived of 10 … 17; a_rwnd 4660.
    assert chunks.serialize_sack(Sack(12, 4660, [(2, 3), (5, 5)])) == bytes.fromhex(
        "03000018 0000000c 00001234 0002 0000 0002 0003 0005 0005"
    )


def test_rfc_9260_section_3_3_7_abort():
    assert chunks.serialize_abort(CauseCode.USER_INITIATED_ABORT, b"bye") == bytes.fromhex(
        "0600000b 000c0007 62796500"
    )


def test_rfc_3758_section_3_2_forward_tsn():
    assert chunks.serialize_forward_tsn(ForwardTsn(0x01020304, [(1, 2)])) == bytes.fromhex(
        "c000000c 01020304 00010002"
    )


def test_rfc_6525_section_4_1_outgoing_reset():
    assert chunks.serialize_reconfig([OutgoingReset(1, 2, 3, [7])]) == bytes.fromhex(
        "82000016 000d0012 00000001 00000002 00000003 00070000"
    )


def test_rfc_6525_section_4_2_incoming_reset():
    parsed = chunks.parse_reconfig_untrusted(memoryview(bytes.fromhex("000e000a 00000001 00070000")))
    assert parsed.parameters == [IncomingReset(1, (7,))]


def test_rfc_6525_section_4_5_add_streams_is_unknown_to_us():
    parsed = chunks.parse_reconfig_untrusted(memoryview(bytes.fromhex("0011000c 00000009 00010000")))
    assert parsed.unknown == [9]


def test_rfc_4820_pad():
    assert chunks.serialize_pad(12) == bytes.fromhex("8400000c") + bytes(8)


def test_rfc_9653_zero_checksum_needs_the_method_of_dtls():
    for method, accepted in ((1, True), (2, False)):
        raw = bytes.fromhex("00000001 00010000 0001 0001 00000000 80010008") + method.to_bytes(4, "big")
        assert chunks.parse_init_untrusted(memoryview(raw)).zero_checksum is accepted


@given(
    st.builds(
        Init,
        st.integers(1, 0xFFFFFFFF),
        U32,
        st.integers(1, 0xFFFF),
        st.integers(1, 0xFFFF),
        U32,
        st.none() | st.binary(max_size=40),
        st.booleans(),
        st.booleans(),
        st.frozensets(st.integers(0, 255)),
    )
)
def test_init_survives_a_round_trip(init):
    assert chunks.parse_init_untrusted(value(chunks.serialize_init(init))) == init


@given(U32, U32, st.lists(st.integers(1, 0xFFFF), max_size=20, unique=True), st.lists(U32, max_size=5))
def test_sack_survives_a_round_trip(cumulative, a_rwnd, edges, duplicates):
    edges = sorted(edges)[: len(edges) // 2 * 2]
    gaps = list(zip(edges[::2], edges[1::2], strict=True))
    sack = chunks.parse_sack_untrusted(
        value(chunks.serialize_sack(Sack(cumulative, a_rwnd, gaps, duplicates)))
    )
    assert sack.gap_ack_blocks == gaps or not gaps
    assert (sack.cumulative_tsn_ack, sack.a_rwnd, list(sack.duplicate_tsns)) == (
        cumulative,
        a_rwnd,
        duplicates,
    )


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 20)), min_size=1, max_size=30))
def test_gap_ack_blocks_in_any_order_come_out_sorted_and_apart(blocks):
    gaps = [(start, start + length) for start, length in blocks]
    parsed = chunks.parse_sack_untrusted(value(chunks.serialize_sack(Sack(0, 0, gaps)))).gap_ack_blocks
    assert {t for a, b in parsed for t in range(a, b + 1)} == {t for a, b in gaps for t in range(a, b + 1)}
    assert all(left[1] < right[0] for left, right in pairwise(parsed))


@pytest.mark.parametrize("gap", [(0, 3), (5, 4)])
def test_a_gap_ack_block_of_nothing_is_refused(gap):
    with pytest.raises(RemoteProtocolError):
        chunks.parse_sack_untrusted(value(chunks.serialize_sack(Sack(0, 0, [gap]))))


@given(U32, st.lists(st.tuples(U16, U16), max_size=9))
def test_forward_tsn_survives_a_round_trip(tsn, streams):
    forward = ForwardTsn(tsn, streams)
    assert chunks.parse_forward_tsn_untrusted(value(chunks.serialize_forward_tsn(forward))) == forward


@given(U32, U32, U32, st.lists(U16, max_size=9).map(tuple), U32)
def test_reconfig_survives_a_round_trip(request_number, response, last_tsn, streams, result):
    parameters = [
        OutgoingReset(request_number, response, last_tsn, streams),
        ReconfigResponse(response, result),
    ]
    parsed = chunks.parse_reconfig_untrusted(value(chunks.serialize_reconfig(parameters)))
    assert parsed.parameters == parameters


@pytest.mark.parametrize(("parse", "serialized"), EXAMPLES)
def test_a_chunk_cut_at_any_length_parses_or_raises_the_remote_error(parse, serialized):
    whole = value(serialized)
    for length in range(len(whole)):
        try:
            parse(whole[:length])
        except RemoteProtocolError:
            continue


@pytest.mark.parametrize(("tag", "outbound", "inbound"), [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_an_init_without_tag_or_streams_is_refused(tag, outbound, inbound):
    with pytest.raises(RemoteProtocolError):
        chunks.parse_init_untrusted(value(chunks.serialize_init(Init(tag, 1, outbound, inbound, 1))))


@pytest.mark.parametrize("parse", PARSERS)
@given(garbage=st.binary(max_size=120))
def test_garbage_only_raises_the_remote_error(parse, garbage):
    try:
        parse(memoryview(garbage))
    except RemoteProtocolError:
        pass


@pytest.mark.parametrize(("parse", "serialized"), EXAMPLES)
@given(position=st.integers(0, 200), byte=st.integers(0, 255))
def test_a_damaged_chunk_only_raises_the_remote_error(parse, serialized, position, byte):
    damaged = bytearray(value(serialized))
    damaged[position % len(damaged)] = byte
    try:
        parse(memoryview(bytes(damaged)))
    except RemoteProtocolError:
        pass


def test_a_reconfig_of_more_than_two_parameters_is_refused():
    """Each can name all streams with 16 bytes: hundreds of them in one chunk would be tens of millions."""
    responses = [ReconfigResponse(number, 1) for number in range(3)]
    two, three = value(chunks.serialize_reconfig(responses[:2])), value(chunks.serialize_reconfig(responses))
    assert chunks.parse_reconfig_untrusted(two).parameters == responses[:2]
    with pytest.raises(RemoteProtocolError):
        chunks.parse_reconfig_untrusted(three)
