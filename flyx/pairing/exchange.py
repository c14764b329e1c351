"""Greeting and pairing of a sender with one receiver: CPace, bound to the connection, with key confirmation.

Both sides say hello; then the receiver and the sender exchange the shares of CPace (cpace.py; the receiver is
its initiator), and prove in the same order that they hold the same key. CPace is bound to the version, the
room, the roles, and the nonces of both hellos. So that they need not wait for each other, the sender's hello
has a share already, bound to its own nonce: a share reveals nothing of the words. A receiver
that can answer it proves itself at once. Each proof is two HMACs with keys of their own (keys.py):

    words       over the exchange: the other side used the same words, in the same room and the other role
    connection  over the exchange, both hellos to the byte, and the SHA-256 of both DTLS certificates as each
                side sees them: no man is in the middle

Two proofs tell a wrong word from an attack. A man in the middle who passes the messages on makes
the first right and the second wrong; one who takes part in the exchange needs the words, and has one guess.
The receiver proves first: a guess of a stranger costs one of the sender's tries before it is answered. A
receiver that never proves anything is counted as well (tries.py).

What is said before the receiver proves itself tells a server that passes it on nothing either, so the first
messages may go with the descriptions by which the connection is made: see bind().

A pairing leaves a key at both ends. On a new connection within the same room it takes the place of the words
(`session`): so a path that is broken on purpose gives nobody another guess.

Input methods: bind, receive, give_words, cancel, channel_closed, handle_timeout. After each, drain
next_message, then next_event; then ask next_timeout. When it is paired, what comes next on the channel is the
transfer's.

draft-irtf-cfrg-cpace-21 for CPace, "Party identifiers" and "Key confirmation"; RFC 8827 §6.5 for what
fingerprints that travel through a server are worth alone.
"""

from __future__ import annotations

import hmac
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from typing import ClassVar

from msgspec import Struct, structs

from flyx.errors import (
    ASK_FOR_ANOTHER,
    ConnectionMismatch,
    FlyxError,
    InputError,
    LocalProtocolError,
    MissingFeature,
    NoWordsAsked,
    OtherVersion,
    PairingFailed,
    PairingTimedOut,
    PeerUnreachable,
    RemoteProtocolError,
    SenderLeft,
    TooManyTries,
    TooManyUnfinished,
    TransferInterrupted,
    WrongWords,
)
from flyx.pairing import messages
from flyx.pairing.cpace import (
    FIELD_SIZE,
    LowOrderPoint,
    calculate_generator,
    intermediate_session_key,
    scalar_mult_vfy,
)
from flyx.pairing.keys import (
    Binding,
    Keys,
    PairingSession,
    Role,
    channel_identifier,
    connection_transcript,
    exchange_transcript,
)
from flyx.pairing.messages import (
    EARLY_SHARE,
    VERSION,
    CodeKind,
    Confirm,
    Hello,
    OtherHello,
    PairingMessage,
    Pake,
    Reject,
)
from flyx.pairing.states import TIMEOUTS, TRANSITIONS, Input, PairingState
from flyx.pairing.tries import MAX_TRIES, MAX_UNFINISHED, Tries


class Greeting(Struct, frozen=True):
    """What we say of ourselves; features and needs as in Hello."""

    agent: str
    features: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()


class Code(Struct, frozen=True):
    """A sender's code: what it is made of, as in Hello, and the password that its words are (unless open)."""

    kind: CodeKind
    words: int
    password: str


class WordsWanted(Struct, frozen=True):
    """The receiver's turn: call give_words(). The sender's code has `count` words of the list; 0: its own."""

    count: int


class Paired(Struct, frozen=True):
    """The two sides have greeted, and proved themselves unless the sender is open.

    Attributes:
        session: for the next connection between the two in this room; None when the sender is open.
        features: what both sides can do beyond the version.
    """

    session: PairingSession | None
    features: frozenset[str]


class Failed(Struct, frozen=True):
    """It has ended; nothing more will happen."""

    error: FlyxError


PairingEvent = WordsWanted | Paired | Failed


NONCE_SIZE = 16
"""Bytes of the nonce in a hello."""


class Exchange(ABC):
    """What both ends share."""

    role: ClassVar[Role]

    def __init__(
        self,
        room_id: str,
        greeting: Greeting,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._hello = hello = Hello(
            version=VERSION,
            agent=greeting.agent,
            nonce=entropy(NONCE_SIZE).hex(),
            features=tuple(sorted(greeting.features | greeting.needs)),
            needs=tuple(sorted(greeting.needs)),
        )
        self.state = PairingState.GREETING
        # Ours is the last message: the other side closes the connection once it has read it.
        self.has_last_word = False
        self._room_id = room_id
        # Set by bind(), as are deadlines.
        self._binding: Binding | None = None
        self._entropy = entropy
        self._outgoing: deque[str] = deque()
        self._events: deque[PairingEvent] = deque()
        self._deadline: float | None = None
        # Both hellos to the byte, by their sender: bound into the proofs.
        self._hellos: dict[Role, bytes] = {}
        self._nonces: dict[Role, bytes] = {self.role: bytes.fromhex(hello.nonce)}
        # For a single share.
        self._scalar = entropy(FIELD_SIZE)
        self._shares: dict[Role, bytes] = {}
        # The sender's share is the one in its hello.
        self._early = False
        # Set by the hello of the other side.
        self._features: frozenset[str] = frozenset()
        # An earlier pairing that takes the place of the words.
        self._session: PairingSession | None = None
        # Set once both shares of CPace are there.
        self._keys: Keys | None = None

    @property
    def ended(self) -> bool:
        """Whether it is paired or has failed. Drain once more."""
        return self.state in (PairingState.PAIRED, PairingState.FAILED)

    def bind(self, fingerprints: Mapping[Role, bytes], now: float) -> None:
        """Take these for the two ends of the connection, and begin to wait for the other side.

        To be called before anything is received. Where that comes with the description of a connection that
        is still to be made, it is called with what the descriptions claim, and again when DTLS has shown
        the certificates: others than those end the exchange.

        Args:
            fingerprints: SHA-256 of each side's DTLS certificate.
            now: monotonic seconds.
        """
        binding = Binding(self._room_id, fingerprints)
        if self._binding not in (None, binding):
            self.cancel(ConnectionMismatch())
            return
        self._binding = binding
        self._enter(self.state, now)

    def receive(self, message: str | bytes, now: float) -> None:
        """Take one message of the control channel. A bad one ends the exchange.

        Raises:
            LocalProtocolError: it is paired: the message belongs to the transfer.
        """
        if self.state is PairingState.PAIRED:
            raise LocalProtocolError(reason="a message after pairing")
        if self.state is PairingState.FAILED:
            return
        try:
            self._dispatch(messages.parse_untrusted(message), str(message), now)
        except (RemoteProtocolError, PairingFailed) as error:
            self.cancel(error)

    def cancel(self, error: FlyxError) -> None:
        """Give up for this reason and tell the other side its code."""
        if not self.ended:
            self.has_last_word = True
            self._say(Reject(reason=self._fail(error).code))

    def stop(self) -> None:
        """Give up because our own program ends."""
        left = self.role is Role.SENDER
        self.cancel(SenderLeft() if left else TransferInterrupted(reason="it was stopped"))

    def channel_closed(self) -> None:
        """The control channel has closed under us."""
        if not self.ended:
            self._fail(PeerUnreachable(reason=f"it was lost before the {self.role.other.value} had paired"))

    def handle_timeout(self, now: float) -> None:
        """Do what is due at next_timeout()."""
        if not self.ended and self._deadline is not None and now >= self._deadline:
            self.cancel(PairingTimedOut(seconds=TIMEOUTS[self.role, self.state]))

    def next_timeout(self) -> float | None:
        """When handle_timeout() is due, in the same seconds as `now`."""
        return None if self.ended else self._deadline

    def next_message(self) -> str | None:
        """Return the next message for the control channel."""
        return self._outgoing.popleft() if self._outgoing else None

    def next_event(self) -> PairingEvent | None:
        """Return what has happened, oldest first."""
        return self._events.popleft() if self._events else None

    def _dispatch(self, message: PairingMessage, raw: str, now: float) -> None:
        match message:
            case Hello():
                is_open = (self._hello.code or message.code) == "open"
                following = self._following(Input.OPEN_HELLO if is_open else Input.HELLO)
                self._hellos[self.role.other] = raw.encode()
                self._nonces[self.role.other] = bytes.fromhex(message.nonce)
                self._check_hello(message)
                self._take_hello(message, is_open=is_open)
            case OtherHello(version=version):
                self._following(Input.HELLO)
                older = "the other side" if version < VERSION else "this one"
                raise OtherVersion(theirs=version, ours=VERSION, older=older)
            case Pake(share=share):
                following = self._following(Input.PAKE)
                self._keys = self._take_pake(bytes.fromhex(share))
            case Confirm():
                following = self._following(Input.CONFIRM)
                assert self._keys is not None
                self._take_confirm(message, self._keys)
                self._events.append(Paired(self._keys.session(), self._features))
            case Reject():
                self._fail(_error_of_reject(message, self.role))
                return
        self._enter(following, now)

    @abstractmethod
    def _take_hello(self, hello: Hello, *, is_open: bool) -> None:
        """Look at what the other role says of itself."""

    @abstractmethod
    def _take_pake(self, share: bytes) -> Keys:
        """Take the other side's share of CPace."""

    @abstractmethod
    def _take_confirm(self, confirm: Confirm, keys: Keys) -> None:
        """Verify the other side's proof."""

    def _check_hello(self, theirs: Hello) -> None:
        ours = self._hello
        for whose, needs, has in (
            ("this", theirs.needs, ours.features),
            ("the other", ours.needs, theirs.features),
        ):
            if lacking := sorted(set(needs) - set(has)):
                raise MissingFeature(whose=whose, features=", ".join(lacking))
        self._features = frozenset(ours.features) & frozenset(theirs.features)

    # CPace: sender and receiver take these three steps in different orders.

    @property
    def _sid(self) -> bytes:
        if self._early:
            return self._nonces[Role.SENDER]
        return b"".join(self._nonces[role] for role in Role)

    def _make_share(self, password: bytes) -> str:
        ci = channel_identifier(self._room_id)
        generator = calculate_generator(password, ci, self._sid, entropy=self._entropy)
        share = self._shares[self.role] = scalar_mult_vfy(self._scalar, generator)
        return share.hex()

    def _take_share(self, share: bytes) -> bytes:
        """Return what X25519 makes of the share of the other side; as secret as the password."""
        self._shares[self.role.other] = share
        try:
            return scalar_mult_vfy(self._scalar, share)
        except LowOrderPoint as error:
            raise RemoteProtocolError(reason="a share of low order") from error

    def _make_keys(self, shared: bytes) -> Keys:
        if self._binding is None:
            raise LocalProtocolError(reason="an exchange that is bound to no connection")
        exchange = exchange_transcript(self._shares)
        isk = intermediate_session_key(self._sid, shared, exchange)
        return Keys(isk, exchange, connection_transcript(self._binding, self._hellos, exchange))

    def _say_confirm(self, keys: Keys) -> None:
        words, connection = keys.words_proof(self.role), keys.connection_proof(self.role)
        self._say(Confirm(words=words.hex(), connection=connection.hex()))

    def _verify(self, confirm: Confirm, keys: Keys) -> tuple[bool, bool]:
        """Whether the other side's proofs are right: of the words, of the connection."""
        prover = self.role.other
        return (
            hmac.compare_digest(keys.words_proof(prover), bytes.fromhex(confirm.words)),
            hmac.compare_digest(keys.connection_proof(prover), bytes.fromhex(confirm.connection)),
        )

    # What goes out, and the state.

    def _greet(self, about: Mapping[str, object]) -> None:
        """Say hello, with the fields that are our role's alone."""
        self._hello = structs.replace(self._hello, **about)
        self._say(self._hello)
        self._hellos[self.role] = self._outgoing[-1].encode()

    def _say(self, message: PairingMessage) -> None:
        self._outgoing.append(messages.serialize(message))

    def _following(self, moved_by: Input) -> PairingState:
        following = TRANSITIONS[self.role].get((self.state, moved_by))
        if following is None:
            raise RemoteProtocolError(reason=f"{moved_by.name.lower()} out of place")
        return following

    def _enter(self, state: PairingState, now: float) -> None:
        self.state = state
        timeout = TIMEOUTS.get((self.role, state))
        self._deadline = None if timeout is None else now + timeout

    def _fail(self, error: FlyxError) -> FlyxError:
        """End it for this reason; return the reason that counts."""
        self.state = PairingState.FAILED
        self._events.append(Failed(error))
        return error


class SenderExchange(Exchange):
    """The sender's end: it knows its words from the beginning, and counts the tries."""

    role = Role.SENDER

    def __init__(
        self,
        room_id: str,
        greeting: Greeting,
        code: Code,
        tries: Tries,
        sessions: Mapping[str, PairingSession],
        *,
        entropy: Callable[[int], bytes],
    ) -> None:
        """Args:
        room_id: normalised.
        tries: of the room.
        sessions: by id, earlier pairings in this room that may be taken up again.
        entropy: returns so many secret random bytes.
        """
        super().__init__(room_id, greeting, entropy)
        self._password = code.password.encode()
        self._tries = tries
        # We have answered the receiver's share, and it has not proved yet to know the words.
        self._awaits_proof = False
        self._sessions = sessions
        self._early = code.kind != "open"
        share = self._make_share(self._password) if self._early else None
        self._greet({"code": code.kind, "words": code.words, "share": share})

    def _take_hello(self, hello: Hello, *, is_open: bool) -> None:
        if hello.code is not None:
            raise RemoteProtocolError(reason="a second sender")
        self._early = self._early and EARLY_SHARE in hello.features and hello.session is None
        if not self._early:
            # That of our hello is good for nothing else.
            self._scalar = self._entropy(FIELD_SIZE)
        if is_open:
            self._events.append(Paired(None, self._features))
        elif hello.session is not None:
            self._session = self._sessions.get(hello.session)
            if self._session is None:
                raise PairingFailed(reason="the receiver goes by a pairing that this sender does not know")

    def _take_pake(self, share: bytes) -> Keys:
        self._check_tries()
        # First what refuses a bad share, and only then the work and the answer.
        shared = self._take_share(share)
        if not self._early:
            ours = self._make_share(self._session.key if self._session else self._password)
            self._say(Pake(share=ours))
        self._awaits_proof = True
        return self._make_keys(shared)

    def _take_confirm(self, confirm: Confirm, keys: Keys) -> None:
        self._awaits_proof = False
        # Others may have used them up while this one was on its way.
        self._check_tries()
        words, connection = self._verify(confirm, keys)
        if not words:
            raise self._tries.count_wrong_words()
        if not connection:
            raise ConnectionMismatch()
        self._tries.count_success()
        self._say_confirm(keys)

    def _check_tries(self) -> None:
        # A session's key is not to be guessed, and a receiver that has paired is no stranger.
        if self._session is None and (refusal := self._tries.refusal()) is not None:
            raise refusal

    def _fail(self, error: FlyxError) -> FlyxError:
        unfinished = self._awaits_proof and self._session is None
        return super()._fail(self._tries.count_unfinished(error) if unfinished else error)


class ReceiverExchange(Exchange):
    """The receiver's end: it learns from the sender's hello whether it needs words."""

    role = Role.RECEIVER

    def __init__(
        self,
        room_id: str,
        greeting: Greeting,
        session: PairingSession | None,
        *,
        has_words: bool,
        entropy: Callable[[int], bytes],
    ) -> None:
        """Args:
        room_id: normalised.
        session: of an earlier pairing with this sender in this room; then no words are wanted.
        has_words: our code has words, so a sender who asks for none is a false one.
        entropy: returns so many secret random bytes.
        """
        super().__init__(room_id, greeting, entropy)
        self._session = session
        self._has_words = has_words
        # What X25519 has made of the sender's early share.
        self._shared = b""
        features = tuple(sorted({*self._hello.features, EARLY_SHARE}))
        self._greet({"features": features, "session": session.id if session else None})

    def give_words(self, password: str, now: float) -> None:
        """Give the words, as words.password_of has them: the answer to WordsWanted.

        Raises:
            LocalProtocolError: they are not wanted.
        """
        if self.ended:
            return
        if self.state is not PairingState.WORDS:
            raise LocalProtocolError(reason="words that are not wanted")
        self._give(password.encode(), now)

    def _give(self, password: bytes, now: float) -> None:
        following = self._following(Input.LAST_WORDS if self._early else Input.WORDS)
        self._say(Pake(share=self._make_share(password)))
        if self._early:
            self._keys = self._make_keys(self._shared)
            self._say_confirm(self._keys)
        self._enter(following, now)

    def _dispatch(self, message: PairingMessage, raw: str, now: float) -> None:
        super()._dispatch(message, raw, now)
        if self.state is PairingState.WORDS and self._session:
            self._give(self._session.key, now)

    def _take_hello(self, hello: Hello, *, is_open: bool) -> None:
        if hello.code is None:
            raise RemoteProtocolError(reason="a second receiver")
        if not is_open:
            if self._session is None:
                if hello.share is not None:
                    self._early = True
                    self._shared = self._take_share(bytes.fromhex(hello.share))
                self._events.append(WordsWanted(hello.words if hello.code == "words" else 0))
        elif self._has_words or self._session:
            raise NoWordsAsked()
        else:
            self._events.append(Paired(None, self._features))

    def _take_pake(self, share: bytes) -> Keys:
        keys = self._make_keys(self._take_share(share))
        self._say_confirm(keys)
        return keys

    def _take_confirm(self, confirm: Confirm, keys: Keys) -> None:
        words, connection = self._verify(confirm, keys)
        if not words:
            raise WrongWords()
        if not connection:
            raise ConnectionMismatch()


def _error_of_reject(reject: Reject, hearer: Role) -> FlyxError:
    """Return what a reject of the other side is for us. The other side is not known: only its code counts."""
    speaker = hearer.other.value
    # A sender judges for itself: nothing that a stranger says may count as a try or close the room.
    believes = hearer is Role.RECEIVER
    match reject.reason:
        case WrongWords.code if believes:
            return WrongWords()
        case TooManyTries.code if believes:
            return TooManyTries(tries=MAX_TRIES, hint=ASK_FOR_ANOTHER)
        case TooManyUnfinished.code if believes:
            return TooManyUnfinished(count=MAX_UNFINISHED, hint=ASK_FOR_ANOTHER)
        case ConnectionMismatch.code if believes:
            return ConnectionMismatch()
        case TransferInterrupted.code:
            return TransferInterrupted(reason=f"the {speaker} stopped it")
        case SenderLeft.code:
            return SenderLeft()
        case PairingTimedOut.code:
            return PairingFailed(reason=f"the {speaker} waited too long for this side")
        case InputError.code:
            return PairingFailed(reason=f"the {speaker} typed an incomplete code")
        case _:
            return PairingFailed(reason=f"the {speaker} ended it ({reject.reason})")
