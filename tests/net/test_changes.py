from __future__ import annotations

import asyncio
import ctypes
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from flyx.net.changes import Change, Moved, NetworkWatch, Route, RouteState, Slept, is_ours
from flyx.net.interfaces import source_towards

CLONE_NEWNET = 0x40000000
PATIENCE = 10.0


class Host:
    """A network of its own, of the thread that makes it: no interface but those that a test makes."""

    def __init__(self) -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            pytest.skip("the right to make network namespaces is missing")
        self.ip("link set lo up")

    def run(self, *command: str) -> None:
        # Started from this thread, it is in the same network.
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)

    def ip(self, command: str) -> None:
        self.run("ip", *command.split())

    def plug_in(self, name: str, address: str, metric: int) -> None:
        """Add an interface with a way to everywhere."""
        self.ip(f"link add {name} type veth peer name {name}-end")
        self.ip(f"address add {address}/24 dev {name}")
        self.ip(f"link set {name}-end up")
        self.ip(f"link set {name} up")
        self.ip(f"route add default dev {name} metric {metric}")


@pytest.fixture
def on_a_host() -> Callable[[Callable[[Host], Awaitable[None]]], None]:
    """Runs a coroutine on a host of its own."""
    if shutil.which("ip") is None:
        pytest.skip("ip, of the package iproute2, is missing")

    def run(body: Callable[[Host], Awaitable[None]]) -> None:
        outcome: Future[None] = Future()

        async def begin() -> None:
            await body(Host())

        def work() -> None:
            try:
                asyncio.run(begin())
            except BaseException as error:
                outcome.set_exception(error)
            else:
                outcome.set_result(None)

        # The thread ends with the test, and the network with the thread.
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        outcome.result()

    return run


class News:
    """What a watch tells."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Change] = asyncio.Queue()

    def __call__(self, change: Change) -> None:
        self._queue.put_nowait(change)

    async def next(self) -> Change:
        async with asyncio.timeout(PATIENCE):
            return await self._queue.get()

    def empty(self) -> bool:
        return self._queue.empty()


FAR = ("198.51.100.1", 5000)

Step = Callable[[Host], None]


@pytest.mark.parametrize(
    ("happens", "state"),
    [
        (lambda host: host.ip("link add other type bridge"), RouteState.SAME),
        (lambda host: host.plug_in("worse", "10.9.0.1", 900), RouteState.SAME),
        (lambda host: host.plug_in("better", "10.9.0.1", 100), RouteState.GONE),
        (lambda host: host.ip("address del 10.8.0.1/24 dev cable"), RouteState.GONE),
        (lambda host: host.ip("link del cable"), RouteState.GONE),
    ],
)
@pytest.mark.parametrize("netlink", [True, False])
def test_a_change_is_told_at_once_and_judged_by_its_effect_on_a_path(
    on_a_host: Callable[[Callable[[Host], Awaitable[None]]], None],
    happens: Step,
    state: RouteState,
    netlink: bool,
) -> None:
    async def body(host: Host) -> None:
        host.plug_in("cable", "10.8.0.1", 500)
        route = Route(("10.8.0.1", 4000), FAR)
        assert route.look() is RouteState.SAME
        news = News()
        async with NetworkWatch(news, netlink=netlink):
            began = time.monotonic()
            if not netlink:
                # Once it has looked for the first time.
                await asyncio.sleep(0)
            happens(host)
            if netlink or state is RouteState.GONE:
                assert await news.next() == Moved()
                assert time.monotonic() - began < (1.0 if netlink else 3.0)
        assert route.look() is state

    on_a_host(body)


def test_a_vpn_changes_nothing_for_those_who_are_near(
    on_a_host: Callable[[Callable[[Host], Awaitable[None]]], None],
) -> None:
    async def body(host: Host) -> None:
        host.plug_in("cable", "10.8.0.1", 500)
        near = Route(("10.8.0.1", 4000), ("10.8.0.2", 5000))
        far = Route(("10.8.0.1", 4000), FAR)
        host.plug_in("tun", "10.7.0.1", 50)
        assert near.look() is RouteState.SAME
        assert far.look() is RouteState.GONE

    on_a_host(body)


def test_a_cable_that_is_out_for_a_while_brings_the_route_back(
    on_a_host: Callable[[Callable[[Host], Awaitable[None]]], None],
) -> None:
    async def body(host: Host) -> None:
        host.plug_in("cable", "10.8.0.1", 500)
        route = Route(("10.8.0.1", 4000), FAR)
        host.ip("link set cable down")
        assert route.look() is RouteState.SAME
        host.ip("link set cable up")
        host.ip("route add default dev cable metric 500")
        assert route.look() is RouteState.BACK
        assert route.look() is RouteState.SAME

    on_a_host(body)


def test_an_interface_is_no_network_while_its_cable_is_out(
    on_a_host: Callable[[Callable[[Host], Awaitable[None]]], None],
) -> None:
    async def body(host: Host) -> None:
        host.plug_in("cable", "10.8.0.1", 500)
        # The address stays, and so does the route; Linux sees to carriers once a second.
        for state, known in (("up", "True"), ("down", "False"), ("up", "True")):
            host.ip(f"link set cable-end {state}")
            # Another process: the interfaces that this one lists are those of its first thread.
            host.run(sys.executable, "-c", UNTIL_KNOWN, "cable 10.8.0.1", known)

    on_a_host(body)


UNTIL_KNOWN = """
import sys, time
from flyx.net.changes import networks
while str(sys.argv[1] in networks()) != sys.argv[2]:
    time.sleep(0.01)
"""


def test_many_changes_in_a_row_are_one(
    on_a_host: Callable[[Callable[[Host], Awaitable[None]]], None],
) -> None:
    async def body(host: Host) -> None:
        news = News()
        async with NetworkWatch(news):
            for number in range(5):
                host.ip(f"link add other{number} type bridge")
            assert await news.next() == Moved()
            assert news.empty()

    on_a_host(body)


async def test_a_program_that_stood_still_is_told_for_how_long() -> None:
    news = News()
    slept = 0.0
    async with NetworkWatch(news, netlink=False, clock=lambda: time.monotonic() + slept):
        # Once it has looked at the clock.
        await asyncio.sleep(0)
        slept = 3600.0
        change = await news.next()
    assert isinstance(change, Slept)
    assert change.seconds == pytest.approx(3600.0, abs=60.0)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux tells which files are open")
async def test_nothing_stays_open_when_the_end_is_cut_short() -> None:
    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    ending = asyncio.Event()

    async def watch() -> None:
        async with NetworkWatch(News()):
            await asyncio.sleep(0)
            ending.set()

    before = files()
    watching = asyncio.create_task(watch())
    await ending.wait()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert files() == before


@pytest.mark.parametrize("address", [("127.0.0.1", 9), ("::1", 9, 0, 0)])
def test_ones_own_address_is_known(address: tuple[object, ...]) -> None:
    assert is_ours(address)
    assert source_towards(address) == address[0]


@pytest.mark.parametrize("address", [("192.0.2.1", 9), ("2001:db8::1", 9, 0, 0)])
def test_the_address_of_another_is_not_ones_own(address: tuple[object, ...]) -> None:
    assert not is_ours(address)
