"""Whole transfers that begin with pairing, on a virtual clock."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from flyx.errors import FlyxError, PairingTimedOut, PeerUnreachable, TransferInterrupted, WrongWords
from flyx.pairing.exchange import (
    Exchange,
    Failed,
    Paired,
    WordsWanted,
)
from flyx.pairing.states import STEP_TIMEOUT, WORDS_TIMEOUT, PairingState
from flyx.transfer import session
from flyx.transfer.receiver import Receiver
from flyx.transfer.receiver_events import Received
from flyx.transfer.sender import Sender
from flyx.transfer.sender_events import Delivered
from tests.pairing.support import CODE, PASSWORD, receiver, sender
from tests.simulator import Conditions, Simulation
from tests.thoroughness import share

FILES: dict[str, bytes | None] = {"d": None, "d/secret name": random.Random(1).randbytes(3_000_000)}
MARGIN = 1.0


class Gated:
    """A transfer machine that its end's pairing stands before: to the simulator, it is the machine."""

    def __init__(
        self, exchange: Exchange, make: Callable[[float], Sender | Receiver], words: str | None
    ) -> None:
        self.exchange = exchange
        self._make = make
        self._words = words
        self._machine: Any = None
        self._now = 0.0
        self._events: list[object] = []

    @property
    def ended(self) -> bool:
        return self._machine.ended if self._machine else self.exchange.state is PairingState.FAILED

    def receive_control(self, message: str, now: float) -> None:
        self._drain(now)
        if self._machine:
            self._machine.receive_control(message, now)
        elif not self.exchange.ended:
            self.exchange.receive(message, now)
        self._drain(now)

    def handle_timeout(self, now: float) -> None:
        (self._machine or self.exchange).handle_timeout(now)
        self._drain(now)

    def channel_closed(self, now: float) -> None:
        if self._machine:
            self._machine.channel_closed(now)
        else:
            self.exchange.channel_closed()
        self._drain(now)

    def next_timeout(self) -> float | None:
        due: float | None = (self._machine or self.exchange).next_timeout()
        return due

    def next_control(self) -> str | None:
        said = self.exchange.next_message()
        if said is None and self._machine:
            said = self._machine.next_control()
        return said

    def next_event(self) -> object | None:
        if self._events:
            return self._events.pop(0)
        event: object | None = self._machine.next_event() if self._machine else None
        return event

    def _drain(self, now: float) -> None:
        self._now = now
        while (event := self.exchange.next_event()) is not None:
            match event:
                case WordsWanted():
                    if self._words is not None:
                        self.exchange.give_words(self._words, now)  # type: ignore[attr-defined]
                case Paired():
                    self._machine = self._make(now)
                case Failed(error=error):
                    self._events.append(session.Failed(error))

    def __getattr__(self, name: str) -> Any:
        if self._machine:
            return getattr(self._machine, name)
        # What the simulator asks of a machine that has nothing to do yet.
        idle = {"next_reads": list, "next_data": lambda: None, "next_operations": list, "spared_bytes": 0}
        return idle[name]


def simulation(seed: int, conditions: Conditions, words: str | None = PASSWORD) -> Simulation:
    """A transfer of FILES with pairing in front."""
    made = Simulation(FILES, seed=seed, conditions=conditions)
    ends = sender(CODE, seed=seed, now=made.now), receiver(seed=seed + 1, now=made.now)

    def make_sender(now: float) -> Sender:
        machine = Sender(made.manifest, max_message_size=conditions.max_message_size, now=now)
        machine.release()
        return machine

    def make_receiver(now: float) -> Receiver:
        return Receiver(ask=False, now=now)

    made.sender = Gated(ends[0], make_sender, None)  # type: ignore[assignment]
    made.receiver = Gated(ends[1], make_receiver, words)  # type: ignore[assignment]
    return made


def error_of(events: list[Any]) -> FlyxError:
    error = events[-1].error
    assert isinstance(error, FlyxError)
    return error


@pytest.mark.parametrize("seed", range(share(10)))
def test_what_is_paired_is_transferred(seed: int) -> None:
    run = simulation(seed, Conditions(network_delay=0.01 * (seed + 1)))
    run.run()
    assert run.destination.files == FILES
    assert isinstance(run.sender_events[-1], Delivered)
    assert isinstance(run.receiver_events[-1], Received)


def _overheard(receive: Callable[..., None], told: list[str]) -> Callable[..., None]:
    def overheard(text: str, now: float) -> None:
        told.append(text)
        receive(text, now)

    return overheard


@pytest.mark.parametrize("seed", range(share(3)))
def test_wrong_words_end_both_before_a_name_is_told(seed: int) -> None:
    run = simulation(seed, Conditions(), words="lemon-apple")
    told: list[str] = []
    for end in (run.sender, run.receiver):
        end.receive_control = _overheard(end.receive_control, told)  # type: ignore[method-assign]
    run.run()
    assert isinstance(error_of(run.sender_events), WrongWords)
    assert isinstance(error_of(run.receiver_events), WrongWords)
    assert told
    assert not [text for text in told if "secret name" in text or "manifest" in text]
    assert run.data_sent == 0


@pytest.mark.parametrize("seed", range(share(12)))
def test_a_path_that_is_cut_at_any_time_ends_both(seed: int) -> None:
    cut_at = random.Random(seed).uniform(0, 0.6)
    run = simulation(seed, Conditions(cut_at=cut_at))
    run.run()
    for events in (run.sender_events, run.receiver_events):
        if not isinstance(events[-1], Delivered | Received):
            assert isinstance(error_of(events), PairingTimedOut | TransferInterrupted)
    longest = 2 * STEP_TIMEOUT + WORDS_TIMEOUT
    assert run.now <= 1000.0 + cut_at + max(longest, session.SILENCE_LIMIT) + MARGIN


@pytest.mark.parametrize("seed", range(share(12)))
def test_channels_that_close_at_any_time_end_both_at_once(seed: int) -> None:
    closed_at = random.Random(seed).uniform(0, 0.6)
    run = simulation(seed, Conditions(closed_at=closed_at))
    run.run()
    assert run.now <= 1000.0 + closed_at + 1e-6
    for events in (run.sender_events, run.receiver_events):
        if not isinstance(events[-1], Delivered | Received):
            assert isinstance(error_of(events), PeerUnreachable | TransferInterrupted)
