"""flyx/sctp/serial.py."""

from hypothesis import given
from hypothesis import strategies as st

from flyx.sctp.serial import TSN_MODULUS, widen


@given(near=st.integers(-(1 << 40), 1 << 40), distance=st.integers(-(1 << 31), (1 << 31) - 1))
def test_widen_finds_the_number_within_half_the_circle(near, distance):
    assert widen((near + distance) % TSN_MODULUS, near) == near + distance


def test_widen_goes_on_across_the_wrap():
    assert widen(0, TSN_MODULUS - 1) == TSN_MODULUS
    assert widen(TSN_MODULUS - 1, TSN_MODULUS) == TSN_MODULUS - 1


def test_widen_may_go_below_zero():
    assert widen(TSN_MODULUS - 1, 0) == -1
