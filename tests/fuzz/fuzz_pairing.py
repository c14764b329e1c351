"""Messages of pairing to one end.

The input is messages to one end, made as grammar.py says, or the honest one that is due, so that the fuzzer
gets to every state. Findings are, besides exceptions, a pairing in which a message was not an honest one, and
a message that cannot be read again as it was written.
"""

from __future__ import annotations

from flyx.errors import RemoteProtocolError
from flyx.pairing import messages
from flyx.pairing.exchange import Exchange, ReceiverExchange, WordsWanted
from flyx.pairing.states import PairingState
from tests.fuzz.grammar import make_message
from tests.fuzz.source import Source
from tests.fuzz.target import Target
from tests.pairing.support import NOW, PASSWORD, receiver, sender


def drain(end: Exchange) -> list[str]:
    """Return what an end says, and take its events."""
    while (event := end.next_event()) is not None:
        if (
            isinstance(event, WordsWanted)
            and isinstance(end, ReceiverExchange)
            and end.state is PairingState.WORDS
        ):
            end.give_words(PASSWORD, NOW)
    said = []
    while (message := end.next_message()) is not None:
        said.append(message)
    return said


GREETING = {"type": "hello", "version": 2, "agent": "x", "nonce": "5e" * 16, "features": [], "needs": []}
EXAMPLES = [
    {**GREETING, "features": ["a"], "words": 0},
    {**GREETING, "needs": ["a"], "session": "0" * 32},
    {**GREETING, "code": "words", "words": 2},
    {**GREETING, "code": "open", "words": 0},
    {"type": "hello", "version": 1, "agent": "x"},
    {"type": "pake", "share": "09" + "00" * 31},
    {"type": "pake", "share": "00" * 32},
    {"type": "confirm", "words": "0" * 64, "connection": "0" * 64},
    {"type": "reject", "reason": "wrong_words"},
]


def one_input(data: bytes) -> None:
    """Have one end hear the other, and what the other never said."""
    source = Source(data)
    ends: tuple[Exchange, Exchange] = (sender(), receiver())
    victim, honest = ends if source.boolean() else ends[::-1]
    due = drain(honest)
    told = drain(victim)
    forged = False
    while source.left and not victim.ended:
        if due and source.boolean():
            message = due.pop(0)
        else:
            message = make_message(source, EXAMPLES)
            forged = True
            try:
                parsed = messages.parse_untrusted(message)
            except RemoteProtocolError:
                pass
            else:
                assert messages.parse_untrusted(messages.serialize(parsed)) == parsed
        victim.receive(message, NOW)
        told += drain(victim)
        while told and not honest.ended:
            honest.receive(told.pop(0), NOW)
            due += drain(honest)
    assert victim.state is not PairingState.PAIRED or not forged


TARGETS = {"pairing": Target(one_input, base=5_000, per_byte=400)}
