from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import time
from contextlib import ExitStack
from socket import AF_INET, AF_INET6

import pytest

from flyx.net import connect as module
from flyx.net.connect import ConnectError, connect_tcp
from tests.net.endpoints import LOOPBACKS, free_port, listening, swallowing
from tests.net.names import NO_SUCH_NAME, TRY_AGAIN, Answer, Names

SERVER = "server.test"


async def peer(port: int) -> str:
    """Connect; return where to."""
    with await connect_tcp(SERVER, port) as sock:
        assert not sock.getblocking()
        host: str = sock.getpeername()[0]
        return host


async def descriptors() -> int:
    """How many this process has open, when what was cancelled has gone."""
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_a_dead_ipv6_address_costs_a_quarter_of_a_second(names: Names, runner: asyncio.Runner) -> None:
    port = free_port()
    names.answer(SERVER, AF_INET6, ["::1"])
    names.answer(SERVER, AF_INET, ["127.0.0.2"])
    with swallowing("::1", port), listening("127.0.0.2", port):
        began = time.monotonic()
        assert runner.run(peer(port)) == "127.0.0.2"
        assert module.ATTEMPT_DELAY <= time.monotonic() - began < 2


def test_an_address_that_refuses_costs_nothing(
    names: Names, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ATTEMPT_DELAY", 60.0)
    port = free_port()
    names.answer(SERVER, AF_INET6, ["::1"])
    names.answer(SERVER, AF_INET, list(LOOPBACKS[:3]))
    with listening(LOOPBACKS[2], port):
        assert runner.run(peer(port)) == LOOPBACKS[2]


def test_the_first_that_answers_is_taken_and_all_others_are_closed(
    names: Names, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ATTEMPT_DELAY", 0.02)
    port = free_port()
    dead = LOOPBACKS[:6]
    names.answer(SERVER, AF_INET6, NO_SUCH_NAME)
    names.answer(SERVER, AF_INET, [*dead, LOOPBACKS[6]])
    with ExitStack() as stack:
        for host in dead:
            stack.enter_context(swallowing(host, port))
        stack.enter_context(listening(LOOPBACKS[6], port))

        async def count() -> tuple[int, int]:
            before = await descriptors()
            assert await peer(port) == LOOPBACKS[6]
            return before, await descriptors()

        before, after = runner.run(count())
        assert after == before


def test_ipv4_waits_shortly_for_ipv6_and_no_longer(
    names: Names, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 8305 §3: a name server that ignores the question for IPv6 addresses holds nobody up."""
    monkeypatch.setattr(module, "ATTEMPT_DELAY", 60.0)
    port = free_port()
    silence = threading.Event()
    names.answer(SERVER, AF_INET6, silence, TRY_AGAIN)
    names.answer(SERVER, AF_INET, ["127.0.0.2"])
    try:
        with listening("127.0.0.2", port):
            began = time.monotonic()
            assert runner.run(peer(port)) == "127.0.0.2"
            assert module.RESOLUTION_DELAY <= time.monotonic() - began < 2
    finally:
        silence.set()


@pytest.mark.parametrize("late", [NO_SUCH_NAME, ["::1"]])
def test_ipv4_waits_no_longer_than_until_it_is_known_whether_there_is_ipv6(
    names: Names, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch, late: Answer
) -> None:
    monkeypatch.setattr(module, "RESOLUTION_DELAY", 60.0)
    port = free_port()
    asked = threading.Event()
    names.answer(SERVER, AF_INET6, asked, late)
    names.answer(SERVER, AF_INET, ["127.0.0.2"])
    threading.Timer(0.05, asked.set).start()
    with listening("127.0.0.2", port):
        assert runner.run(peer(port)) == "127.0.0.2"


def test_an_address_that_is_known_late_is_tried(names: Names, runner: asyncio.Runner) -> None:
    port = free_port()
    asked = threading.Event()
    names.answer(SERVER, AF_INET6, ["::1"])
    names.answer(SERVER, AF_INET, asked, ["127.0.0.2"])
    # The IPv6 address has long refused by then.
    threading.Timer(0.3, asked.set).start()
    with listening("127.0.0.2", port):
        assert runner.run(peer(port)) == "127.0.0.2"


def test_when_all_addresses_have_failed_the_other_family_is_not_waited_for_long(
    names: Names, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OTHER_FAMILY_DELAY", 0.05)
    names.answer(SERVER, AF_INET6, TRY_AGAIN)
    names.answer(SERVER, AF_INET, ["127.0.0.2"])
    began = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        runner.run(peer(free_port()))
    assert time.monotonic() - began < 5


def test_one_reason_for_all_addresses_is_that_reason(names: Names, runner: asyncio.Runner) -> None:
    names.answer(SERVER, AF_INET6, ["::1"])
    names.answer(SERVER, AF_INET, ["127.0.0.2", "127.0.0.3"])
    with pytest.raises(ConnectionRefusedError):
        runner.run(peer(free_port()))


def test_several_reasons_become_one_sentence(
    names: Names, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.3)
    port = free_port()
    names.answer(SERVER, AF_INET6, NO_SUCH_NAME)
    names.answer(SERVER, AF_INET, ["127.0.0.2", "127.0.0.3", "127.0.0.4"])
    with swallowing("127.0.0.3", port), pytest.raises(ConnectError) as caught:
        runner.run(peer(port))
    told = "127.0.0.2, 127.0.0.4 refuses connections; 127.0.0.3 does not answer"
    assert caught.value.strerror == told
    assert module.why_not_connected(caught.value) == f"cannot be reached: {told}"


def test_a_machine_without_ipv6_blames_ipv4(names: Names, runner: asyncio.Runner) -> None:
    """TCP has no way to a multicast address: the kernel says of it what it says without IPv6 of all."""
    names.answer(SERVER, AF_INET6, ["ff0e::1"])
    names.answer(SERVER, AF_INET, ["127.0.0.2"])
    with pytest.raises(ConnectionRefusedError):
        runner.run(peer(free_port()))


def test_a_name_with_endless_addresses_is_given_up(
    names: Names, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ADDRESSES", 5)
    port = free_port()
    names.answer(SERVER, AF_INET6, NO_SUCH_NAME)
    names.answer(SERVER, AF_INET, list(LOOPBACKS[:6]))
    with listening(LOOPBACKS[5], port), pytest.raises(ConnectionRefusedError):
        runner.run(peer(port))


def test_a_connection_under_way_is_cancelled_at_once_and_closed(names: Names, runner: asyncio.Runner) -> None:
    port = free_port()
    names.answer(SERVER, AF_INET6, NO_SUCH_NAME)
    names.answer(SERVER, AF_INET, ["127.0.0.2", "127.0.0.3"])
    with swallowing("127.0.0.2", port), swallowing("127.0.0.3", port):

        async def give_up() -> tuple[int, int]:
            before = await descriptors()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.4):
                    await peer(port)
            return before, await descriptors()

        before, after = runner.run(give_up())
        assert after == before


def test_the_segments_are_as_small_as_asked(runner: asyncio.Runner) -> None:
    with listening("127.0.0.2") as listener:

        async def segment_sizes() -> tuple[int, int]:
            with await connect_tcp("127.0.0.2", listener.getsockname()[1], max_segment_size=1220) as ours:
                theirs, _ = listener.accept()
                with theirs:
                    option = socket.IPPROTO_TCP, socket.TCP_MAXSEG
                    return ours.getsockopt(*option), theirs.getsockopt(*option)

        # Options such as the timestamps of RFC 7323 are counted in.
        assert all(1100 < size <= 1220 for size in runner.run(segment_sizes()))
