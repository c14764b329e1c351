"""Services announced and found by multicast DNS on the loopback, by real programs of it: honest and not."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network
from typing import cast

import pytest
from zeroconf import ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from flyx.net import dnssd
from flyx.net.dnssd import Browser, CannotDiscover, HostNames, Interfaces, Service, announce

KIND = "_flyx-test._tcp.local."
LOOPBACK = Interfaces(("127.0.0.1",), frozenset({ip_network("127.0.0.0/8")}), ("127.0.0.1",))
NOTHING = Interfaces((), frozenset(), ())


def service(label: str, port: int = 1234) -> Service:
    return Service(KIND, label, port, {"room": "of " + label})


@asynccontextmanager
async def announced(*services: Service) -> AsyncIterator[list[str | None]]:
    """Announce these; yields what has been told, once all of them have been."""
    told: asyncio.Queue[str | None] = asyncio.Queue()
    tasks = [asyncio.create_task(announce(each, told.put_nowait, lambda: LOOPBACK)) for each in services]
    try:
        yield [await told.get() for _ in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def browser(wanted: str = "") -> Browser:
    return Browser(KIND, lambda label: label.startswith(wanted), lambda: LOOPBACK)


async def test_what_is_announced_is_found_with_all_that_was_said() -> None:
    async with announced(service("one")) as told, browser() as found:
        assert told == [None]
        one = await found.next()
    assert (one.label, one.port, one.addresses) == ("one", 1234, ("127.0.0.1",))
    assert one.properties == ((b"room", b"of one"),)


async def test_nothing_goes_on_when_nothing_is_announced_any_more() -> None:
    async with announced(service("short")):
        pass
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_browser_that_looks_first_finds_what_is_announced_later() -> None:
    async with browser() as found:
        looking = asyncio.create_task(found.next())
        async with announced(service("late")):
            assert (await looking).label == "late"


async def test_names_that_are_not_wanted_are_not_asked() -> None:
    async with announced(service("other"), service("wanted")), browser("wanted") as found:
        assert (await found.next()).label == "wanted"
        assert found._names == {f"wanted.{KIND}"}


async def test_a_browser_is_deaf_beyond_a_number_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnssd, "MAX_NAMES", 3)
    async with browser() as found, announced(*(service(f"n{number}") for number in range(6))):
        await asyncio.gather(*(found.next() for _ in range(3)))
        assert len(found._names) == 3


async def test_two_that_speak_in_one_name_are_both_told_of() -> None:
    """Who copies the name of another must not make it disappear."""
    async with browser() as found, announced(service("name", 1)):
        honest = await found.next()
        liar = AsyncZeroconf(interfaces=["127.0.0.1"])
        try:
            info = ServiceInfo(
                KIND, f"name.{KIND}", port=2, addresses=[b"\x7f\0\0\1"], properties={}, server="liar.local."
            )
            await liar.async_register_service(info, cooperating_responders=True)
            while (other := await found.next()).port != 2:
                pass
        finally:
            await liar.async_close()
    assert honest.port == 1
    assert other.label == honest.label


async def test_no_network_is_told_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnssd, "WATCH_INTERVAL", 0.01)
    here = [NOTHING]
    told: asyncio.Queue[str | None] = asyncio.Queue()
    task = asyncio.create_task(announce(service("one"), told.put_nowait, lambda: here[0]))
    assert await told.get() == "this computer has no network"
    here[0] = LOOPBACK
    assert await told.get() is None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(CannotDiscover, match="no network"):
        async with Browser(KIND, bool, lambda: NOTHING):
            pass


def test_the_loopback_is_no_interface_that_leads_to_others() -> None:
    here = dnssd.interfaces()
    assert not {"127.0.0.1", "::1"} & set(here.addresses)
    assert len(here.choice) <= dnssd.MAX_INTERFACES + 1


GROUP, PORT = "224.0.0.251", 5353
A, AAAA, NSEC, CACHE_FLUSH = 1, 28, 47, 0x8001


class Chromium(asyncio.DatagramProtocol):
    """Answers for the name of a candidate as Chromium 156 does: one question a message, for IPv4."""

    def __init__(self, name: str, address: str, ignored: int = 0) -> None:
        self.label = name.removesuffix(".local").encode()
        self.address = ip_address(address)
        # Questions that are not answered yet.
        self.ignored = ignored

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        _, flags, questions, *_ = struct.unpack_from("!6H", data)
        name = bytes([len(self.label)]) + self.label + b"\5local\0"
        if flags or questions != 1 or data[12:] != name + struct.pack("!HH", A, 1):
            return
        if self.ignored:
            self.ignored -= 1
            return
        kind = A if self.address.version == 4 else AAAA
        bitmap = b"\0\1\x40" if kind == A else b"\0\4\0\0\0\x08"
        records = [(kind, self.address.packed), (NSEC, name + bitmap)]
        if kind == AAAA:
            # What there is not goes before what there is.
            records.reverse()
        packed = b"".join(
            name + struct.pack("!HHIH", number, CACHE_FLUSH, 120, len(rdata)) + rdata
            for number, rdata in records
        )
        self.transport.sendto(struct.pack("!6H", 0, 0x8400, 0, 1, 0, 1) + packed, (GROUP, PORT))


@asynccontextmanager
async def answering(chromium: Chromium) -> AsyncIterator[None]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("", PORT))
        loopback = socket.inet_aton("127.0.0.1")
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + loopback)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: chromium, sock=sock)
        try:
            yield
        finally:
            transport.close()


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
async def test_the_address_that_a_browser_hides_behind_a_name_is_found(address: str) -> None:
    async with answering(Chromium("e1b6ef89-6983.local", address)):
        assert await HostNames(lambda: LOOPBACK).resolve("e1b6ef89-6983.local") == address
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_name_that_is_answered_for_late_is_asked_for_again() -> None:
    async with answering(Chromium("late.local", "192.0.2.7", ignored=2)):
        assert await HostNames(lambda: LOOPBACK).resolve("late.local") == "192.0.2.7"


async def test_names_are_looked_up_side_by_side() -> None:
    hosts = HostNames(lambda: LOOPBACK)
    async with answering(Chromium("a.local", "192.0.2.1")), answering(Chromium("b.local", "192.0.2.2")):
        found = await asyncio.gather(hosts.resolve("a.local"), hosts.resolve("b.local"))
    assert found == ["192.0.2.1", "192.0.2.2"]


async def test_an_address_that_no_other_host_has_is_not_taken() -> None:
    async with answering(Chromium("liar.local", "127.0.0.1")):
        assert await HostNames(lambda: LOOPBACK).resolve("liar.local") is None


async def test_a_name_that_nobody_answers_for_has_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnssd, "_HOST_TIMEOUT", 300)
    assert await HostNames(lambda: LOOPBACK).resolve("nobody.local") is None
    assert await HostNames(lambda: NOTHING).resolve("nobody.local") is None
    assert asyncio.all_tasks() == {asyncio.current_task()}
