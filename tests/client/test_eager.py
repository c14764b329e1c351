"""Who says beforehand that it takes whatever is offered, so that no round trip is spent on consent."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from flyx.client import events, pairing, serving
from flyx.client.receive import ReceiveOptions, receive
from flyx.client.send import SendOptions, send
from flyx.errors import DestinationExists
from flyx.pairing.exchange import Code
from flyx.server.app import Server
from flyx.storage.plan import Skip
from flyx.storage.writer import ExistingPolicy
from flyx.transfer.digests import Algorithm
from flyx.transfer.manifest import Manifest
from flyx.transfer.messages import EAGER
from flyx.transfer.selection import Selection
from flyx.transfer.sender import Sender
from tests.client.test_send import CODE, Told
from tests.server.peers import local

CONTENT = os.urandom(3_000_000)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server(local(stun_urls=())) as running:
        yield running


async def yes(_: Manifest) -> bool:
    return True


async def ask_existing(_: DestinationExists) -> tuple[ExistingPolicy, Skip] | None:
    raise AssertionError("nothing exists")


ASKED: list[dict[str, Any]] = [
    {"confirm": yes},
    {"ask_existing": ask_existing},
    {"selection": Selection(("*",))},
    {"skip": Skip.SAME},
    {"limit": 10_000_000},
]
OPEN: dict[str, Any] = {"words": (), "trust_server": True}


@pytest.mark.parametrize(
    ("changes", "is_eager"), [({}, True), (OPEN, True), *((changes, False) for changes in ASKED)]
)
@pytest.mark.parametrize("is_old", [False, True])
async def test_a_receiver_says_so_if_it_asks_nobody_and_wants_all_of_it(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    is_eager: bool,
    is_old: bool,
) -> None:
    """Also beside a sender that knows nothing of it."""
    eager: list[Algorithm | None] = []

    def make(*args: Any, **options: Any) -> Sender:
        eager.append(options["eager"])
        return Sender(*args, **options)

    monkeypatch.setattr(serving, "Sender", make)
    (tmp_path / "file").write_bytes(CONTENT)
    code = Code("open", 0, "") if changes is OPEN else CODE
    told = Told()
    if is_old:
        begin = pairing.PairingGate.begin

        def begin_without(gate: pairing.PairingGate) -> pairing.Pairing:
            gate._greeting = structs.replace(gate._greeting, features=gate._greeting.features - {EAGER})
            return begin(gate)

        monkeypatch.setattr(pairing.PairingGate, "begin", begin_without)
    sending = asyncio.create_task(
        send(SendOptions(server.url, [tmp_path / "file"], code), told.queue.put_nowait)
    )
    room_id = (await told.hear(events.RoomOpened)).room_id
    options = ReceiveOptions(
        server.url, room_id, ("lemon", "otter"), None, tmp_path / "got", ExistingPolicy.REFUSE, None
    )
    await receive(structs.replace(options, **changes), lambda _: None)
    await sending
    assert (tmp_path / "got" / "file").read_bytes() == CONTENT
    assert eager == [Algorithm.BLAKE3 if is_eager and not is_old else None]
