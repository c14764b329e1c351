"""Rates as people write them."""

from __future__ import annotations

import pytest

from flyx.cli.rate_options import bytes_a_second, limit_of
from flyx.errors import InputError
from flyx.transfer.rate_limit import MAX_RATE, MIN_RATE


@pytest.mark.parametrize(
    ("written", "rate"),
    [
        ("2MB", 2_000_000),
        ("2MB/s", 2_000_000),
        (" 500 kb/s ", 500_000),
        ("1.5MiB", 1_572_864),
        ("100000", 100_000),
        ("none", None),
        ("None", None),
        (None, None),
        ("1KB", MIN_RATE),
        ("1TB", MAX_RATE),
    ],
)
def test_a_limit_is_written_in_bytes_a_second(written: str | None, rate: int | None) -> None:
    assert limit_of(written) == rate


@pytest.mark.parametrize(
    "written", ["", "0", "0MB", "999", "1001GB", "-1", "fast", "8Mbit", "2MB/min", "nan"]
)
def test_what_is_no_limit_is_told_with_what_would_be(written: str) -> None:
    with pytest.raises(InputError) as caught:
        limit_of(written)
    assert str(caught.value) == f"--limit {written} is not a rate that can be kept to"
    expected = "write it in bytes a second, from 1KB to 1TB, like 500KB or 2MB; none is no limit"
    assert caught.value.hint == expected


def test_each_option_has_its_own_bounds() -> None:
    assert bytes_a_second("--relay", "16KB", "16KB", "1GB") == 16_000
    for rate in ("15KB", "1.1GB"):
        with pytest.raises(InputError, match=f"--relay {rate}"):
            bytes_a_second("--relay", rate, "16KB", "1GB")
