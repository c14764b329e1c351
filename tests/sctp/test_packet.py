"""flyx/sctp/packet.py: the common header, its checksum, chunks and parameters."""

import struct

import pytest
from google_crc32c import value as crc32c
from hypothesis import given
from hypothesis import strategies as st

from flyx.errors import RemoteProtocolError
from flyx.sctp.chunks import ChunkType
from flyx.sctp.packet import (
    checksum_ok,
    has_zero_checksum,
    padded,
    serialize_chunk,
    serialize_packet,
    serialize_parameters,
    split_chunks_untrusted,
    split_parameters_untrusted,
)

CHUNKS = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=50)), max_size=6)


def packed(chunks, checksum=crc32c):
    return serialize_packet(1, 2, 3, [serialize_chunk(*chunk) for chunk in chunks], checksum)


def test_rfc_9260_section_3_1_common_header():
    packet = serialize_packet(0x1388, 0x1389, 0x01020304, [serialize_chunk(11, 0, b"")], None)
    assert packet == bytes.fromhex("1388 1389 01020304 00000000 0b000004")


def test_rfc_9260_appendix_a_checksum_is_least_significant_byte_first():
    packet = packed([(11, 0, b"")])
    zeroed = packet[:8] + bytes(4) + packet[12:]
    assert struct.unpack_from("<I", packet, 8)[0] == crc32c(zeroed)
    assert crc32c(b"123456789") == 0xE3069283


@given(CHUNKS)
def test_chunks_survive_a_round_trip(chunks):
    split = [(kind, flags, bytes(value)) for kind, flags, value in split_chunks_untrusted(packed(chunks))]
    assert split == chunks


@given(CHUNKS, st.data())
def test_one_damaged_byte_fails_the_checksum(chunks, data):
    packet = packed(chunks)
    assert checksum_ok(packet, crc32c)
    position = data.draw(st.integers(0, len(packet) - 1))
    flip = data.draw(st.integers(1, 255))
    damaged = packet[:position] + bytes([packet[position] ^ flip]) + packet[position + 1 :]
    assert not checksum_ok(damaged, crc32c)


def test_zero_checksum_is_told():
    assert has_zero_checksum(packed([], None))
    assert not has_zero_checksum(packed([(11, 0, b"")]))


def test_a_packet_cut_at_any_length_parses_or_raises_the_remote_error():
    packet = packed([(0, 3, b"x" * 17), (3, 0, b"y" * 12), (6, 0, b"")])
    for length in range(12, len(packet)):
        try:
            kinds = [kind for kind, _, _ in split_chunks_untrusted(packet[:length])]
        except RemoteProtocolError:
            continue
        # Whole chunks, the padding of the last one perhaps missing.
        assert kinds == [0, 3, 6][: len(kinds)]


@given(st.binary(max_size=200))
def test_garbage_only_raises_the_remote_error(garbage):
    for split in (
        lambda: list(split_chunks_untrusted(bytes(12) + garbage)),
        lambda: list(split_parameters_untrusted(memoryview(garbage))),
    ):
        try:
            split()
        except RemoteProtocolError:
            pass


@given(st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=50)), max_size=6))
def test_parameters_survive_a_round_trip(parameters):
    serialized = serialize_parameters(parameters)
    split = split_parameters_untrusted(memoryview(serialized))
    assert [(kind, bytes(value)) for kind, value in split] == parameters


@given(st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=50)), min_size=1, max_size=6))
def test_the_length_of_a_chunk_counts_the_padding_of_all_its_parameters_but_the_last(parameters):
    chunk = serialize_chunk(ChunkType.INIT, 0, serialize_parameters(parameters))
    (length,) = struct.unpack_from("!H", chunk, 2)
    sizes = [4 + len(value) for _, value in parameters]
    assert length == 4 + sum(padded(size) for size in sizes[:-1]) + sizes[-1]
    assert len(chunk) == padded(length)


@pytest.mark.parametrize("length", [0, 3])
def test_a_chunk_shorter_than_its_header_is_refused(length):
    with pytest.raises(RemoteProtocolError):
        list(split_chunks_untrusted(bytes(12) + struct.pack("!BBH", 0, 0, length)))


@given(st.integers(0, 1 << 20))
def test_padded_is_the_next_multiple_of_four(length):
    assert padded(length) % 4 == 0
    assert 0 <= padded(length) - length < 4
