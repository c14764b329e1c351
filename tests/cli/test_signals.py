"""Which signals a command is asked about; what those do that it does not want is in test_runtime.py."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from flyx.cli.signals import signals_taken_by


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_signals_that_come_together_are_one() -> None:
    taken: list[int] = []

    def take(number: int) -> bool:
        taken.append(number)
        return True

    with signals_taken_by(take):
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
    assert taken == [signal.SIGTERM]


def test_afterwards_signals_do_what_they_do_without_us() -> None:
    with pytest.raises(ZeroDivisionError), signals_taken_by(lambda _: True):
        raise ZeroDivisionError
    for number in (signal.SIGINT, signal.SIGTERM):
        assert signal.getsignal(number) is signal.SIG_DFL
