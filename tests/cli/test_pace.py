"""Speed, time left and stalls, by a clock that is given."""

from __future__ import annotations

import pytest

from flyx.cli.pace import STALL, WINDOW, Pace

MB = 1_000_000


def steady(pace: Pace, begin: int, end: int, rate: int = MB) -> None:
    """Have bytes come at a steady rate from one second to another, ten times a second."""
    for tenth in range(begin * 10 + 1, end * 10 + 1):
        pace.advance(pace.done + rate // 10, pace.total, tenth / 10)


def test_speed_and_time_left_are_those_of_the_window() -> None:
    pace = Pace(0, 100 * MB, 0)
    steady(pace, 0, 20)
    assert pace.speed(20) == pytest.approx(MB)
    assert pace.remaining(20) == pytest.approx(80)
    steady(pace, 20, 35, rate=2 * MB)
    assert pace.speed(35) == pytest.approx(2 * MB)
    assert pace.remaining(35) == pytest.approx(25)


def test_at_first_nothing_is_said_of_speed() -> None:
    pace = Pace(0, 100 * MB, 0)
    pace.advance(5 * MB, 100 * MB, 0.1)
    assert pace.speed(0.1) is None
    assert pace.remaining(0.1) is None
    assert pace.speed(1.0) == 5 * MB


def test_bytes_that_were_there_before_are_no_speed() -> None:
    pace = Pace(0, 100 * MB, 0)
    pace.there_before(40 * MB)
    # They are counted in, bit by bit, and with them comes the first that is new.
    for tenth, done in ((1, 10), (2, 30), (3, 41)):
        pace.advance(done * MB, 100 * MB, tenth / 10)
    assert pace.speed(1.3) == pytest.approx(MB)
    steady(pace, 2, 10)
    assert pace.speed(10) == pytest.approx(MB, rel=0.1)


def test_what_begins_anew_is_no_speed_below_zero_and_none_that_it_had_before() -> None:
    pace = Pace(0, 100 * MB, 0)
    steady(pace, 0, 5)
    pace.there_before(pace.done)
    pace.advance(0, 100 * MB, 9)
    pace.advance(5 * MB, 100 * MB, 9.5)
    assert pace.speed(10) is None
    pace.advance(6 * MB, 100 * MB, 10.5)
    assert pace.speed(10.5) == pytest.approx(MB)


def test_a_stall_is_one_after_a_while_and_the_speed_falls_meanwhile() -> None:
    pace = Pace(0, 100 * MB, 0)
    steady(pace, 0, 10)
    assert pace.stalled(10 + STALL - 0.1) is None
    assert pace.stalled(17) == pytest.approx(7)
    speed = pace.speed(15)
    assert speed is not None
    assert speed < MB
    assert pace.speed(10 + WINDOW + 1) is None
    pace.advance(pace.done + 1, pace.total, 30)
    assert pace.stalled(30.5) is None


def test_a_slow_link_whose_blocks_come_seldom_is_no_stall_while_it_moves() -> None:
    pace = Pace(0, 100 * MB, 0)
    for second in range(1, 36):
        pace.moving(second)
        if second % 15 == 0:
            pace.advance(pace.done + MB, pace.total, second)
    assert pace.stalled(35) is None
    assert pace.speed(35) == pytest.approx(MB / 15, rel=0.35)


def test_what_is_complete_does_not_stall() -> None:
    pace = Pace(0, MB, 0)
    pace.advance(MB, MB, 1)
    assert pace.stalled(100) is None


def test_time_in_which_this_program_stood_still_is_no_stall_and_lowers_no_speed() -> None:
    pace = Pace(0, 100 * MB, 0)
    steady(pace, 0, 10)
    pace.skip(3600)
    assert pace.stalled(3610) is None
    assert pace.speed(3610) == pytest.approx(MB)
    steady(pace, 3610, 3615)
    assert pace.speed(3615) == pytest.approx(MB)
    assert pace.stalled(3617) is None
    assert pace.stalled(3619) == pytest.approx(4)
