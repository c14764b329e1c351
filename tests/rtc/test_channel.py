from __future__ import annotations

from typing import cast

from aiortc import RTCDataChannel
from pyee.base import EventEmitter

from flyx.rtc.channel import MAX_EARLY_MESSAGES, Channel
from flyx.transfer.messages import EAGER_CREDIT
from flyx.transfer.rate_limit import MIN_PORTION


class Below(EventEmitter):
    """What a channel needs of aiortc's to get messages."""

    bufferedAmountLowThreshold = 0

    def close(self) -> None:
        self.emit("close")


class Ear:
    """What comes on a channel."""

    def __init__(self) -> None:
        self.messages: list[bytes | str] = []
        self.closed = False

    def message_received(self, message: bytes | str) -> None:
        self.messages.append(message)

    def channel_writable(self) -> None:
        pass

    def channel_closed(self) -> None:
        self.closed = True


def heard(sent: list[bytes]) -> Ear:
    """What somebody hears who listens when all this has come."""
    below, ear = Below(), Ear()
    channel = Channel(cast(RTCDataChannel, below))
    for message in sent:
        below.emit("message", message)
    channel.listen(ear)
    return ear


def test_all_that_may_come_before_it_is_accepted_is_kept_in_messages_of_any_length() -> None:
    """At a low rate they are short, and the proof that goes before them may be lost on its way."""
    sent = [bytes([number]) * MIN_PORTION for number in range(EAGER_CREDIT // MIN_PORTION)]
    ear = heard(sent)
    assert ear.messages == sent
    assert not ear.closed


def test_a_channel_that_gets_more_than_that_is_closed() -> None:
    ear = heard([b"x"] * (MAX_EARLY_MESSAGES + 1))
    assert ear.messages == [b"x"] * MAX_EARLY_MESSAGES
    assert ear.closed
