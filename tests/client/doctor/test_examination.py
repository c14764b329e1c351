"""All checks together, against a real server and what it tells of."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from flyx.client.doctor import examination
from flyx.client.doctor.examination import ORDER, Examination, examine
from flyx.client.doctor.finding import Finding, FindingState
from flyx.errors import InputError
from flyx.server.app import Server
from flyx.server.config import ServerConfig, TunnelConfig, TurnConfig
from tests.client.doctor.stun_server import MAIN, stun_server
from tests.rtc.relay import Relay


async def found(url: str, directory: Path) -> list[Finding]:
    findings: list[Finding] = []
    await examine(Examination(url, None, directory), findings.append)
    return findings


async def test_a_good_network_has_one_finding_for_each_subject_and_none_that_fails(tmp_path: Path) -> None:
    relay = Relay()
    async with stun_server() as stun:
        config = ServerConfig(
            host="127.0.0.1",
            port=0,
            test_room=False,
            stun_urls=(f"stun:{MAIN}:{stun.ports[0]}",),
            turn=TurnConfig((f"turn:{MAIN}:{await relay.listen()}",), "secret"),
        )
        async with Server(config) as server:
            findings = await found(server.url, tmp_path)
    relay.close()
    names = [finding.name for finding in findings]
    # Without a NAT the STUN server's other address still tells of a firewall.
    assert sorted(names) == sorted(set(ORDER) - {"peer", "pair"})
    states = {finding.name: finding.state for finding in findings}
    assert {name for name, state in states.items() if state is FindingState.FAILING} == set()
    assert states["turn"] is states["stun"] is states["server"] is FindingState.OK


async def test_a_server_that_relays_itself_is_said_to(tmp_path: Path) -> None:
    config = ServerConfig(host="127.0.0.1", port=0, test_room=False, stun_urls=(), relay=TunnelConfig(1e6))
    async with Server(config) as server:
        (relay,) = (each for each in await found(server.url, tmp_path) if each.name == "turn")
    assert relay.state is FindingState.OK
    assert "through the server itself" in relay.words


async def test_without_a_server_this_computer_is_examined_all_the_same(tmp_path: Path) -> None:
    # Nothing listens at port 9, which is discard's (RFC 863).
    findings = await found("ws://127.0.0.1:9", tmp_path)
    states = {finding.name: finding.state for finding in findings}
    assert states["server"] is states["websocket"] is FindingState.FAILING
    assert {"offload", "descriptors", "disk", "mdns"} <= set(states)
    assert "stun" not in states


async def test_where_nobody_has_named_a_server_none_is_no_failure(tmp_path: Path) -> None:
    findings: list[Finding] = []
    await examine(Examination("ws://127.0.0.1:9", None, tmp_path, is_named=False), findings.append)
    found = {finding.name: finding for finding in findings}
    assert found["server"].state is FindingState.WARNING
    assert "local network" in found["server"].meaning
    assert "websocket" not in found


async def test_relays_that_cannot_be_used_or_do_not_answer_are_named(tmp_path: Path) -> None:
    async def closed_port() -> int:
        listener = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = int(listener.sockets[0].getsockname()[1])
        listener.close()
        await listener.wait_closed()
        return port

    urls = (f"turn:127.0.0.1:{await closed_port()}?transport=tcp", "turns:127.0.0.1?transport=udp")
    config = ServerConfig(
        host="127.0.0.1", port=0, test_room=False, stun_urls=(), turn=TurnConfig(urls, "secret")
    )
    async with Server(config) as server:
        findings = await found(server.url, tmp_path)
    relays = {finding.words: finding for finding in findings if finding.name == "turn"}
    assert len(relays) == 2
    assert all(finding.state is FindingState.FAILING for finding in relays.values())
    assert "127.0.0.1 by TCP is not there: connection refused" in relays
    assert any(words.startswith(urls[1]) for words in relays)


async def test_what_goes_wrong_in_a_check_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> Finding:
        raise ZeroDivisionError

    async def endless(*_: object) -> Finding:
        await asyncio.Event().wait()
        raise AssertionError

    async def no_disk(*_: object) -> Finding:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(examination, "check_offload", broken)
    monkeypatch.setattr(examination, "check_mdns", endless)
    monkeypatch.setattr(examination, "check_disk", no_disk)
    monkeypatch.setattr(examination, "CHECK_TIMEOUT", 0.5)
    findings = {finding.name: finding for finding in await found("ws://127.0.0.1:9", tmp_path)}
    assert findings["offload"].words == "could not be checked: ZeroDivisionError"
    assert findings["mdns"].words == "no result within 0.5 s"
    assert findings["disk"].words == "could not be checked: Input/output error"
    assert findings["descriptors"].state is FindingState.OK
    assert "ZeroDivisionError" in caplog.text


async def test_whoever_cannot_hear_the_findings_ends_the_examination(tmp_path: Path) -> None:
    def gone(_: Finding) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await examine(Examination("ws://127.0.0.1:9", None, tmp_path), gone)


async def test_what_is_no_url_is_refused_before_anything_is_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        await found("ftp://example.org", tmp_path)
