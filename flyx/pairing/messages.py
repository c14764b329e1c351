"""The wire grammar of greeting and pairing, version 2.

The first messages on the control channel, one JSON object each, at most MAX_SIZE characters:

    type      from               fields
    hello     both, first        version, agent, nonce, features, needs; code, words and share, or session
    pake      receiver, sender   share: hex, the public share of CPace
    confirm   receiver, sender   words, connection: hex, HMACs that prove the words and the connection
    reject    either             reason: the code of an error; last message

`pake` and `confirm` come from the receiver first, and each waits for the one before it. So a peer that does
not know the words never holds anything to test a guess with before that guess is counted. A sender's hello
has its `share` already. A receiver with the feature EARLY_SHARE and no `session` answers that one, with
hello, `pake` and `confirm` in one go, and the sender sends no `pake`: a round trip less. Others take it for
an unknown field.

A sender's `code` is "words" for `words` many words of the word list, "own" for words of its own, "open" for
none: then hello is all. A receiver's `session` names an earlier pairing in the same room, whose key takes the
place of the words then (exchange.py).

Of the hello of another version only `type` and `version` count, which all versions have: so each side can
always tell its person which of the two to upgrade. Version 1 had SPAKE2 in the place of CPace.

No text of the other side is shown before it is paired: a reason is a code that we know. Unknown fields
are ignored, so that later versions can add some.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta
from msgspec.json import Decoder, encode

from flyx.errors import RemoteProtocolError
from flyx.grammar import HEX_128, HEX_256, MALFORMED, NAME, JsonMessage, written
from flyx.pairing.words import MAX_WORDS

VERSION = 2
"""Of everything that two peers say to each other, the transfer included."""

MAX_SIZE = 4_000
"""Characters in a message: generous, and little for a stranger to have us read."""

EARLY_SHARE = "early-share"
"""The feature of receivers that answer the share in a sender's hello."""

FeatureNames = Annotated[tuple[Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,32}\Z")], ...], Meta(max_length=32)]
Nonce = Annotated[str, Meta(pattern=HEX_128)]
Share = Annotated[str, Meta(pattern=HEX_256)]
Mac = Annotated[str, Meta(pattern=HEX_256)]
SessionId = Annotated[str, Meta(pattern=HEX_128)]
CodeKind = Literal["words", "own", "open"]


class Hello(JsonMessage, tag="hello"):
    """The first message of either side.

    Attributes:
        nonce: hex, random: the session identifier (sid) of CPace is the sender's for its early share, else
            those of both.
        features: what the speaker can do beyond the version.
        needs: those of them that it cannot do without.
        code: of a sender: what its code is made of.
        words: of a sender whose code has words of the list: how many.
        share: of a sender whose code has words: as in Pake.
        session: of a receiver that has paired before: which pairing it means.
    """

    version: Annotated[int, Meta(ge=VERSION, le=VERSION)]
    agent: Annotated[str, Meta(max_length=64)]
    nonce: Nonce
    features: FeatureNames = written(())
    needs: FeatureNames = written(())
    code: CodeKind | None = None
    words: Annotated[int, Meta(ge=0, le=MAX_WORDS)] = written(0)
    share: Share | None = None
    session: SessionId | None = None


class OtherHello(JsonMessage, tag="hello"):
    """The first message of a side that speaks another version."""

    version: Annotated[int, Meta(ge=1, le=1 << 31)]


class Pake(JsonMessage, tag="pake"):
    """The public share of CPace: the u coordinate of a point of Curve25519."""

    share: Share


class Confirm(JsonMessage, tag="confirm"):
    """Proof that the speaker knows the words, and sees the same connection."""

    words: Mac
    connection: Mac


class Reject(JsonMessage, tag="reject"):
    """The speaker ends it, for a reason that is a code of flyx.errors."""

    reason: Annotated[str, Meta(max_length=64, pattern=NAME)]


_OfThisVersion = Hello | Pake | Confirm | Reject
PairingMessage = _OfThisVersion | OtherHello

_DECODER = Decoder[_OfThisVersion](_OfThisVersion)
_OTHER_HELLO = Decoder(OtherHello)


def parse_untrusted(text: str | bytes) -> PairingMessage:
    """Parse one message.

    Raises:
        RemoteProtocolError: it is too long, not JSON, or not in the grammar.
    """
    if not isinstance(text, str):
        raise RemoteProtocolError(reason="a binary message on the control channel")
    if len(text) > MAX_SIZE:
        raise RemoteProtocolError(reason="a message too long for pairing")
    try:
        return _DECODER.decode(text)
    except MALFORMED as error:
        if (hello := _hello_of_another_version(text)) is not None:
            return hello
        raise RemoteProtocolError(reason="a message that is none of pairing") from error


def _hello_of_another_version(text: str) -> OtherHello | None:
    try:
        hello = _OTHER_HELLO.decode(text)
    except MALFORMED:
        return None
    return hello if hello.version != VERSION else None


def serialize(message: PairingMessage) -> str:
    """Return the message as it goes on the wire."""
    return encode(message).decode()
