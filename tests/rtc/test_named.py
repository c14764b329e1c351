"""Candidates whose addresses hide behind names."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest
from aioice import Candidate

from flyx.net.dnssd import HostNames
from flyx.rtc.peer import PeerConnection
from flyx.rtc.seam.connection import IceConnection

NAME = "6f2ae2cb-8ef3-4bbd-9c3c-0e3a2e6e3c4d.local"


class Hosts:
    """Knows addresses by name; a name is asked for until it is known."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[str] = asyncio.Queue()
        self.answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    async def resolve(self, name: str) -> str | None:
        self.asked.put_nowait(name)
        return await self.answer


@pytest.fixture
async def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """The names of hosts on the local network."""
    known = Hosts()
    monkeypatch.setattr(HostNames, "resolve", lambda self, name: known.resolve(name))
    return known


def candidate(host: str) -> Candidate:
    return Candidate("1", 1, "udp", 2122252543, host, 55501, "host")


async def test_a_candidate_with_a_name_is_taken_when_its_address_is_known(hosts: Hosts) -> None:
    ice = IceConnection()
    adding = asyncio.create_task(ice.add_remote_candidate(candidate(NAME)))
    assert await hosts.asked.get() == NAME
    assert ice.remote_candidates == []
    # The last has been told, and this one is not after it.
    await ice.add_remote_candidate(None)
    hosts.answer.set_result("192.0.2.7")
    await adding
    (found,) = ice.remote_candidates
    assert (found.host, found._network_host) == (NAME, "192.0.2.7")
    with pytest.raises(ValueError, match="after"):
        await ice.add_remote_candidate(candidate(NAME))
    await ice.close()


async def test_the_end_of_candidates_counts_when_all_names_are_decided(hosts: Hosts) -> None:
    ice = IceConnection()
    ice.remote_username, ice.remote_password = "user", "p" * 22
    await ice.gather_candidates()
    adding = asyncio.create_task(ice.add_remote_candidate(candidate(NAME)))
    connecting = asyncio.create_task(ice.connect())
    await hosts.asked.get()
    await ice.add_remote_candidate(None)
    await asyncio.wait((connecting,), timeout=0.1)
    assert not connecting.done()
    hosts.answer.set_result(None)
    await adding
    with pytest.raises(ConnectionError, match="negotiation failed"):
        await connecting
    await ice.close()


async def test_a_name_that_is_found_when_the_connection_is_closed_is_forgotten(hosts: Hosts) -> None:
    ice = IceConnection()
    adding = asyncio.create_task(ice.add_remote_candidate(candidate(NAME)))
    await hosts.asked.get()
    await ice.close()
    hosts.answer.set_result("192.0.2.7")
    await adding
    assert ice.remote_candidates == []


def make(on_candidate: Callable[[object], None] = lambda _: None) -> PeerConnection:
    return PeerConnection(("control", "data"), [], on_candidate)


async def test_the_names_of_an_offer_are_asked_for_when_our_answer_is_there(hosts: Hosts) -> None:
    """Firefox answers for its names when it has the description of the other side."""
    browser, ours = make(), make()
    offer = await browser.offer()
    hidden = re.sub(r"(a=candidate:\S+ 1 udp \d+ )\S+", rf"\g<1>{NAME}", offer)
    await ours.add_candidate(
        {"candidate": f"candidate:9 1 udp 2113937151 {NAME} 9 typ host", "sdpMid": "0", "sdpMLineIndex": 0}
    )
    await ours.add_candidate(None)
    answering = asyncio.create_task(ours.answer(hidden))
    while not answering.done():
        assert hosts.asked.empty()
        await asyncio.sleep(0)
    assert "a=setup:active" in answering.result()
    assert await hosts.asked.get() == NAME
    hosts.answer.set_result(None)
    await ours.close()
    await browser.close()


async def test_a_candidate_that_comes_while_names_are_asked_for_is_taken_before_the_end(hosts: Hosts) -> None:
    browser, ours = make(), make()
    hidden = re.sub(r"(a=candidate:\S+ 1 udp \d+ )\S+", rf"\g<1>{NAME}", await browser.offer())
    await ours.answer(hidden)
    await hosts.asked.get()
    await ours.add_candidate(
        {"candidate": "candidate:9 1 udp 2113937151 192.0.2.9 9 typ host", "sdpMid": "0", "sdpMLineIndex": 0}
    )
    await ours.add_candidate(None)
    assert ours.attempts().remote_candidates == 1
    hosts.answer.set_result("192.0.2.7")
    for _ in range(20):
        await asyncio.sleep(0)
    assert ours.attempts().remote_candidates == 1 + hidden.count(NAME)
    await ours.close()
    await browser.close()
