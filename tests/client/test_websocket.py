"""How a client reaches a server by name, against real servers and proxies on the loopback."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from flyx.client.signaling import Interrupted, RetryPolicy, Signaling
from flyx.client.websocket import MAX_SEGMENT_SIZE
from flyx.errors import InputError, RoomLost, ServerRefused, ServerUnreachable
from flyx.net import connect as net_connect
from flyx.net import names as net_names
from flyx.net import tls as net_tls
from flyx.net.loop import new_event_loop
from flyx.server.app import Server
from flyx.server.config import ServerConfig
from flyx.signaling.messages import Role
from tests.net.endpoints import free_port, swallowing
from tests.net.names import NO_SUCH_NAME, TRY_AGAIN, Names
from tests.net.proxies import http_proxy, saying, serving, socks4_proxy, socks5_proxy
from tests.server.transport.test_tls import issue

SERVER = "server.test"
QUICK = RetryPolicy(first_pause=0.01, longest_pause=0.05, limit=20.0)


@asynccontextmanager
async def running(
    host: str = "127.0.0.1", port: int = 0, tls: tuple[Path, Path] | None = None
) -> AsyncIterator[Server]:
    hosts = SERVER, "hidden.invalid", "localhost"
    config = ServerConfig(host=host, port=port, stun_urls=(), test_room=False, tls=tls, allowed_hosts=hosts)
    async with Server(config) as server:
        yield server


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """The event loop of flyx, on Linux without Happy Eyeballs of its own."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        yield runner


async def join(url: str) -> None:
    async with Signaling(url, None, Role.SENDER) as client:
        assert client.joined.room_id


def test_a_server_whose_ipv6_is_swallowed_is_reached(names: Names, runner: asyncio.Runner) -> None:
    names.answer(SERVER, AF_INET6, ["::1"])
    names.answer(SERVER, AF_INET, ["127.0.0.1"])

    async def go() -> float:
        async with running() as server:
            with swallowing("::1", server.port):
                began = time.monotonic()
                await join(f"ws://{SERVER}:{server.port}")
                return time.monotonic() - began

    assert runner.run(go()) < 5


async def test_a_literal_of_ipv6_is_reached() -> None:
    async with running("::1") as server:
        await join(f"ws://[::1]:{server.port}")


def test_a_server_of_two_addresses_of_which_one_is_dead_is_reached(
    names: Names, runner: asyncio.Runner
) -> None:
    names.answer(SERVER, AF_INET6, NO_SUCH_NAME)
    names.answer(SERVER, AF_INET, ["127.0.0.3", "127.0.0.4", "127.0.0.1"])

    async def go() -> None:
        async with running() as server:
            with swallowing("127.0.0.3", server.port):
                await join(f"ws://{SERVER}:{server.port}")

    runner.run(go())


async def test_a_server_that_moves_is_found_again(names: Names) -> None:
    names.answer(SERVER, AF_INET6, NO_SUCH_NAME)
    names.answer(SERVER, AF_INET, ["127.0.0.1"])
    async with running() as first:
        client = Signaling(f"ws://{SERVER}:{first.port}", None, Role.SENDER, retry=QUICK)
        await client.__aenter__()
    assert isinstance(await client.receive(), Interrupted)
    names.answer(SERVER, AF_INET, ["127.0.0.5"])
    # What says that it knows no such room is the server where it is now.
    async with running("127.0.0.5", first.port):
        with pytest.raises(RoomLost):
            await client.receive()


async def test_a_name_that_does_not_exist_is_said_to(names: Names) -> None:
    for family in (AF_INET, AF_INET6):
        names.answer(SERVER, family, NO_SUCH_NAME)
    with pytest.raises(ServerUnreachable, match="its name does not exist") as caught:
        await join(f"ws://{SERVER}:1")
    assert "how it is written" in str(caught.value.hint)


async def test_a_name_that_nobody_answers_for_is_said_to(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net_names, "PATIENCE", 0.05)
    for family in (AF_INET, AF_INET6):
        names.answer(SERVER, family, TRY_AGAIN)
    with pytest.raises(ServerUnreachable, match="no name server answers for its name") as caught:
        await join(f"ws://{SERVER}:1")
    assert "network" in str(caught.value.hint)


async def test_name_servers_that_are_silent_at_first_are_waited_for(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net_names, "_ASK_AGAIN", 0.05)
    silence = threading.Event()
    names.answer(SERVER, AF_INET6, silence, NO_SUCH_NAME)
    names.answer(SERVER, AF_INET, silence, silence, silence, ["127.0.0.1"])
    try:
        async with running() as server:
            await join(f"ws://{SERVER}:{server.port}")
    finally:
        silence.set()


async def test_several_addresses_that_fail_are_one_sentence(names: Names) -> None:
    names.answer(SERVER, AF_INET6, ["::1"])
    names.answer(SERVER, AF_INET, ["127.0.0.2", "127.0.0.3"])
    with pytest.raises(ServerUnreachable, match="nothing listens there"):
        await join(f"ws://{SERVER}:{free_port()}")


def test_one_who_gives_up_waits_for_nothing(names: Names, runner: asyncio.Runner) -> None:
    silence = threading.Event()
    for family in (AF_INET, AF_INET6):
        names.answer(SERVER, family, silence, TRY_AGAIN)

    async def give_up() -> None:
        async with asyncio.timeout(0.1):
            await join(f"ws://{SERVER}:1")

    try:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            runner.run(give_up())
        runner.close()
        assert time.monotonic() - began < 2
    finally:
        silence.set()


async def test_segments_pass_every_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both sides: what the server says may be long as well."""
    sizes: list[int] = []

    async def look(server: ServerConnection) -> None:
        sock = server.transport.get_extra_info("socket")
        sizes.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))

    async with serve(look, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with pytest.raises(ServerRefused):
            await join(f"ws://127.0.0.1:{port}")
    assert sizes[0] <= MAX_SEGMENT_SIZE


def redirecting(
    location: str,
    status: int = 301,
    seen: list[Request] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Any:
    """A web server that only redirects."""

    def answer(connection: ServerConnection, request: Request) -> Response:
        if seen is not None:
            seen.append(request)
        response = connection.respond(status, "")
        response.headers["Location"] = location
        return response

    async def never(_: ServerConnection) -> None: ...

    return serve(never, "127.0.0.1", 0, process_request=answer, ssl=tls)


@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_a_redirection_is_followed(scheme: str) -> None:
    async with running() as server:
        location = f"{scheme}://127.0.0.1:{server.port}/ws?role=sender"
        async with redirecting(location) as other:
            await join(f"ws://127.0.0.1:{next(iter(other.sockets)).getsockname()[1]}")


@pytest.mark.parametrize("location", ["ftp://x", "http://", "http://[::1", "http://x:99999", "//", "\\"])
async def test_a_redirection_to_nowhere_is_an_error(location: str) -> None:
    async with redirecting(location) as other:
        with pytest.raises(ServerUnreachable, match=r"no server to go on with|without end|name does not"):
            await join(f"ws://127.0.0.1:{next(iter(other.sockets)).getsockname()[1]}")


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("https://hidden.invalid/ws", "wss://hidden.invalid: its name does not exist"),
        ("http://127.0.0.1:9", "ws://127.0.0.1:9: nothing listens there"),
    ],
)
async def test_of_a_redirection_that_fails_its_target_is_named(location: str, why: str) -> None:
    async with redirecting(location) as other:
        with pytest.raises(ServerUnreachable) as caught:
            await join(url := f"ws://127.0.0.1:{next(iter(other.sockets)).getsockname()[1]}")
    assert str(caught.value) == f"Cannot reach the signaling server {url}: it sends us on to {why}"


async def test_what_answers_where_a_redirection_leads_is_told_as_what_it_is() -> None:
    async with redirecting("", status=404) as target:
        there = f"ws://127.0.0.1:{next(iter(target.sockets)).getsockname()[1]}"
        async with redirecting(f"{there}/ws?role=receiver") as other:
            url = f"ws://127.0.0.1:{next(iter(other.sockets)).getsockname()[1]}"
            with pytest.raises(ServerUnreachable, match=f"sends us on to {there}: it is no flyx server"):
                await join(url)


async def test_a_web_server_of_an_older_http_is_told_as_no_flyx_server() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with serving(answer) as port:
        with pytest.raises(ServerUnreachable, match="no flyx server, or a proxy in between"):
            await join(f"ws://127.0.0.1:{port}")


async def test_redirections_without_end_are_an_error() -> None:
    seen: list[Request] = []
    async with redirecting("/round", seen=seen) as other:
        with pytest.raises(ServerUnreachable, match="redirects without end"):
            await join(f"ws://127.0.0.1:{next(iter(other.sockets)).getsockname()[1]}")
    assert len(seen) <= 10


async def test_a_token_goes_to_no_other_host() -> None:
    tokens: list[str | None] = []
    seen: list[Request] = []
    async with redirecting("/nowhere", status=404, seen=seen) as target:
        port = next(iter(target.sockets)).getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            async with redirecting(f"http://{host}:{port}/ws") as other:
                url = f"ws://127.0.0.1:{next(iter(other.sockets)).getsockname()[1]}"
                with pytest.raises(ServerUnreachable, match="404"):
                    async with Signaling(url, None, Role.SENDER, api_token="s3cret"):
                        pass
            tokens.append(seen[-1].headers.get("Authorization"))
    assert tokens == ["Bearer s3cret", None]


@pytest.mark.parametrize(
    ("variable", "scheme", "run"),
    [
        ("HTTPS_PROXY", "http", http_proxy),
        ("https_proxy", "socks5h", socks5_proxy),
        ("ALL_PROXY", "http", http_proxy),
        ("all_proxy", "socks5", socks5_proxy),
        ("HTTP_PROXY", "socks4a", socks4_proxy),
    ],
)
def test_a_server_that_only_a_proxy_leads_to_is_reached(
    runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch, variable: str, scheme: str, run: Any
) -> None:
    async def go() -> None:
        async with running() as server, run(ways={"hidden.invalid": "127.0.0.1"}) as proxy:
            monkeypatch.setenv(variable, f"{scheme}://127.0.0.1:{proxy.port}")
            await join(f"ws://hidden.invalid:{server.port}")
            assert proxy.asked == [("hidden.invalid", server.port)]

    runner.run(go())


@pytest.mark.parametrize("proxy_by_tls", [False, True])
def test_tls_goes_through_a_proxy(
    runner: asyncio.Runner,
    monkeypatch: pytest.MonkeyPatch,
    names: Names,
    tmp_path: Path,
    proxy_by_tls: bool,
) -> None:
    """The certificate is for localhost, which is never behind a proxy: another name is."""
    certificate, key = issue(tmp_path, "both")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def go() -> None:
        tls = context if proxy_by_tls else None
        ways = {"hidden.invalid": "127.0.0.1"}
        async with running(tls=(certificate, key)) as server, http_proxy(ways=ways, tls=tls) as proxy:
            monkeypatch.setenv("ALL_PROXY", f"http{'s' if tls else ''}://127.0.0.1:{proxy.port}")
            with pytest.raises(ServerUnreachable, match="certificate is not trusted"):
                await join(f"wss://hidden.invalid:{server.port}")
            assert proxy.asked == [("hidden.invalid", server.port)]

    runner.run(go())


def test_a_plain_server_is_reached_through_a_proxy_spoken_to_by_tls(
    runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate, key = issue(tmp_path, "proxy")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def go() -> None:
        ways = {"hidden.invalid": "127.0.0.1"}
        async with running() as server, http_proxy(ways=ways, tls=context) as proxy:
            monkeypatch.setenv("ALL_PROXY", f"https://127.0.0.1:{proxy.port}")
            await join(f"ws://hidden.invalid:{server.port}")
            assert proxy.asked

    runner.run(go())


async def test_the_loopback_is_never_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as server, http_proxy() as proxy:
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
        await join(server.url)
        assert not proxy.asked


async def test_a_dead_proxy_that_is_not_needed_is_passed_by(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    names.answer(SERVER, AF_INET6, NO_SUCH_NAME)
    names.answer(SERVER, AF_INET, ["127.0.0.1"])
    monkeypatch.setattr(net_connect, "DIRECT_DELAY", 0.1)
    dead = free_port()
    with swallowing("127.0.0.2", dead):
        async with running() as server:
            for host in ("127.0.0.1", "127.0.0.2"):
                monkeypatch.setenv("HTTPS_PROXY", f"http://{host}:{dead}")
                await join(f"ws://{SERVER}:{server.port}")


async def test_a_proxy_that_refuses_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    async with http_proxy(credentials="me:right") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:wr0ng@127.0.0.1:{proxy.port}")
        with pytest.raises(ServerUnreachable) as caught:
            await join("ws://hidden.invalid:8000")
    told = str(caught.value)
    named = f"the proxy 127.0.0.1:{proxy.port} (HTTPS_PROXY)"
    assert f"{named} does not take this name and password (407)" in told
    assert "hidden.invalid has a name that does not exist" in told
    assert "wr0ng" not in told
    assert "NAME:PASSWORD" in str(caught.value.hint)


async def test_a_proxy_that_says_garbage_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async with saying(b"\0" * 100) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(ServerUnreachable, match="does not answer as an HTTP proxy"):
            await join("ws://hidden.invalid:8000")


async def test_what_is_no_proxy_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "gopher://proxy.test")
    with pytest.raises(InputError, match="HTTPS_PROXY"):
        await join("ws://hidden.invalid:8000")


async def test_a_redirection_to_tls_is_followed_and_one_away_from_it_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate, key = issue(tmp_path, "both")
    monkeypatch.setattr(net_tls, "_added", [certificate])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    seen: list[Request] = []
    async with running(tls=(certificate, key)) as server:
        async with redirecting(f"https://localhost:{server.port}/ws?role=sender", seen=seen) as other:
            await join(f"http://me:s3cret@localhost:{next(iter(other.sockets)).getsockname()[1]}")
    async with running() as server:
        async with redirecting(f"http://localhost:{server.port}/ws?role=sender", tls=context) as other:
            with pytest.raises(ServerUnreachable, match="sends us to http://localhost"):
                await join(f"https://localhost:{next(iter(other.sockets)).getsockname()[1]}")


@pytest.mark.parametrize(
    ("status", "told", "hint"),
    [
        (200, "a proxy in between does not pass WebSockets", "Upgrade"),
        (404, "a proxy in between does not pass WebSockets", "Upgrade"),
        (401, "wants a name and a password", "NAME:PASSWORD@"),
        (502, "does not reach it", "flyx serve"),
    ],
)
async def test_what_answers_in_place_of_a_server_is_told(status: int, told: str, hint: str) -> None:
    async with redirecting("", status=status) as other:
        with pytest.raises(ServerUnreachable, match=told) as caught:
            await join(f"ws://127.0.0.1:{next(iter(other.sockets)).getsockname()[1]}")
    assert hint in str(caught.value.hint)


async def test_a_proxy_that_drops_the_upgrade_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        kept = [line for line in request.split(b"\r\n") if b"pgrade" not in line]
        upstream, onward = await asyncio.open_connection("127.0.0.1", port)
        onward.write(b"\r\n".join(kept))
        writer.write(await upstream.readuntil(b"}"))
        onward.close()
        await onward.wait_closed()

    async with running() as server:
        port = server.port
        async with serving(pass_on) as proxy:
            with pytest.raises(ServerUnreachable, match="a proxy in between does not") as caught:
                await join(f"ws://127.0.0.1:{proxy}")
            assert "it is no flyx server" not in str(caught.value)


@pytest.mark.parametrize("path", ["/ws", "/ws/", "/ws/K7M2QX"])
async def test_a_path_below_the_server_is_told_to_be_left_out(path: str) -> None:
    async with running() as server:
        with pytest.raises((ServerRefused, ServerUnreachable)) as caught:
            await join(f"ws://127.0.0.1:{server.port}{path}")
        assert "without /ws" in str(caught.value.hint)
        with pytest.raises((ServerRefused, ServerUnreachable)) as caught:
            async with Signaling(f"ws://127.0.0.1:{server.port}{path}", "K7M2QX", Role.RECEIVER):
                pass
        assert "without /ws" in str(caught.value.hint)


async def test_an_unknown_authority_is_said_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate, key = issue(tmp_path, "unknown")
    monkeypatch.setattr(net_tls, "_added", [])
    async with running(tls=(certificate, key)) as server:
        url = f"wss://localhost:{server.port}"
        with pytest.raises(ServerUnreachable, match="authority is not known here") as caught:
            await join(url)
        assert "--tls-ca FILE, or in SSL_CERT_FILE" in str(caught.value.hint)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing"))
        with pytest.raises(ServerUnreachable) as caught:
            await join(url)
        assert "missing: that cannot be read" in str(caught.value.hint)
        net_tls.trust(certificate)
        await join(url)
    async with running("127.0.0.2", tls=(certificate, key)) as server:
        with pytest.raises(ServerUnreachable, match="not trusted") as caught:
            await join(f"wss://127.0.0.2:{server.port}")
        assert "name the server as its certificate does" in str(caught.value.hint)


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_file_without_authorities_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "authorities"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="certificate"):
        net_tls.trust(path)
