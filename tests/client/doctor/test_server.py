"""What doctor says of the signaling server: real flyx servers, and those that are none."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from socket import AF_INET, AF_INET6

import pytest

from flyx import __version__
from flyx.client.doctor import server as server_module
from flyx.client.doctor.finding import Finding, FindingState
from flyx.client.doctor.http import origin_of
from flyx.client.doctor.server import check_name, check_server, check_websocket
from flyx.net import connect as net_connect
from flyx.server.app import Server
from flyx.server.config import ServerConfig
from tests.net.names import NO_SUCH_NAME, Names
from tests.server.peers import http_of
from tests.server.transport.test_tls import issue


@asynccontextmanager
async def flyx_server(**settings: object) -> AsyncIterator[Server]:
    config = ServerConfig(host="127.0.0.1", port=0, stun_urls=(), test_room=False, **settings)  # type: ignore[arg-type]
    async with Server(config) as running:
        yield running


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """A server that answers whatever it is asked so; return its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


def reply(body: str, status: str = "200 OK", date: datetime | None = None) -> bytes:
    dated = f"Date: {format_datetime(date, usegmt=True)}\r\n" if date else ""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{dated}\r\n{body}".encode()


async def found(url: str) -> dict[str, Finding]:
    return {finding.name: finding for finding in await check_server(origin_of(url))}


async def test_a_flyx_server_tells_its_version_and_its_time() -> None:
    async with flyx_server() as server:
        findings = await found(server.url)
    assert findings["server"].state is FindingState.OK
    assert findings["server"].figures["version"] == __version__
    assert findings["clock"].state is FindingState.OK


async def test_a_server_that_keeps_its_status_to_itself_is_one_all_the_same() -> None:
    async with flyx_server(metrics_token="secret") as server:
        findings = await found(server.url)
    assert findings["server"].state is FindingState.OK
    assert "version to itself" in findings["server"].words


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply("<html>"), "something answers (HTTP 200), but not as a flyx server does"),
        (reply("[]"), "something answers (HTTP 200), but not as a flyx server does"),
        (reply('{"version": 7}'), "something answers (HTTP 200), but not as a flyx server does"),
        (reply("gone", "404 Not Found"), "something answers (HTTP 404), but not as a flyx server does"),
        (b"220 smtp.example.org ESMTP\r\n\r\n", "it does not speak HTTP"),
        (b"", "closes the connection without an answer"),
        (reply("x" * 100_000), "its answer does not end"),
    ],
)
async def test_what_is_no_flyx_server_is_called_so(answer: bytes, words: str) -> None:
    async with answering(answer) as url:
        finding = (await found(url))["server"]
    assert finding.state is FindingState.FAILING
    assert words in finding.words
    assert finding.advice


@pytest.mark.parametrize(
    ("version", "state"), [("0.0.1", FindingState.WARNING), (__version__, FindingState.OK)]
)
async def test_a_server_of_another_release_is_a_warning(version: str, state: FindingState) -> None:
    async with answering(reply(f'{{"version": "{version}"}}')) as url:
        finding = (await found(url))["server"]
    assert finding.state is state
    assert f"flyx {version} answers" in finding.words


@pytest.mark.parametrize(
    ("minutes", "state", "words"),
    [
        (0, FindingState.OK, "agrees"),
        (10, FindingState.WARNING, "behind"),
        (-10, FindingState.WARNING, "ahead of"),
    ],
)
async def test_a_clock_that_is_wrong_is_found_by_the_servers(
    minutes: int, state: FindingState, words: str
) -> None:
    date = datetime.now(UTC) + timedelta(minutes=minutes)
    async with answering(reply('{"version": "0.1.0"}', date=date)) as url:
        finding = (await found(url))["clock"]
    assert finding.state is state
    assert words in finding.words


async def test_where_nothing_listens_there_is_advice() -> None:
    async with answering(b"") as url:
        pass
    finding = (await found(url))["server"]
    assert finding.state is FindingState.FAILING
    assert "flyx serve" in finding.advice


async def test_a_certificate_that_is_not_trusted_is_named(tmp_path: Path) -> None:
    certificate, key = issue(tmp_path, "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with listener:
        finding = (await found(f"wss://127.0.0.1:{listener.sockets[0].getsockname()[1]}"))["server"]
    assert finding.state is FindingState.FAILING
    assert "certificate is not trusted" in finding.words
    assert "SSL_CERT_FILE" in finding.advice


async def test_a_websocket_that_passes_makes_a_room_and_leaves_it() -> None:
    async with flyx_server() as server:
        finding, joined = await check_websocket(server.url, origin_of(server.url), None)
        assert finding.state is FindingState.OK
        assert joined is not None
        async with http_of(server) as http:
            status = (await http.get("/status")).json()
    assert (status["rooms"], status["clients"]) == (0, 0)


async def test_a_websocket_that_never_opens_is_told_within_the_time_of_a_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "ANSWER_TIMEOUT", 0.2)
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Nothing is said, and the client leaves.
        await reader.read()
        writer.close()
        left.set()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        url = f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        finding, joined = await check_websocket(url, origin_of(url), None)
        async with asyncio.timeout(10):
            await left.wait()
    assert joined is None
    assert finding.state is FindingState.FAILING
    assert finding.words == "there is no way to it within 0.2 s"


async def test_a_server_that_wants_a_token_is_a_warning_unless_it_gets_it() -> None:
    async with flyx_server(api_token="secret") as server:
        origin = origin_of(server.url)
        finding, joined = await check_websocket(server.url, origin, None)
        assert finding.state is FindingState.WARNING
        assert joined is None
        assert "--api-token" in finding.advice
        finding, joined = await check_websocket(server.url, origin, "secret")
        assert finding.state is FindingState.OK


@pytest.mark.parametrize(
    ("url", "state", "words"),
    [
        ("ws://192.0.2.1:8000", FindingState.OK, "named by its address"),
        ("ws://[2001:db8::1]", FindingState.OK, "named by its address"),
        ("ws://localhost", FindingState.OK, "localhost has"),
        ("ws://flyx.invalid", FindingState.FAILING, "flyx.invalid was not found"),
    ],
)
async def test_the_name_of_the_server_is_looked_up(url: str, state: FindingState, words: str) -> None:
    finding = await check_name(origin_of(url))
    assert finding.state is state
    assert words in finding.words


@pytest.mark.parametrize(
    ("server", "authority"),
    [
        ("wss://b\u00fccher.example:8000/flyx", "xn--bcher-kva.example:8000"),
        ("ws://[fe80::1%eth0]:8000", "[fe80::1]:8000"),
        ("ws://user:password@flyx.example", "flyx.example"),
    ],
)
def test_a_server_is_asked_by_a_name_that_can_stand_in_a_request(server: str, authority: str) -> None:
    assert origin_of(server).authority == authority


async def test_a_dead_proxy_that_is_not_needed_is_no_failure(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    names.answer("flyx.example", AF_INET6, NO_SUCH_NAME)
    names.answer("flyx.example", AF_INET, ["127.0.0.1"])
    # As on the way to its WebSocket.
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setattr(net_connect, "DIRECT_DELAY", 0.1)
    async with flyx_server(allowed_hosts=("flyx.example",)) as server:
        findings = await found(f"ws://flyx.example:{server.port}")
    assert findings["server"].state is FindingState.OK
    assert findings["server"].words.endswith("; proxy: 127.0.0.1:1 (HTTPS_PROXY)")
