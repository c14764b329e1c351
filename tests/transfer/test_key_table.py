"""A table of keys is what a dictionary would be, and a queue of digests what a deque would be."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from flyx.transfer.digests import DIGEST_SIZE, DigestQueue
from flyx.transfer.key_table import KeyTable

# Many in the same places, few and far ones.
KEYS = st.integers(1, 40) | st.integers(1, 1 << 12).map(lambda n: n << 10) | st.integers(1, (1 << 64) - 1)


@given(st.lists(st.tuples(KEYS, st.integers(0, (1 << 32) - 1)), max_size=60), st.lists(KEYS, max_size=10))
def test_a_table_is_what_a_dictionary_would_be(items: list[tuple[int, int]], others: list[int]) -> None:
    table, twin = KeyTable(), dict[int, int]()
    for key, number in items:
        table[key] = twin[key] = number
        assert len(table) == len(twin)
    for key in [*twin, *others]:
        assert (key in table) == (key in twin)
        assert table.get(key) == twin.get(key)


def test_a_table_grows_and_forgets_nothing() -> None:
    table = KeyTable()
    for n in range(1, 20_000):
        table[n * 0x9E37_79B9_7F4A_7C15 % (1 << 64)] = n
    assert len(table) == 19_999
    assert all(table.get(n * 0x9E37_79B9_7F4A_7C15 % (1 << 64)) == n for n in range(1, 20_000))


@given(st.lists(st.booleans(), max_size=200))
def test_a_queue_of_digests_is_what_a_deque_would_be(steps: list[bool]) -> None:
    queue, twin = DigestQueue(), deque[tuple[int, bytes]]()
    for n, is_added in enumerate(steps):
        if is_added:
            digest = bytes([n % 256]) * DIGEST_SIZE
            queue.append(n, digest)
            twin.append((n, digest))
        elif twin:
            assert queue.first == twin[0][0]
            assert queue.pop() == twin.popleft()
        assert len(queue) == len(twin)
