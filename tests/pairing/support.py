"""Two ends of a pairing, joined by a wire that a test can tap."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from msgspec import structs

from flyx.errors import FlyxError
from flyx.pairing.exchange import (
    Code,
    Exchange,
    Failed,
    Greeting,
    Paired,
    PairingEvent,
    ReceiverExchange,
    SenderExchange,
    WordsWanted,
)
from flyx.pairing.keys import Binding, PairingSession, Role
from flyx.pairing.messages import Hello
from flyx.pairing.tries import Tries

NOW = 100.0
ROOM = "K7M2QX"
PASSWORD = "lemon-otter"
BINDING = Binding(ROOM, {Role.SENDER: b"s" * 32, Role.RECEIVER: b"r" * 32})
GREETING = Greeting("test")
CODE = Code("words", 2, PASSWORD)
OPEN = Code("open", 0, "")


def other_binding(**changes: object) -> Binding:
    """BINDING with a `room_id`, or the fingerprint of the `sender` or `receiver`, of another kind."""
    fingerprints = {role: changes.get(role.value, BINDING.fingerprints[role]) for role in Role}
    return structs.replace(BINDING, room_id=changes.get("room_id", ROOM), fingerprints=fingerprints)  # type: ignore[arg-type]


class OlderSender(SenderExchange):
    """One of before there were shares in hellos."""

    def _greet(self, about: Mapping[str, object]) -> None:
        super()._greet({**about, "share": None})
        self._early = False


class OlderReceiver(ReceiverExchange):
    """The same: it knows no such field."""

    def _greet(self, about: Mapping[str, object]) -> None:
        super()._greet({name: value for name, value in about.items() if name != "features"})

    def _take_hello(self, hello: Hello, *, is_open: bool) -> None:
        super()._take_hello(structs.replace(hello, share=None), is_open=is_open)


def sender(
    code: Code = CODE,
    binding: Binding = BINDING,
    *,
    greeting: Greeting = GREETING,
    tries: Tries | None = None,
    sessions: dict[str, PairingSession] | None = None,
    seed: int = 1,
    now: float = NOW,
    older: bool = False,
) -> SenderExchange:
    """A sender's end."""
    entropy = random.Random(seed).randbytes
    kind = OlderSender if older else SenderExchange
    end = kind(binding.room_id, greeting, code, tries or Tries(), sessions or {}, entropy=entropy)
    end.bind(binding.fingerprints, now)
    return end


def receiver(
    binding: Binding = BINDING,
    *,
    greeting: Greeting = GREETING,
    session: PairingSession | None = None,
    has_words: bool = True,
    seed: int = 2,
    now: float = NOW,
    older: bool = False,
) -> ReceiverExchange:
    """A receiver's end."""
    entropy = random.Random(seed).randbytes
    kind = OlderReceiver if older else ReceiverExchange
    end = kind(binding.room_id, greeting, session, has_words=has_words, entropy=entropy)
    end.bind(binding.fingerprints, now)
    return end


@dataclass
class Wire:
    """Carries messages between two ends, one at a time, until both are silent.

    Attributes:
        words: what the receiver's person answers; None for no answer.
        tap: may change, drop or add messages: (speaker, message) to those that arrive.
    """

    sender: SenderExchange
    receiver: ReceiverExchange
    words: str | None = PASSWORD
    tap: Callable[[Role, str], list[str]] = lambda role, message: [message]
    said: list[tuple[Role, str]] = field(default_factory=list)
    events: dict[Role, list[PairingEvent]] = field(default_factory=lambda: {role: [] for role in Role})
    now: float = NOW

    def run(self) -> None:
        """Go on until there is nothing more to say."""
        while any([self._drain(self.sender, self.receiver), self._drain(self.receiver, self.sender)]):
            pass

    def _drain(self, end: Exchange, peer: Exchange) -> bool:
        busy = False
        while (event := end.next_event()) is not None:
            busy = True
            self.events[end.role].append(event)
            if isinstance(event, WordsWanted) and self.words is not None:
                self.receiver.give_words(self.words, self.now)
        while (message := end.next_message()) is not None:
            busy = True
            self.said.append((end.role, message))
            for arriving in self.tap(end.role, message):
                if not peer.ended:
                    peer.receive(arriving, self.now)
        return busy

    def paired(self, role: Role) -> Paired:
        """The end of this role has paired: what it says."""
        event = self.events[role][-1]
        assert isinstance(event, Paired), event
        return event

    def error(self, role: Role) -> FlyxError:
        """The end of this role has failed: why."""
        event = self.events[role][-1]
        assert isinstance(event, Failed), event
        return event.error
