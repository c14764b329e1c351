"""What a connection does not do, where the person does not want it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from flyx.errors import PeerUnreachable
from flyx.net.interfaces import offered_addresses
from flyx.rtc import peer
from flyx.rtc.peer import IceCandidateInit, PeerConnection
from flyx.rtc.policy import ANY_PATH, IcePolicy
from flyx.rtc.seam import turn
from flyx.rtc.servers import TurnServer
from tests.rtc.relay import Relay

LABELS = ("control", "data")

HERE = next((address for address in offered_addresses() if "." in address), "127.0.0.1")
"""An address that others may be told; a relay is asked for no loopback one."""


class Side:
    """A connection, and every line that it has told."""

    def __init__(self, policy: IcePolicy, relay_port: int | None = None, *, host: str | None = None) -> None:
        servers = [TurnServer(f"turn:{HERE}:{relay_port}", "anyone", "secret")] if relay_port else []
        self.told: list[str] = []
        self.other: Side | None = None
        self.ended = asyncio.Event()
        # It does not answer: who asks it, shows that it asks.
        stuns = ["stun:127.0.0.1:9"]
        addresses = [host] if host else None
        self.connection = PeerConnection(
            LABELS, stuns, self._tell, turn_servers=servers, policy=policy, addresses=addresses
        )
        self._adding: set[asyncio.Task[None]] = set()

    def _tell(self, candidate: IceCandidateInit | None) -> None:
        if candidate is None:
            self.ended.set()
        else:
            self.told.append(candidate["candidate"])
        if self.other:
            task = asyncio.create_task(self.other.connection.add_candidate(candidate))
            self._adding.add(task)
            task.add_done_callback(self._adding.discard)


@asynccontextmanager
async def connecting(left: Side, right: Side) -> AsyncIterator[None]:
    left.other, right.other = right, left
    try:
        offer = await left.connection.offer()
        left.told += offer.splitlines()
        answer = await right.connection.answer(offer)
        right.told += answer.splitlines()
        await left.connection.accept_answer(answer)
        yield
    finally:
        await left.connection.close()
        await right.connection.close()
        await asyncio.gather(*turn._farewells)


@pytest.fixture
async def relay(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Relay, int]]:
    monkeypatch.setattr(turn, "FAREWELL", 0.05)
    made = Relay(HERE)
    port = await made.listen()
    yield made, port
    made.close()


async def test_with_relays_only_no_address_of_ours_leaves_the_machine(relay: tuple[Relay, int]) -> None:
    server, port = relay
    hidden = Side(IcePolicy(relay_only=True), port)
    open_ = Side(ANY_PATH, host=HERE)
    async with connecting(hidden, open_):
        await asyncio.gather(hidden.connection.connected(), open_.connection.connected())
        path = hidden.connection.path()
        assert path is not None
        assert path.local == "relay"
        candidates = [line for line in hidden.told if "candidate:" in line]
        assert candidates
        for line in candidates:
            assert "typ relay raddr 0.0.0.0 rport 9" in line
        relayed = server.outside.get_extra_info("sockname")[1]
        # The relay is on this machine: its address is ours, its port is not.
        assert all(f"{HERE} {relayed} typ" in line for line in hidden.told if "candidate:" in line)
        for address in set(offered_addresses()) - {HERE}:
            assert not any(f" {address} " in f"{line} " for line in hidden.told), address
        assert server.relayed > 0
        assert {attempt.kind for attempt in hidden.connection.attempts().servers} == {"turn"}


async def test_with_relays_only_and_none_nothing_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "CONNECT_TIMEOUT", 0.3)
    hidden, open_ = Side(IcePolicy(relay_only=True)), Side(ANY_PATH, host=HERE)
    async with connecting(hidden, open_):
        await hidden.ended.wait()
        assert not any("candidate:" in line for line in hidden.told)
        with pytest.raises(PeerUnreachable):
            await hidden.connection.connected()


async def test_without_relays_neither_ours_nor_the_peer_s_is_used(
    relay: tuple[Relay, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "CONNECT_TIMEOUT", 1.0)
    server, port = relay
    ours = Side(IcePolicy(no_relay=True), port, host=HERE)
    theirs = Side(IcePolicy(relay_only=True), port)
    async with connecting(theirs, ours):
        with pytest.raises(PeerUnreachable):
            await ours.connection.connected()
        assert not any("typ relay" in line for line in ours.told)
        assert ours.connection.attempts().pairs == ()
    # It was asked once, by the peer.
    assert len({request.transaction_id for request in server.requests if request.message_method == 3}) == 1


async def test_only_the_bound_address_is_offered() -> None:
    bound = Side(IcePolicy(bind="127.0.0.2"))
    try:
        lines = (await bound.connection.offer()).splitlines()
        assert {line.split()[4] for line in lines if line.startswith("a=candidate:")} == {"127.0.0.2"}
    finally:
        await bound.connection.close()


async def test_a_socket_is_bound_to_a_link_local_address_with_its_interface() -> None:
    # The multicast address of all nodes: every machine has it on its loopback.
    policy = IcePolicy(bind=f"ff02::1%{socket.if_indextoname(1)}")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        policy.bind_socket(sock)
        assert sock.getsockname()[0::3] == ("ff02::1", 1)


async def test_an_interface_stands_for_its_addresses() -> None:
    assert "127.0.0.1" in IcePolicy(bind="lo").local_addresses()
    assert IcePolicy(bind="no-such-interface").local_addresses() == []
