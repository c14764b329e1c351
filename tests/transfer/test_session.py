"""What both ends of a transfer do when the signaling server says that the other one has gone."""

from __future__ import annotations

import pytest

from flyx.errors import ConnectionLost
from flyx.transfer import messages
from flyx.transfer.receiver import Receiver
from flyx.transfer.sender import Sender
from flyx.transfer.session import GONE_LIMIT, PING_INTERVAL, SILENCE_LIMIT, Failed, RoundTrip
from tests.simulator import manifest_of

NOW = 50.0
GONE = NOW + 1.0


@pytest.fixture(params=["receiver", "sender"])
def machine(request: pytest.FixtureRequest) -> Receiver | Sender:
    """Either end, in the middle of a transfer: its first ping is on its way."""
    if request.param == "receiver":
        made: Receiver | Sender = Receiver(ask=False, now=NOW)
    else:
        made = Sender(manifest_of({"a": b"a"}), max_message_size=16384, now=NOW, held=True)
    assert run(made, NOW) == [1]
    return made


def run(machine: Receiver | Sender, until: float) -> list[int]:
    """Let time pass; return the tokens of the pings that were sent."""
    while (due := machine.next_timeout()) is not None and due <= until:
        machine.handle_timeout(due)
    told = [messages.parse_control_untrusted(text) for text in iter(machine.next_control, None)]
    return [message.token for message in told if isinstance(message, messages.Ping)]


def hear(machine: Receiver | Sender, message: messages.ControlMessage, now: float) -> None:
    machine.receive_control(messages.serialize_control(message), now)


def round_trips(machine: Receiver | Sender) -> list[float]:
    return [event.seconds for event in iter(machine.next_event, None) if isinstance(event, RoundTrip)]


def test_what_was_under_way_when_a_peer_died_does_not_lengthen_the_wait(machine: Receiver | Sender) -> None:
    machine.peer_gone(GONE)
    last = GONE + 0.5
    # Even the answer to a ping of before: who gave it may be dead by now.
    for message in (messages.Ping(token=7), messages.Pong(token=1)):
        hear(machine, message, last)
    run(machine, last + GONE_LIMIT - 0.01)
    assert not machine.ended
    run(machine, last + GONE_LIMIT)
    ends = [event.error for event in iter(machine.next_event, None) if isinstance(event, Failed)]
    assert [type(error) for error in ends] == [ConnectionLost]
    assert f"for {GONE_LIMIT:.0f} s" in str(ends[0])


def test_a_peer_called_gone_is_asked_at_once_and_its_answer_counts_for_more(
    machine: Receiver | Sender,
) -> None:
    machine.peer_gone(GONE)
    assert run(machine, GONE) == [2]
    hear(machine, messages.Pong(token=2), GONE + 0.25)
    assert round_trips(machine) == [0.25]
    run(machine, GONE + 0.25 + SILENCE_LIMIT - 0.01)
    assert not machine.ended
    run(machine, GONE + 0.25 + SILENCE_LIMIT)
    assert machine.ended


def test_a_peer_called_gone_that_speaks_and_does_not_answer_is_still_heard(
    machine: Receiver | Sender,
) -> None:
    machine.peer_gone(GONE)
    now = GONE
    while now < GONE + 10 * GONE_LIMIT:
        now += GONE_LIMIT - 0.1
        run(machine, now)
        hear(machine, messages.Ping(token=7), now)
    assert not machine.ended


def test_a_server_that_repeats_itself_has_nothing_asked_again(machine: Receiver | Sender) -> None:
    for at in (0.0, 0.1, 0.2):
        machine.peer_gone(GONE + at)
        run(machine, GONE + at)
    assert machine.next_timeout() == GONE + PING_INTERVAL
