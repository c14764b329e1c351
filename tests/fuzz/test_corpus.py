"""What the fuzzer has found stays found: every input of every corpus, within its bound of work."""

from __future__ import annotations

import inspect
from contextlib import suppress
from functools import partial

import pytest

from flyx.client.signaling import Signaling
from tests.fuzz.target import MODULES, Target, corpus, load
from tests.fuzz.work import TooMuchWork, lines, steps


@pytest.mark.parametrize("name", MODULES)
def test_every_input_kept_is_handled_within_its_bound(name: str) -> None:
    target = load(name)
    inputs = [path.read_bytes() for path in corpus(name)]
    assert inputs
    for data in [b"", *inputs]:
        target.check(data)


def test_the_corpus_reaches_a_client_that_tells_which_receivers_have_paired() -> None:
    """It was let into no room while the example of `joined` lacked a field."""
    target = load("signaling")
    reached: set[tuple[str | None, int]] = set()
    for path in corpus("signaling"):
        reached |= lines(partial(target.one_input, path.read_bytes()))
    body, start = inspect.getsourcelines(Signaling.tell_paired)
    assert (inspect.getsourcefile(Signaling), start + len(body) - 1) in reached


def spin(data: bytes) -> None:
    """Work that grows with the square of the input, in code of flyx."""
    from flyx.errors import printable

    for end in range(len(data)):
        printable("\\" * end)


def test_work_that_grows_faster_than_the_input_is_a_finding() -> None:
    target = Target(spin, base=100, per_byte=30)
    target.check(bytes(8))
    with pytest.raises(TooMuchWork):
        target.check(bytes(200))


def test_too_much_work_is_a_finding_also_when_the_code_swallows_it() -> None:
    def swallowed(data: bytes) -> None:
        with suppress(AssertionError):
            spin(data)

    with pytest.raises(TooMuchWork):
        Target(swallowed, base=100, per_byte=30).check(bytes(200))


def test_steps_are_the_same_each_time_and_only_of_flyx() -> None:
    assert steps(lambda: spin(bytes(30))) == steps(lambda: spin(bytes(30))) > 0
    assert steps(lambda: sorted(range(1000))) == 0
    assert all("flyx" in path for path, _ in lines(lambda: spin(bytes(3))))
