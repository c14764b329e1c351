from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.signaling.members import (
    MAX_MAILBOX_LENGTH,
    MAX_MAILBOX_SIZE,
    MAX_TAIL_LENGTH,
    MAX_TAIL_SIZE,
    Absence,
    Member,
    Tail,
    Traffic,
    hash_token,
    matches,
)
from flyx.signaling.messages import Role, encoded_size

NOW = 1_000_000.0
PLENTY = 10 * MAX_MAILBOX_SIZE


@given(st.integers(0, 10**6), st.lists(st.text(max_size=20), max_size=80), st.integers(-5, 10**6 + 100))
def test_a_tail_gives_back_exactly_what_came_after_a_count_or_says_that_it_cannot(
    before: int, texts: list[str], count: int
) -> None:
    tail = Tail(before)
    for text in texts:
        tail.append(text)
    missing = tail.since(count)
    kept = min(len(texts), MAX_TAIL_LENGTH)
    if before + len(texts) - kept <= count <= before + len(texts):
        assert missing == tuple(texts[count - before :])
    else:
        assert missing is None
    assert tail.count == before + len(texts)


@given(st.lists(st.sampled_from(["x" * 10_000, "€" * 10_000, "x"]), max_size=30))
def test_a_tail_is_bounded_in_bytes(texts: list[str]) -> None:
    tail = Tail()
    for text in texts:
        tail.append(text)
    assert sum(map(encoded_size, tail.texts)) <= MAX_TAIL_SIZE
    assert tail.texts == tuple(texts[len(texts) - len(tail.texts) :])


def test_a_tail_and_the_traffic_made_of_it_agree() -> None:
    tail = Tail(7)
    for n in range(50):
        tail.append(str(n))
    traffic = Traffic(0, tail.count, tail.texts)
    for count in range(70):
        assert traffic.since(count) == tail.since(count)


def test_the_mailbox_takes_so_many_messages_and_then_there_is_a_hole() -> None:
    absence = Absence(NOW, Traffic())
    for n in range(MAX_MAILBOX_LENGTH):
        absence = absence.with_message(str(n), PLENTY)
    assert absence.since(0) == tuple(str(n) for n in range(MAX_MAILBOX_LENGTH))
    overfull = absence.with_message("one more", PLENTY)
    assert overfull == Absence(NOW, None)
    assert overfull.with_message("and more", PLENTY) is overfull
    assert overfull.since(0) is None


def test_the_mailbox_takes_so_many_bytes_and_then_there_is_a_hole() -> None:
    big = "€" * (MAX_MAILBOX_SIZE // 12)
    absence = Absence(NOW, Traffic())
    for _ in range(4):
        absence = absence.with_message(big, PLENTY)
    assert absence.size == 4 * encoded_size(big) <= MAX_MAILBOX_SIZE
    assert absence.with_message("xxxxx", PLENTY).since(0) is None


def test_what_the_room_cannot_keep_makes_a_hole() -> None:
    absence = Absence(NOW, Traffic())
    assert absence.with_message("12345", 5).since(0) == ("12345",)
    assert absence.with_message("12345", 4).since(0) is None


@pytest.mark.parametrize("count", [None, -1, 2, 6])
def test_a_count_that_cannot_be_is_a_hole(count: int | None) -> None:
    absence = Absence(NOW, Traffic(0, 5, ("4", "5")), ("6",))
    assert absence.since(3) == ("4", "5", "6")
    assert absence.since(5) == ("6",)
    assert absence.since(count) is None


def test_a_member_is_known_by_its_newest_token_and_for_a_while_by_the_one_before() -> None:
    member = Member("a", Role.SENDER, 2, "", hash_token("new"), hash_token("old"), NOW + 30)
    assert member.accepts("new", NOW)
    assert member.accepts("old", NOW + 29)
    assert not member.accepts("old", NOW + 30)
    assert member.accepts("new", NOW + 1e9)
    for guess in ("", "New", "new ", hash_token("new"), "\ud800"):
        assert not member.accepts(guess, NOW)


def test_nothing_matches_no_token() -> None:
    for guess in ("", "-" * 64, "None"):
        assert not matches(guess, None)
        assert not matches(guess, "")
