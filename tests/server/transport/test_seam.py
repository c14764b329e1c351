"""What flyx inherits from uvicorn is still there, is called as it thinks, and is all listed."""

from __future__ import annotations

import ast
import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from uvicorn.server import ServerState

import flyx
from flyx.server.transport import listener, protocols
from flyx.server.transport.seam import (
    ATTRIBUTES,
    CALLED,
    OVERRIDDEN,
    Config,
    H11Protocol,
    Server,
    WebSocketsSansIOProtocol,
)
from tests.server.raw_websocket import HANDSHAKE

# Which of our classes inherits from which of uvicorn's.
OURS: dict[type, type] = {
    H11Protocol: protocols.HttpProtocol,
    WebSocketsSansIOProtocol: protocols.WebSocketProtocol,
    Server: listener.Listener,
}
KINDS = pytest.mark.parametrize("kind", OURS)


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers nothing."""


async def instance(kind: type) -> Any:
    config = Config(application, ws="websockets-sansio", lifespan="off", log_config=None)
    if kind is not Server:
        protocol = kind(config, ServerState(), {})
        if kind is WebSocketsSansIOProtocol:
            protocol.connection_made(Outgoing())
            protocol.data_received(HANDSHAKE.format(path="/ws", host="here", headers="").encode())
        return protocol
    server = Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    server.servers = []
    return server


class Outgoing:
    """A transport that takes everything."""

    def get_extra_info(self, name: str) -> None: ...

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...

    def is_closing(self) -> bool:
        return False


@KINDS
async def test_every_attribute_is_there(kind: type) -> None:
    made = await instance(kind)
    for name in ATTRIBUTES[kind]:
        assert hasattr(made, name), f"{kind.__name__}.{name}"


@KINDS
def test_every_method_is_there_with_its_parameters(kind: type) -> None:
    for name, parameters in {**CALLED[kind], **OVERRIDDEN[kind]}.items():
        found = inspect.signature(getattr(kind, name)).parameters
        assert tuple(found) == ("self", *parameters), f"{kind.__name__}.{name}"


@KINDS
def test_what_is_overridden_is_all_listed(kind: type) -> None:
    ours = vars(OURS[kind])
    inherited = {name for name in dir(kind) if not name.startswith("__")}
    assert {name for name in ours if name in inherited} == set(OVERRIDDEN[kind])


@KINDS
async def test_what_is_used_is_all_listed(kind: type) -> None:
    made = await instance(kind)
    listed = {*ATTRIBUTES[kind], *CALLED[kind], *OVERRIDDEN[kind]}
    assert {name for name in used_by(OURS[kind]) if hasattr(made, name)} <= listed
    # What is listed and not used would only keep uvicorn from being updated. Some is told by name.
    told = {"request", "response"}
    assert listed - set(OVERRIDDEN[kind]) - told <= used_by(OURS[kind])


def used_by(ours: type) -> set[str]:
    """Return what a class reads, sets or calls of itself, or of what it inherits."""
    used: set[str] = set()
    for node in ast.walk(ast.parse(inspect.getsource(ours))):
        if isinstance(node, ast.Attribute):
            value = node.value
            of_self = isinstance(value, ast.Name) and value.id == "self"
            of_super = (
                isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "super"
            )
            if (of_self or of_super) and not node.attr.startswith("__"):
                used.add(node.attr)
    return used


def test_uvicorn_is_pinned_to_the_release_that_is_tested() -> None:
    project = tomllib.loads((Path(flyx.__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert f"uvicorn=={version('uvicorn')}" in project["dependencies"]
