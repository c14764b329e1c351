"""The states of a pairing at each end: what moves them, and how long each may last."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from flyx.pairing.keys import Role

STEP_TIMEOUT = 20.0
"""Seconds for each answer that no person has to think about."""

WORDS_TIMEOUT = 60.0
"""Seconds for a person to type the words."""


class PairingState(Enum):
    """What is awaited."""

    GREETING = auto()
    # The receiver's words, of its own person.
    WORDS = auto()
    PAKE = auto()
    CONFIRM = auto()
    PAIRED = auto()
    FAILED = auto()


class Input(Enum):
    """What moves the state: the kinds of messages, and what our own side does."""

    HELLO = auto()
    # A hello in a pairing that needs no words.
    OPEN_HELLO = auto()
    WORDS = auto()
    # Words for a sender whose share is here already.
    LAST_WORDS = auto()
    PAKE = auto()
    CONFIRM = auto()


TRANSITIONS: Mapping[Role, Mapping[tuple[PairingState, Input], PairingState]] = {
    Role.SENDER: {
        (PairingState.GREETING, Input.HELLO): PairingState.PAKE,
        (PairingState.GREETING, Input.OPEN_HELLO): PairingState.PAIRED,
        (PairingState.PAKE, Input.PAKE): PairingState.CONFIRM,
        (PairingState.CONFIRM, Input.CONFIRM): PairingState.PAIRED,
    },
    Role.RECEIVER: {
        (PairingState.GREETING, Input.HELLO): PairingState.WORDS,
        (PairingState.GREETING, Input.OPEN_HELLO): PairingState.PAIRED,
        (PairingState.WORDS, Input.WORDS): PairingState.PAKE,
        (PairingState.WORDS, Input.LAST_WORDS): PairingState.CONFIRM,
        (PairingState.PAKE, Input.PAKE): PairingState.CONFIRM,
        (PairingState.CONFIRM, Input.CONFIRM): PairingState.PAIRED,
    },
}
"""Any other message is out of place. Every state but the last two may also become FAILED."""

TIMEOUTS: Mapping[tuple[Role, PairingState], float] = {
    (Role.SENDER, PairingState.GREETING): STEP_TIMEOUT,
    # The receiver may have to ask its person first.
    (Role.SENDER, PairingState.PAKE): WORDS_TIMEOUT,
    (Role.SENDER, PairingState.CONFIRM): STEP_TIMEOUT,
    (Role.RECEIVER, PairingState.GREETING): STEP_TIMEOUT,
    # Without a deadline for our own person: the sender has one.
    (Role.RECEIVER, PairingState.PAKE): STEP_TIMEOUT,
    (Role.RECEIVER, PairingState.CONFIRM): STEP_TIMEOUT,
}
"""Seconds until a state has lasted too long."""
