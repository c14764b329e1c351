"""What content hashes to, and by which algorithm two ends do it."""

from __future__ import annotations

import hashlib
import itertools
import random
import subprocess
import sys
from collections.abc import Mapping

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from flyx.errors import RemoteProtocolError
from flyx.transfer import messages
from flyx.transfer.digests import BLAKE3, DIGEST_SIZE, Algorithm, RunningDigest, algorithms_of
from flyx.transfer.manifest import BLOCK_SIZE
from flyx.transfer.receiver_events import FileReceived, Received
from flyx.transfer.sender import Sender
from flyx.transfer.sender_events import Delivered
from flyx.transfer.session import Failed
from tests.simulator import (
    FASTEST,
    Conditions,
    Content,
    MemoryDestination,
    Simulation,
    digests_of,
    manifest_of,
)
from tests.thoroughness import share

NOW = 50.0
QUICK = Conditions(network_delay=0.001, disk_delay=0.0001, max_message_size=65536)
ONLY_SHA256 = (Algorithm.SHA256,)
PEERS = {"new": FASTEST, "old": ONLY_SHA256}
TREE: dict[str, Content] = {
    "big": random.Random(1).randbytes(2 * BLOCK_SIZE + 17),
    "d": None,
    "d/empty": b"",
    "d/small": b"small",
    "zeros": bytes(BLOCK_SIZE + 3),
}
SIZE = sum(len(content) for content in TREE.values() if isinstance(content, bytes))


def simulate(
    algorithms: tuple[Algorithm, ...],
    destination: MemoryDestination | None = None,
    files: Mapping[str, Content] = TREE,
    seed: int = 1,
    after: int | None = None,
) -> Simulation:
    """Run a transfer, or as much of it as so many messages make."""
    simulation = Simulation(
        files, seed=seed, conditions=QUICK, destination=destination, holes=True, algorithms=algorithms
    )
    simulation.cut_after = after
    simulation.run()
    return simulation


def expected(files: Mapping[str, Content], algorithm: Algorithm) -> tuple[dict[str, str], str]:
    """The digest of each file, and of the transfer, by their definition."""
    contents = {path: content for path, content in files.items() if isinstance(content, bytes)}
    each = {path: algorithm.digest(digests_of(content, algorithm)) for path, content in contents.items()}
    whole = algorithm.digest(b"".join(each.values())).hex()
    return {path: digest.hex() for path, digest in each.items()}, whole


def told(simulation: Simulation, paths: list[str]) -> tuple[dict[str, str], str, str]:
    """What the receiver was told of each file and of all, and the sender of all."""
    delivered, received = simulation.sender_events[-1], simulation.receiver_events[-1]
    assert isinstance(delivered, Delivered), (simulation.seed, delivered)
    assert isinstance(received, Received), (simulation.seed, received)
    each = {
        paths[event.file]: event.digest
        for event in simulation.receiver_events
        if isinstance(event, FileReceived)
    }
    return each, received.digest, delivered.digest


@given(st.binary(max_size=5000), st.sampled_from(Algorithm))
def test_digests_are_those_of_the_algorithms_in_any_pieces(content: bytes, algorithm: Algorithm) -> None:
    one = {Algorithm.SHA256: hashlib.sha256, Algorithm.BLAKE3: blake3}[algorithm](content).digest()
    assert algorithm.digest(content) == algorithm.digest(memoryview(bytearray(content))) == one
    assert len(one) == DIGEST_SIZE
    running = RunningDigest(algorithm)
    running.add(content[:1000])
    other = running.copy()
    running.add(content[1000:])
    assert running.value() == one
    assert other.value() == algorithm.digest(content[:1000])


def test_blake3_gives_what_its_test_vectors_say() -> None:
    # test_vectors.json of the reference implementation: so many bytes of 0 to 250, again and again.
    vectors = {
        0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        1: "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
        1023: "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11",
        1024: "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
        1025: "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
    }
    for length, digest in vectors.items():
        content = bytes(n % 251 for n in range(length))
        assert Algorithm.BLAKE3.digest(content).hex() == digest


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_hole_has_the_digest_of_its_zeros(algorithm: Algorithm) -> None:
    for length in (1, 4096, BLOCK_SIZE):
        assert algorithm.hole_digest(length) == algorithm.digest(bytes(length))


def test_two_ends_use_blake3_if_both_can_and_sha256_in_any_case() -> None:
    assert algorithms_of({BLAKE3, "zstd"}) == FASTEST
    assert algorithms_of({"zstd"}) == algorithms_of(()) == ONLY_SHA256


def test_blake3_is_loaded_when_it_is_needed() -> None:
    script = (
        "import sys; from flyx.client import receive, send; from flyx.transfer.digests import Algorithm\n"
        "assert 'blake3' not in sys.modules; Algorithm.BLAKE3.digest(b''); assert 'blake3' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("peer", PEERS)
@given(
    sizes=st.lists(st.integers(0, 2 * BLOCK_SIZE + 1), min_size=1, max_size=5), seed=st.integers(0, 1 << 30)
)
@settings(max_examples=share(10))
def test_both_ends_tell_the_digests_of_the_algorithm_in_use(peer: str, sizes: list[int], seed: int) -> None:
    chance = random.Random(seed)
    files: dict[str, Content] = {str(n): chance.randbytes(size) for n, size in enumerate(sizes)}
    simulation = simulate(PEERS[peer], files=files, seed=seed)
    algorithm = PEERS[peer][0]
    assert simulation.sender.algorithm is simulation.receiver.algorithm is algorithm
    each, whole = expected(files, algorithm)
    assert told(simulation, list(files)) == (each, whole, whole)
    assert simulation.destination.files == files


def test_an_old_sender_hears_nothing_that_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[messages.ControlMessage] = []
    parse = messages.parse_control_untrusted

    def note(text: str | bytes) -> messages.ControlMessage:
        heard.append(parse(text))
        return heard[-1]

    monkeypatch.setattr(messages, "parse_control_untrusted", note)
    simulate(ONLY_SHA256)
    assert not [message for message in heard if isinstance(message, messages.HashWith)]
    # Which is what a new one hears, once.
    simulate(FASTEST)
    assert len([message for message in heard if isinstance(message, messages.HashWith)]) == 1


COUNT = simulate(FASTEST).arrived


@pytest.mark.parametrize(("first", "later"), list(itertools.product(PEERS, PEERS)))
@given(after=st.integers(0, COUNT), seed=st.integers(0, 1 << 30))
@settings(max_examples=share(10))
def test_a_transfer_goes_on_whatever_hashed_it_before(first: str, later: str, after: int, seed: int) -> None:
    cut = simulate(PEERS[first], seed=seed, after=after)
    destination = cut.destination.again()
    again = simulate(PEERS[later], destination, seed=seed)
    # What is here goes on as it was if both ends can.
    was, can = cut.destination.algorithm, PEERS[later]
    if cut.destination.written or was not in can:
        assert again.receiver.algorithm is (was if was in can else can[0])
    _, received, delivered = told(again, list(TREE))
    assert received == delivered == expected(TREE, again.receiver.algorithm)[1]
    assert destination.files == TREE
    assert cut.destination.written + destination.written == SIZE


A_DIGEST = "ab" * 32
HASH_WITH = messages.HashWith(algorithm=Algorithm.BLAKE3)
FIRST: dict[str, messages.ControlMessage] = {
    "a question": messages.Compare(files=[0]),
    "a kept file": messages.Kept(files=[(0, A_DIGEST)]),
    "blocks": messages.Have(file=0, first=0, sha256=[A_DIGEST]),
    "what it goes without": messages.LeftOut(entries=[(0, "not_wanted")]),
    "accept": messages.Accept(below=1),
}


@pytest.mark.parametrize("what", FIRST)
def test_an_algorithm_is_chosen_before_anything_that_it_matters_to(what: str) -> None:
    sender = Sender(manifest_of(TREE), max_message_size=16384, now=NOW)
    sender.release()
    for message in (FIRST[what], HASH_WITH):
        sender.receive_control(messages.serialize_control(message), NOW)
    failed = None
    while (event := sender.next_event()) is not None:
        failed = event
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, RemoteProtocolError)


def test_an_algorithm_that_nobody_knows_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        messages.parse_control_untrusted('{"type":"hash_with","algorithm":"md5"}')
