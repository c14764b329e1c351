from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from socket import AF_INET, AF_INET6

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.net import names as module
from flyx.net.names import Address, interleaved, resolve
from tests.net.names import NO_SUCH_NAME, TRY_AGAIN, Names

STREAM = socket.SOCK_STREAM


async def hosts(name: str) -> list[str]:
    return [address.sockaddr[0] for address in await resolve(name, 80, socktype=STREAM)]


def test_addresses_of_both_families_come_by_turns_ipv6_first(names: Names, runner: asyncio.Runner) -> None:
    names.answer("both.test", AF_INET, ["192.0.2.1", "192.0.2.2", "192.0.2.3"])
    names.answer("both.test", AF_INET6, ["2001:db8::1", "2001:db8::2"])
    found = runner.run(hosts("both.test"))
    assert found == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3"]


@pytest.mark.parametrize(
    ("literal", "address"),
    [
        ("192.0.2.7", Address(AF_INET, ("192.0.2.7", 80))),
        ("2001:db8::7", Address(AF_INET6, ("2001:db8::7", 80, 0, 0))),
        ("fe80::7%lo", Address(AF_INET6, ("fe80::7", 80, 0, socket.if_nametoindex("lo")))),
    ],
)
async def test_a_literal_is_one_address_with_its_scope(literal: str, address: Address) -> None:
    assert await resolve(literal, 80, socktype=STREAM) == [address]


@pytest.mark.parametrize("name", ["no.such.name.invalid", "a..b", "x" * 64, "a\0b", "", "::1%nowhere"])
async def test_what_is_no_name_is_not_found(name: str) -> None:
    with pytest.raises(socket.gaierror):
        await resolve(name, 80, socktype=STREAM)


def test_a_name_that_does_not_exist_is_asked_for_once(names: Names, runner: asyncio.Runner) -> None:
    for family in (AF_INET, AF_INET6):
        names.answer("gone.test", family, NO_SUCH_NAME)
    with pytest.raises(socket.gaierror) as caught:
        runner.run(hosts("gone.test"))
    assert caught.value.errno == socket.EAI_NONAME
    assert sorted(names.asked) == [AF_INET, AF_INET6]


def test_a_temporary_failure_is_tried_again(
    names: Names, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0.01)
    names.answer("later.test", AF_INET, TRY_AGAIN, TRY_AGAIN, ["192.0.2.1"])
    names.answer("later.test", AF_INET6, NO_SUCH_NAME)
    assert runner.run(hosts("later.test")) == ["192.0.2.1"]


def test_a_failure_that_stays_ends_with_patience(
    names: Names, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0.01)
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    names.answer("broken.test", AF_INET, TRY_AGAIN)
    names.answer("broken.test", AF_INET6, NO_SUCH_NAME)
    with pytest.raises(socket.gaierror) as caught:
        runner.run(hosts("broken.test"))
    assert caught.value.errno == socket.EAI_AGAIN


def test_a_server_that_starts_to_answer_is_heard_although_one_look_up_hangs(
    names: Names, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ASK_AGAIN", 0.02)
    silence = threading.Event()
    names.answer("slow.test", AF_INET, silence, silence, ["192.0.2.1"])
    names.answer("slow.test", AF_INET6, NO_SUCH_NAME)
    try:
        assert runner.run(hosts("slow.test")) == ["192.0.2.1"]
    finally:
        silence.set()


def test_one_family_does_not_wait_for_a_server_that_ignores_the_other(
    names: Names, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some name servers never answer when asked for IPv6 addresses."""
    monkeypatch.setattr(module, "OTHER_FAMILY_DELAY", 0.05)
    silence = threading.Event()
    names.answer("four.test", AF_INET, ["192.0.2.1"])
    names.answer("four.test", AF_INET6, silence, TRY_AGAIN)
    try:
        assert runner.run(hosts("four.test")) == ["192.0.2.1"]
    finally:
        silence.set()


def test_a_look_up_that_hangs_is_cancelled_at_once(names: Names, runner: asyncio.Runner) -> None:
    silence = threading.Event()
    for family in (AF_INET, AF_INET6):
        names.answer("silent.test", family, silence, TRY_AGAIN)

    async def give_up() -> None:
        async with asyncio.timeout(0.05):
            await hosts("silent.test")

    try:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            runner.run(give_up())
        assert time.monotonic() - began < 1
    finally:
        silence.set()


def test_look_ups_that_hang_take_a_bounded_number_of_threads(
    names: Names, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    silence = threading.Event()
    names.answer("silent.test", AF_INET, silence, TRY_AGAIN)
    names.answer("silent.test", AF_INET6, silence, TRY_AGAIN)
    before = threading.active_count()

    async def ask_much() -> None:
        asked = [hosts("silent.test") for _ in range(module.MAX_THREADS)]
        for failure in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(failure, socket.gaierror)

    try:
        runner.run(ask_much())
        assert threading.active_count() <= before + module.MAX_THREADS
    finally:
        silence.set()
    while threading.active_count() > before:
        time.sleep(0.01)
    # And they are there again.
    monkeypatch.undo()
    assert runner.run(hosts("localhost"))


HANGS = """
import asyncio, socket, threading
from flyx.net.loop import new_event_loop
from flyx.net.names import resolve

system = socket.getaddrinfo

def getaddrinfo(host, *rest, flags=0):
    if flags & socket.AI_NUMERICHOST:
        return system(host, *rest, flags=flags)
    threading.Event().wait()

socket.getaddrinfo = getaddrinfo

async def main():
    try:
        async with asyncio.timeout(0.1):
            await resolve("silent.test", 80, socktype=socket.SOCK_STREAM)
    except TimeoutError:
        print("over")

with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main())
"""


def test_the_process_ends_although_look_ups_hang() -> None:
    ended = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=30)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("over\n", "", 0)


@given(st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=3))
def test_interleaving_keeps_each_order_and_gives_each_address_once(families: list[list[int]]) -> None:
    lists = [
        [Address(AF_INET, (f"192.0.{family}.{n}", 1)) for n in numbers]
        for family, numbers in enumerate(families)
    ]
    result = interleaved(lists)
    assert len(result) == len(set(result))
    assert set(result) == {address for addresses in lists for address in addresses}
    for addresses in lists:
        mine = [address for address in result if address in set(addresses)]
        assert mine == list(dict.fromkeys(addresses))
    shortest = min((len(dict.fromkeys(addresses)) for addresses in lists), default=0)
    unique = all(len(set(addresses)) == len(addresses) for addresses in lists)
    if unique:
        expected = [lists[i % len(lists)][i // len(lists)] for i in range(shortest * len(lists))]
        assert result[: len(expected)] == expected
