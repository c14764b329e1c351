"""What both ends of a transfer do when there is reason to think that the other one, or the path, has gone."""

from __future__ import annotations

import pytest

from flyx.errors import (
    ConnectionLost,
    Declined,
    PairingFailed,
    StorageError,
    TransferInterrupted,
    TransferRefused,
)
from flyx.pairing import messages as pairing
from flyx.transfer import messages
from flyx.transfer.receiver import Receiver
from flyx.transfer.sender import Sender
from flyx.transfer.session import (
    CHECK_LIMIT,
    CHECK_ROUND_TRIPS,
    GONE_LIMIT,
    LATE,
    LONG_STANDSTILL,
    PING_INTERVAL,
    SILENCE_LIMIT,
    STANDSTILL_COUNTS,
    Failed,
    RoundTrip,
    error_of_cancel,
)
from tests.simulator import manifest_of

NOW = 50.0
GONE = NOW + 1.0


@pytest.fixture(params=["receiver", "sender"])
def machine(request: pytest.FixtureRequest) -> Receiver | Sender:
    """Either end, in the middle of a transfer: its first ping is on its way."""
    if request.param == "receiver":
        made: Receiver | Sender = Receiver(ask=False, now=NOW)
    else:
        made = Sender(manifest_of({"a": b"a"}), max_message_size=16384, now=NOW)
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


MOVED = "the network has changed"


def why_lost(machine: Receiver | Sender) -> str | None:
    """Why the connection is lost; None while it is not."""
    ends = [event.error for event in iter(machine.next_event, None) if isinstance(event, Failed)]
    assert all(type(error) is ConnectionLost for error in ends)
    return str(ends[0].fields["reason"]) if ends else None


@pytest.mark.parametrize(
    ("round_trip", "limit"),
    [
        (0.01, CHECK_LIMIT),
        (0.6, CHECK_ROUND_TRIPS * 0.6),
        (9.0, GONE_LIMIT),
        # It has not been measured.
        (None, GONE_LIMIT),
    ],
)
def test_a_path_in_doubt_is_given_up_after_some_round_trips(
    machine: Receiver | Sender, round_trip: float | None, limit: float
) -> None:
    now = GONE
    if round_trip is not None:
        now = NOW + round_trip
        run(machine, now)
        hear(machine, messages.Pong(token=1), now)
    machine.check_path(now, MOVED)
    run(machine, now + limit - 0.01)
    assert why_lost(machine) is None
    run(machine, now + limit + 1e-6)
    assert why_lost(machine) == MOVED


def test_a_path_in_doubt_that_answers_is_as_good_as_before(machine: Receiver | Sender) -> None:
    machine.check_path(GONE, MOVED)
    assert run(machine, GONE) == [2]
    hear(machine, messages.Pong(token=2), GONE + 0.25)
    run(machine, GONE + 0.25 + SILENCE_LIMIT - 0.01)
    assert why_lost(machine) is None
    run(machine, GONE + 0.25 + SILENCE_LIMIT)
    assert why_lost(machine) != MOVED


def test_a_path_that_is_known_to_be_gone_is_not_asked(machine: Receiver | Sender) -> None:
    machine.path_gone(MOVED)
    assert why_lost(machine) == MOVED


@pytest.mark.parametrize("seconds", [LATE + 1.0, LONG_STANDSTILL - 1.0])
def test_a_short_standstill_of_ones_own_is_no_silence_of_the_other_side(
    machine: Receiver | Sender, seconds: float
) -> None:
    """A terminal that blocks, a debugger, a short sleep: what came meanwhile is read next."""
    due = machine.next_timeout()
    assert due is not None
    woken = due + seconds
    machine.handle_timeout(woken)
    assert why_lost(machine) is None
    hear(machine, messages.Ping(token=7), woken + GONE_LIMIT - 0.1)
    run(machine, woken + GONE_LIMIT + SILENCE_LIMIT - 0.2)
    assert why_lost(machine) is None


@pytest.mark.parametrize("told_by", ["the clock of the machine", "the clock of the system"])
def test_after_a_long_standstill_the_path_is_asked_and_the_truth_is_told(
    machine: Receiver | Sender, told_by: str
) -> None:
    due = machine.next_timeout()
    assert due is not None
    if told_by == "the clock of the machine":
        woken = due + 90.0
        machine.handle_timeout(woken)
    else:
        # Monotonic time stands still in sleep.
        woken = due
        machine.stood_still(90.0, woken)
    assert run(machine, woken)
    run(machine, woken + GONE_LIMIT)
    assert why_lost(machine) == "this computer slept, or this program was stopped, for 90 s"


def test_a_connection_that_is_found_closed_too_late_was_lost_by_us(machine: Receiver | Sender) -> None:
    due = machine.next_timeout()
    assert due is not None
    machine.channel_closed(due + 90.0)
    assert why_lost(machine) == "this computer slept, or this program was stopped, for 90 s"


@pytest.mark.parametrize("after", [0.1, STANDSTILL_COUNTS + 0.1])
def test_a_connection_that_was_closed_while_we_stood_still_was_lost_by_us(
    machine: Receiver | Sender, after: float
) -> None:
    machine.stood_still(90.0, GONE)
    [token] = run(machine, GONE)
    hear(machine, messages.Pong(token=token), GONE + 0.05)
    run(machine, GONE + after)
    machine.channel_closed(GONE + after)
    reason = why_lost(machine)
    assert reason is not None
    assert reason.startswith("this computer slept") == (after < STANDSTILL_COUNTS)


@pytest.mark.parametrize("late", [LATE - 0.1, LONG_STANDSTILL - 0.1])
def test_the_load_of_a_machine_explains_no_loss(machine: Receiver | Sender, late: float) -> None:
    due = machine.next_timeout()
    assert due is not None
    machine.handle_timeout(due + late)
    machine.channel_closed(due + late)
    reason = why_lost(machine)
    assert reason is not None
    assert not reason.startswith("this computer slept")


@pytest.mark.parametrize(
    ("code", "peer", "told"),
    [
        ("declined", "receiver", Declined()),
        ("no_space", "receiver", TransferRefused(reason="told")),
        ("storage_error", "receiver", "the receiver could not write where it wanted to"),
        ("storage_error", "sender", "the sender could not read where it wanted to"),
        ("interrupted", "sender", "the sender stopped it"),
        ("anything", "sender", "the sender reported: told"),
    ],
)
def test_what_ended_the_other_side_is_told_as_what_it_did(
    code: str, peer: str, told: str | TransferRefused
) -> None:
    error = error_of_cancel(messages.Cancel(code=code, message="told"), peer)
    expected = TransferInterrupted(reason=told) if isinstance(told, str) else told
    assert (type(error), str(error)) == (type(expected), str(expected))


def test_a_receiver_whose_code_has_words_where_ours_has_none_is_told_as_that() -> None:
    """The sender of a code without words has paired before it could hear that."""
    sender = Sender(manifest_of({"a": b"a"}), max_message_size=16384, now=NOW)
    sender.receive_control(pairing.serialize(pairing.Reject(reason="no_words_asked")), NOW)
    (ended,) = (event for event in iter(sender.next_event, None) if isinstance(event, Failed))
    assert isinstance(ended.error, PairingFailed)
    assert ended.error.fields["reason"] == "the receiver's code has words, and this one has none"


def test_what_the_disk_refused_names_no_path_to_the_other_side(machine: Receiver | Sender) -> None:
    machine.cancel(StorageError(action="write", path="/home/me/x", reason="Permission denied"))
    while (said := machine.next_control()) is not None:
        assert "/home" not in said
