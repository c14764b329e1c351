"""Parameters become the options of a transfer; what cannot be used is an InputError at the call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import flyx
from flyx.client.events import Event
from flyx.client.meeting import DEFAULT_SERVER
from flyx.client.receive import ReceiveOptions
from flyx.client.send import SendOptions
from flyx.errors import Declined
from flyx.storage.links import Links
from flyx.storage.writer import ExistingPolicy, Skip
from flyx.transfer.manifest import Manifest
from flyx.transfer.names import NamePolicy

URL = "wss://flyx.example.org"
CODE = "K7M2QX-lemon-otter"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The options that transfers were begun with."""
    begun: list[Any] = []

    async def work(options: Any, tell: Callable[[Event], None]) -> None:
        begun.append(options)

    monkeypatch.setattr("flyx.api.sending.send_files", work)
    monkeypatch.setattr("flyx.api.receiving.receive_files", work)
    return begun


async def begun(transfer: flyx.Transfer, asked: list[Any]) -> Any:
    assert [event async for event in transfer] == []
    return asked.pop()


async def test_a_sender_has_the_defaults_of_the_command_line(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Which are the program's affair, not its library's.
    monkeypatch.setenv("FLYX_SERVER", URL)
    monkeypatch.setenv("FLYX_RECEIVERS", "7")
    options = await begun(flyx.send("file.bin"), asked)
    usual = SendOptions(DEFAULT_SERVER, [Path("file.bin")], options.code, serve=options.serve)
    assert not options.exclusions
    assert replace(options, exclusions=usual.exclusions) == usual
    assert options.serve is not None
    assert (options.code.kind, options.code.words) == ("words", 2)


async def test_a_receiver_has_the_defaults_of_the_command_line(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYX_SERVER", URL)
    monkeypatch.setenv("FLYX_YES", "0")
    options = await begun(flyx.receive(CODE), asked)
    words = ("lemon", "otter")
    assert options == ReceiveOptions(
        DEFAULT_SERVER, "K7M2QX", words, None, Path("."), ExistingPolicy.REFUSE, None, local=True
    )


async def test_a_sender_is_told_all_that_it_can_be(asked: list[Any]) -> None:
    transfer = flyx.send(
        ["a", Path("b")],
        server=URL,
        receivers=0,
        wait=5,
        code="nobody guesses this",
        links="follow",
        exclude="*.tmp",
        gitignore=True,
        relay_only=True,
        api_token="secret",
        reconnect=0,
    )
    options = await begun(transfer, asked)
    assert (options.server, options.serve, options.paths) == (URL, None, [Path("a"), Path("b")])
    assert (options.receivers, options.wait, options.reconnect) == (0, 5, 0)
    assert (options.code.kind, options.code.password) == ("own", "nobody-guesses-this")
    assert (options.links, options.api_token) == (Links.FOLLOW, "secret")
    assert options.connections.policy.relay_only
    assert options.exclusions.gitignore
    assert options.exclusions.patterns.verdict("x.tmp", is_directory=False)


async def test_a_receiver_is_told_all_that_it_can_be(asked: list[Any]) -> None:
    transfer = flyx.receive(
        f"{URL}/#{CODE}",
        "there",
        only=["*.jpg", "*.png"],
        names="safe",
        open=True,
        no_relay=True,
        reconnect=9,
    )
    options = await begun(transfer, asked)
    assert (options.server, options.local, options.directory) == (f"{URL}/", False, Path("there"))
    assert (options.names, options.trust_server, options.reconnect) == (NamePolicy.SAFE, True, 9)
    assert options.connections.policy.no_relay
    assert options.selection.wants("a/b.png", is_directory=False)
    assert not options.selection.wants("a/b.txt", is_directory=False)


async def test_a_server_that_is_named_beside_a_code_wins(asked: list[Any]) -> None:
    options = await begun(flyx.receive(f"https://other.example/#{CODE}", server=URL), asked)
    assert options.server == URL


@pytest.mark.parametrize(
    ("local", "server", "serves"),
    [(None, DEFAULT_SERVER, True), (True, None, True), (False, DEFAULT_SERVER, False)],
)
async def test_without_a_server_the_local_network_is_as_it_is_said(
    local: bool | None, server: str | None, serves: bool, asked: list[Any]
) -> None:
    sender = await begun(flyx.send("a", local=local), asked)
    assert (sender.server, sender.serve is not None) == (server, serves)
    receiver = await begun(flyx.receive(CODE, local=local), asked)
    assert (receiver.server, receiver.local) == (server, serves)


@pytest.mark.parametrize(
    ("given", "existing", "skip"),
    [
        ({}, ExistingPolicy.REFUSE, Skip.NOTHING),
        ({"existing": "overwrite"}, ExistingPolicy.OVERWRITE, Skip.NOTHING),
        ({"existing": "rename"}, ExistingPolicy.RENAME, Skip.NOTHING),
        ({"existing": "skip"}, ExistingPolicy.REFUSE, Skip.EXISTING),
        ({"existing": "skip", "skip_existing": True}, ExistingPolicy.REFUSE, Skip.EXISTING),
        ({"skip_existing": True}, ExistingPolicy.REFUSE, Skip.SAME),
        ({"skip_existing": True, "existing": "overwrite"}, ExistingPolicy.OVERWRITE, Skip.SAME),
    ],
)
async def test_what_exists_is_treated_as_it_is_said(
    given: dict[str, Any], existing: ExistingPolicy, skip: Skip, asked: list[Any]
) -> None:
    options = await begun(flyx.receive(CODE, **given), asked)
    assert (options.existing, options.skip) == (existing, skip)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"paths": ""}, "paths: a path is empty"),
        ({"paths": ["a", ""]}, "paths: a path is empty"),
        ({"paths": [b"a"]}, "paths: .*bytes"),
        ({"server": "ftp://x"}, "is not the URL of a signaling server"),
        ({"server": URL, "local": True}, "server and local exclude each other"),
        ({"receivers": -1}, "receivers is -1"),
        ({"wait": -1}, "wait is -1, and no number of seconds"),
        ({"reconnect": float("nan")}, "reconnect is nan, and no number of seconds"),
        ({"words": 1}, "words is 1, and not 2 to 8"),
        ({"words": 9}, "words is 9, and not 2 to 8"),
        ({"words": 2, "open": True}, "words, code and open exclude each other"),
        ({"code": "abc"}, "easy to guess"),
        ({"links": "cut"}, "links is 'cut', and not one of 'keep', 'follow', 'skip'"),
        ({"exclude": [" "]}, "exclude: a pattern is empty"),
        ({"exclude": "#a"}, "exclude: this pattern can match nothing: #a"),
        ({"relay_only": True, "no_relay": True}, "relay_only and no_relay exclude each other"),
        ({"api_token": "a b"}, "api_token is empty, or holds other than visible ASCII characters"),
    ],
)
def test_what_a_sender_cannot_use_is_told_at_the_call(given: dict[str, Any], message: str) -> None:
    with pytest.raises(flyx.InputError, match=message):
        flyx.send(**{"paths": "a"} | given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"code": "lemon-otter"}, "six|6"),
        ({"directory": ""}, "directory: a path is empty"),
        ({"existing": "keep"}, "existing is 'keep', and not one of 'refuse', 'overwrite', 'rename', 'skip'"),
        ({"existing": "rename", "skip_existing": True}, "exclude each other"),
        ({"only": ["*.jpg", ""]}, "only: a pattern is empty"),
        ({"names": "none"}, "names is 'none', and not one of 'skip', 'keep', 'safe'"),
        ({"server": URL, "local": True}, "server and local exclude each other"),
        ({"code": f"{URL}/#{CODE}", "local": True}, "server and local exclude each other"),
        ({"reconnect": -1}, "reconnect is -1"),
    ],
)
def test_what_a_receiver_cannot_use_is_told_at_the_call(given: dict[str, Any], message: str) -> None:
    with pytest.raises(flyx.InputError, match=message):
        flyx.receive(**{"code": CODE} | given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"port": 65536}, "port is 65536"),
        ({"state": ""}, "state: a path is empty"),
        ({"api_token": ""}, "api_token is empty"),
        ({"stun": "turn:example.org"}, "stun: turn:example.org is not a STUN URL"),
    ],
)
def test_what_a_server_cannot_use_is_told_at_the_call(given: dict[str, Any], message: str) -> None:
    with pytest.raises(flyx.InputError, match=message):
        flyx.Server(**given)


OFFER = Manifest([])


async def says(answer: bool) -> bool:
    return answer


@pytest.mark.parametrize(
    ("accept", "answer"),
    [
        (lambda offer: offer is OFFER, True),
        (lambda offer: False, False),
        (lambda offer: says(True), True),
        (lambda offer: says(False), False),
        (False, False),
    ],
)
async def test_the_program_decides_by_what_is_offered(accept: Any, answer: bool, asked: list[Any]) -> None:
    options = await begun(flyx.receive(CODE, accept=accept), asked)
    assert await options.confirm(OFFER) is answer


async def test_a_decision_that_fails_declines_and_says_why(asked: list[Any]) -> None:
    def accept(offer: Manifest) -> bool:
        raise LookupError("mistaken")

    options = await begun(flyx.receive(CODE, accept=accept), asked)
    with pytest.raises(Declined) as caught:
        await options.confirm(OFFER)
    assert isinstance(caught.value.__cause__, LookupError)


async def test_a_server_has_an_address_while_it_runs() -> None:
    server = flyx.Server(stun=())
    with pytest.raises(RuntimeError, match="only inside"):
        server.url  # noqa: B018 - to see it fail
    async with server as running:
        assert running.url == f"ws://127.0.0.1:{running.port}"
        with pytest.raises(RuntimeError, match="runs already"):
            await server.__aenter__()
        with pytest.raises(flyx.InputError):
            async with flyx.Server(port=running.port):
                pass
    async with server as again:
        assert again.port
