"""Packets of other stacks, captured in real sessions: tests/sctp/data, written by e2e/peers/capture.py."""

import json
from pathlib import Path

import pytest
from google_crc32c import value as crc32c

from flyx.sctp import chunks
from flyx.sctp.association import Association, State
from flyx.sctp.chunks import ChunkType, OutgoingReset, ReconfigResponse
from flyx.sctp.config import Config
from flyx.sctp.congestion import make_controller
from flyx.sctp.packet import (
    COMMON_HEADER,
    checksum_ok,
    has_zero_checksum,
    padded,
    serialize_chunk,
    serialize_packet,
    split_chunks_untrusted,
)

STACKS = ("chromium", "libdatachannel", "pion")

EXPECTED = {
    ChunkType.DATA,
    ChunkType.SACK,
    ChunkType.COOKIE_ECHO,
    ChunkType.RE_CONFIG,
    ChunkType.FORWARD_TSN,
}
"""What every stack has sent; INIT or INIT ACK or both, too."""


def captured(stack):
    """Direction and bytes of each packet, in order."""
    document = json.loads((Path(__file__).with_name("data") / f"{stack}.json").read_text())
    return [(direction, bytes.fromhex(text)) for direction, text in document["packets"]]


def theirs(stack):
    return [packet for direction, packet in captured(stack) if direction == "<"]


def find(packets, kind):
    """The values of the chunks of a type."""
    return [value for packet in packets for k, _, value in split_chunks_untrusted(packet) if k == kind]


@pytest.mark.parametrize("stack", STACKS)
def test_every_packet_is_whole_and_of_every_kind_there_are_some(stack):
    packets = theirs(stack)
    kinds = {kind for packet in packets for kind, _, _ in split_chunks_untrusted(packet)}
    assert kinds >= EXPECTED
    assert kinds & {ChunkType.INIT, ChunkType.INIT_ACK}
    flags = {flags & 7 for packet in packets for kind, flags, _ in split_chunks_untrusted(packet) if not kind}
    # Ordered and unordered, whole, first, middle and last.
    assert flags == set(range(8))
    assert any(chunks.parse_sack_untrusted(value).gap_ack_blocks for value in find(packets, ChunkType.SACK))
    for packet in packets:
        assert has_zero_checksum(packet) or checksum_ok(packet, crc32c)


@pytest.mark.parametrize("stack", STACKS)
def test_packets_come_back_as_they_were_when_chunks_are_serialized_again(stack):
    for packet in theirs(stack):
        source, destination, tag, _ = COMMON_HEADER.unpack_from(packet)
        bundle = [serialize_chunk(kind, flags, bytes(v)) for kind, flags, v in split_chunks_untrusted(packet)]
        checksum = None if has_zero_checksum(packet) else crc32c
        assert serialize_packet(source, destination, tag, bundle, checksum) == packet


@pytest.mark.parametrize("stack", STACKS)
def test_chunks_that_we_write_too_come_back_as_they_were(stack):
    packets = theirs(stack)
    for value in find(packets, ChunkType.SACK):
        assert chunks.serialize_sack(chunks.parse_sack_untrusted(value))[4:] == bytes(value)
    for value in find(packets, ChunkType.FORWARD_TSN):
        assert chunks.serialize_forward_tsn(chunks.parse_forward_tsn_untrusted(value))[4:] == bytes(value)
    for value in find(packets, ChunkType.RE_CONFIG):
        reconfig = chunks.parse_reconfig_untrusted(value)
        assert reconfig.parameters
        assert not reconfig.unknown
        assert all(isinstance(told, OutgoingReset | ReconfigResponse) for told in reconfig.parameters)
        again = chunks.serialize_reconfig(reconfig.parameters)
        assert again[4:].ljust(padded(len(value)), b"\0") == bytes(value).ljust(padded(len(value)), b"\0")
    for kind in (ChunkType.INIT, ChunkType.INIT_ACK):
        for value in find(packets, kind):
            init = chunks.parse_init_untrusted(value)
            assert (init.cookie is None) is (kind == ChunkType.INIT)
            assert init.takes_forward_tsn
            assert ChunkType.RE_CONFIG in init.extensions
            # They tell more parameters than we know.
            ((_, _, ours),) = split_chunks_untrusted(bytes(12) + chunks.serialize_init(init))
            assert chunks.parse_init_untrusted(ours) == init


def drained(association):
    sent = []
    while packets := association.packets_to_send(100.0):
        sent += packets
    return sent


@pytest.mark.parametrize("stack", STACKS)
def test_the_recorded_set_up_is_answered_as_it_was_and_the_rest_survived(stack):
    packets = captured(stack)
    sent = [packet for direction, packet in packets if direction == ">"]
    ours = chunks.parse_init_untrusted(find(sent, ChunkType.INIT)[0])
    cookie = chunks.parse_init_untrusted(find(sent, ChunkType.INIT_ACK)[0]).cookie
    draws = iter([ours.initiate_tag, ours.initial_tsn, int.from_bytes(cookie[:-4], "big"), 0])
    association = Association(
        config=Config(),
        local_port=5000,
        remote_port=5000,
        controller=make_controller("cubic", 1132, lambda: 0.5),
        checksum=crc32c,
        draw=lambda bits: next(draws),
    )
    association.connect(100.0)
    assert drained(association) == [sent[0]]
    answers = []
    for packet in theirs(stack):
        kinds = {kind for kind, _, _ in split_chunks_untrusted(packet)}
        if kinds & {ChunkType.SACK, ChunkType.SHUTDOWN, ChunkType.ABORT}:
            # SACKs are for data that this association has not sent.
            continue
        association.receive_packets([packet], 100.0)
        answers += drained(association)
    for kind in (ChunkType.INIT_ACK, ChunkType.COOKIE_ECHO, ChunkType.COOKIE_ACK):
        assert [bytes(v) for v in find(answers, kind)][:1] == [bytes(v) for v in find(sent, kind)][:1], kind
    assert association.state is State.ESTABLISHED
    assert b"\x03" in [message.data[:1] for message in association.take_messages()]
