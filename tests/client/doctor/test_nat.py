"""How a NAT is judged by what others see of one socket."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.client.doctor.finding import FindingState
from flyx.client.doctor.nat import (
    Endpoint,
    Filtering,
    Mapping,
    filtering_finding,
    filtering_of,
    mapping_finding,
    mapping_of,
)

LOCAL = ("10.0.0.5", 5000)
FIRST, SECOND, THIRD = ("203.0.113.1", 1), ("203.0.113.1", 2), ("203.0.113.1", 3)


@pytest.mark.parametrize(
    ("answers", "mapping"),
    [
        # RFC 5780 §4.3: tests I, II and III.
        ((None,), Mapping.UNKNOWN),
        ((LOCAL,), Mapping.NONE),
        ((FIRST, FIRST), Mapping.INDEPENDENT),
        ((FIRST, SECOND, SECOND), Mapping.ADDRESS),
        ((FIRST, SECOND, THIRD), Mapping.ADDRESS_AND_PORT),
        ((FIRST, SECOND, None), Mapping.DEPENDENT),
        # No server with two addresses, but several servers.
        ((FIRST,), Mapping.UNKNOWN),
        ((FIRST, None, None, [FIRST]), Mapping.INDEPENDENT),
        ((FIRST, None, None, [FIRST, SECOND]), Mapping.DEPENDENT),
        # A server with two addresses knows better than two servers, whose answers may have another cause.
        ((FIRST, FIRST, FIRST, [SECOND]), Mapping.INDEPENDENT),
    ],
)
def test_mapping_is_what_others_see_of_one_socket(answers: tuple[Any, ...], mapping: Mapping) -> None:
    assert mapping_of(LOCAL, *answers) is mapping


@pytest.mark.parametrize(
    ("other_works", "from_other", "from_other_port", "filtering"),
    [
        (True, True, True, Filtering.INDEPENDENT),
        (True, False, True, Filtering.ADDRESS),
        (True, False, False, Filtering.ADDRESS_AND_PORT),
        # The other address answers nobody: its silence says nothing.
        (False, False, False, Filtering.UNKNOWN),
        (False, False, True, Filtering.UNKNOWN),
    ],
)
def test_filtering_is_whose_answers_come_in(
    other_works: bool, from_other: bool, from_other_port: bool, filtering: Filtering
) -> None:
    judged = filtering_of(other_works=other_works, from_other=from_other, from_other_port=from_other_port)
    assert judged is filtering


@pytest.mark.parametrize("mapping", Mapping)
@pytest.mark.parametrize("has_relay", [False, True])
def test_a_symmetric_nat_is_a_warning_and_needs_a_relay(mapping: Mapping, has_relay: bool) -> None:
    symmetric = mapping in (Mapping.ADDRESS, Mapping.ADDRESS_AND_PORT, Mapping.DEPENDENT)
    finding = mapping_finding(mapping, has_relay)
    assert finding.state is (FindingState.WARNING if symmetric else FindingState.OK)
    assert finding.meaning
    assert bool(finding.advice) is (symmetric and not has_relay)


_endpoints = st.sampled_from([LOCAL, FIRST, SECOND, THIRD])
_answers = st.none() | _endpoints


@given(_answers, _answers, _answers, st.lists(_endpoints, max_size=3), st.sampled_from(Filtering))
def test_whatever_is_answered_there_are_words_without_addresses(
    first: Endpoint | None,
    other_address: Endpoint | None,
    other_port: Endpoint | None,
    elsewhere: list[Endpoint],
    filtering: Filtering,
) -> None:
    mapping = mapping_of(LOCAL, first, other_address, other_port, elsewhere)
    if first is not None and first != LOCAL and other_address not in (None, first):
        assert mapping in (Mapping.ADDRESS, Mapping.ADDRESS_AND_PORT, Mapping.DEPENDENT)
    for finding in (mapping_finding(mapping, has_relay=True), filtering_finding(filtering, mapping)):
        assert finding.words
        assert "203.0.113" not in f"{finding.words} {finding.meaning} {finding.advice} {finding.figures}"
