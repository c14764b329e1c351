from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from flyx.signaling.members import Member
from flyx.signaling.messages import Role
from flyx.signaling.places import who_gives_way


def receivers(*kinds: str) -> list[Member]:
    """In order of arrival; "a" is unpaired and of the address a, "A" has paired."""
    return [
        Member(str(n), Role.RECEIVER, n, "", "", address=kind.lower(), paired=kind.isupper())
        for n, kind in enumerate(kinds)
    ]


def number(member: Member | None) -> int | None:
    return None if member is None else member.generation


def test_the_longest_waiting_gives_way() -> None:
    assert number(who_gives_way(receivers("a", "b", "c"), "d")) == 0


def test_an_address_with_several_places_gives_one_before_the_others() -> None:
    assert number(who_gives_way(receivers("a", "b", "c", "b"), "d")) == 1


def test_a_newcomer_of_a_busy_address_displaces_its_own() -> None:
    assert number(who_gives_way(receivers("a", "b", "c"), "c")) == 2


def test_whoever_has_paired_gives_way_to_nobody() -> None:
    assert number(who_gives_way(receivers("A", "A", "b"), "a")) == 2
    assert who_gives_way(receivers("A", "A", "B"), "a") is None
    assert who_gives_way([], "a") is None


@given(st.lists(st.sampled_from("abcABC"), max_size=20), st.sampled_from("abcd"))
def test_the_one_that_gives_way_is_unpaired_of_the_busiest_address_and_its_first(
    kinds: list[str], newcomer: str
) -> None:
    members = receivers(*kinds)
    unpaired = [member for member in members if not member.paired]
    found = who_gives_way(members, newcomer)
    if found is None:
        assert not unpaired
        return
    assert not found.paired
    places = Counter([*(member.address for member in unpaired), newcomer])
    held = {member.address for member in unpaired}
    assert places[found.address] == max(places[address] for address in held)
    rivals = [m for m in unpaired if places[m.address] == places[found.address]]
    assert found is rivals[0]
