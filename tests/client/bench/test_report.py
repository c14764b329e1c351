"""What the two sides of a measurement tell each other."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.client.bench.report import (
    MAX_SIZE,
    Received,
    Report,
    limit_named,
    parse_untrusted,
    serialize,
)
from flyx.client.limits import Limit
from flyx.errors import RemoteProtocolError

AMOUNTS = st.integers(0, 1 << 60)
LIMITS = st.sampled_from([None, *(limit.value for limit in Limit)])
REPORTS = st.builds(
    Report,
    limit=LIMITS,
    rtt=st.none() | st.floats(0, 3600),
    delivered=AMOUNTS,
    resent=AMOUNTS,
    received=st.none() | st.builds(Received, rate=AMOUNTS, limit=LIMITS),
)


@given(REPORTS)
def test_a_report_arrives_as_it_was_said_and_fits_its_block(report: Report) -> None:
    said = serialize(report)
    assert len(said) <= MAX_SIZE
    assert parse_untrusted(said) == report


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_what_is_no_report_is_an_error_of_the_other_side(data: bytes) -> None:
    with suppress(RemoteProtocolError):
        parse_untrusted(data)


@pytest.mark.parametrize(
    "said",
    [
        [],
        {"rtt": -1},
        {"rtt": "1"},
        {"delivered": 1.5},
        {"resent": 1 << 61},
        {"limit": 3},
        {"limit": "x" * 65},
        {"received": {"rate": -1}},
        {"received": {}},
    ],
)
def test_a_figure_that_cannot_be_is_an_error(said: object) -> None:
    with pytest.raises(RemoteProtocolError, match="without a report"):
        parse_untrusted(json.dumps(said).encode())


def test_a_report_of_a_later_release_is_read_as_far_as_it_is_known() -> None:
    report = parse_untrusted(b'{"limit": "the weather", "rtt": 0.5, "new": {"a": 1}}')
    assert (limit_named(report.limit), report.rtt) == (None, 0.5)


@pytest.mark.parametrize("limit", Limit)
def test_limits_go_by_their_names(limit: Limit) -> None:
    assert limit_named(limit.value) is limit


def test_the_part_that_was_sent_again_is_of_all_that_was_sent() -> None:
    assert Report(delivered=300, resent=100).resent_part == 0.25
    assert Report().resent_part is None
