"""Whole pairings from chosen inputs, for data/pairing.json: `python -m tests.pairing.vectors` writes it.

Other programs that speak the protocol, in other languages, can follow each step of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyx.pairing.cpace import (
    calculate_generator,
    generator_string,
    intermediate_session_key,
    scalar_mult_vfy,
)
from flyx.pairing.exchange import (
    NONCE_SIZE,
    Code,
    Greeting,
    ReceiverExchange,
    SenderExchange,
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
from flyx.pairing.messages import CodeKind
from flyx.pairing.tries import Tries
from tests.pairing.support import NOW, OlderReceiver, Wire

PATH = Path(__file__).parent / "data" / "pairing.json"


@dataclass(frozen=True)
class Case:
    """The inputs of one pairing."""

    name: str
    kind: CodeKind
    password: str
    session: PairingSession | None = None
    # The receiver does not answer the share in the sender's hello, as older ones, and any with a session.
    in_turn: bool = False


CASES = (
    Case("two words of the list", "words", "lemon-otter"),
    # Three bytes a letter: longer than the first block of the hash, and than one byte of LEB128 can tell.
    Case("words of one's own, not ASCII and long", "own", "雨の日には本を読む" * 5),
    Case("a receiver without early-share", "words", "lemon-otter", in_turn=True),
    Case(
        "a session",
        "words",
        "lemon-otter",
        PairingSession("0123456789abcdef" * 2, bytes(range(32))),
        in_turn=True,
    ),
)
ROOM = "K7M2QX"
FINGERPRINTS = {role: hashlib.sha256(f"certificate of the {role.value}".encode()).digest() for role in Role}
NONCES = {role: hashlib.sha256(f"nonce of the {role.value}".encode()).digest()[:NONCE_SIZE] for role in Role}
UNUSED_SCALAR = hashlib.sha256(b"scalar of the sender's early share that nobody answers").digest()
SCALARS = {role: hashlib.sha256(f"scalar of the {role.value}".encode()).digest() for role in Role}


def scripted(role: Role, *, in_turn: bool) -> Callable[[int], bytes]:
    """Return the entropy of this end: its nonce, its scalar, and blindings, which change no result."""
    early = [UNUSED_SCALAR, b"\x01" * 32, b"\x02" * 32] if in_turn and role is Role.SENDER else []
    drawn = iter([NONCES[role], *early, SCALARS[role], b"\x01" * 32, b"\x02" * 32])
    return lambda size: next(drawn)[:size]


def make(case: Case) -> dict[str, Any]:
    """Run this pairing, and take each of its steps once more by itself."""
    binding = Binding(ROOM, FINGERPRINTS)
    greeting = Greeting("flyx/test", frozenset({"one"}))
    sessions = {case.session.id: case.session} if case.session else {}
    code = Code(case.kind, 2 if case.kind == "words" else 0, case.password)
    sender = SenderExchange(
        ROOM,
        greeting,
        code,
        Tries(),
        sessions,
        entropy=scripted(Role.SENDER, in_turn=case.in_turn),
    )
    kind = OlderReceiver if case.in_turn and not case.session else ReceiverExchange
    entropy = scripted(Role.RECEIVER, in_turn=case.in_turn)
    receiver = kind(ROOM, greeting, case.session, has_words=True, entropy=entropy)
    for end in (sender, receiver):
        end.bind(FINGERPRINTS, NOW)
    wire = Wire(sender, receiver, words=case.password)
    wire.run()
    session = wire.paired(Role.SENDER).session
    assert session is not None
    assert session == wire.paired(Role.RECEIVER).session

    prs = case.session.key if case.session else case.password.encode()
    ci, sid = channel_identifier(ROOM), NONCES[Role.SENDER]
    if case.in_turn:
        sid += NONCES[Role.RECEIVER]
    generator = calculate_generator(prs, ci, sid, entropy=lambda size: b"\x03" * size)
    shares = {role: scalar_mult_vfy(SCALARS[role], generator) for role in Role}
    shared = scalar_mult_vfy(SCALARS[Role.SENDER], shares[Role.RECEIVER])
    exchange = exchange_transcript(shares)
    isk = intermediate_session_key(sid, shared, exchange)
    hellos = {role: next(text.encode() for speaker, text in wire.said if speaker is role) for role in Role}
    connection = connection_transcript(binding, hellos, exchange)
    keys = Keys(isk, exchange, connection)
    return {
        "name": case.name,
        "inputs": {
            "room": ROOM,
            "password": None if case.session else case.password,
            "session": {"id": case.session.id, "key": case.session.key.hex()} if case.session else None,
            "fingerprints": {role.value: FINGERPRINTS[role].hex() for role in Role},
            "nonces": {role.value: NONCES[role].hex() for role in Role},
            "scalars": {role.value: SCALARS[role].hex() for role in Role},
        },
        "cpace": {
            "prs": prs.hex(),
            "ci": ci.hex(),
            "sid": sid.hex(),
            "generator_string": generator_string(prs, ci, sid).hex(),
            "generator": generator.hex(),
            "shares": {role.value: shares[role].hex() for role in Role},
            "k": shared.hex(),
            "isk": isk.hex(),
        },
        "transcripts": {"exchange": exchange.hex(), "connection": connection.hex()},
        "proofs": {
            role.value: {
                "words": keys.words_proof(role).hex(),
                "connection": keys.connection_proof(role).hex(),
            }
            for role in Role
        },
        "session": {"id": session.id, "key": session.key.hex()},
        "messages": [[role.value, text] for role, text in wire.said],
    }


if __name__ == "__main__":
    document = {"origin": "flyx, version 2 of the protocol", "pairings": [make(case) for case in CASES]}
    PATH.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
