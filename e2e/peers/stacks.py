"""The WebRTC stacks that ours is tried with, each of them a program of this directory."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from e2e.processes import need
from flyx.rtc.sctp_transport import STOCK, STOCK_VARIABLE

PEERS = Path(__file__).parent

GOPATH = Path("/usr/share/gocode")
"""Where Debian has Go packages."""

MAX_MESSAGE_SIZE = 262144


@dataclass(frozen=True)
class Stack:
    """A peer to talk to, and what it cannot do."""

    command: list[str]
    environment: dict[str, str]
    tells_parameters: bool = True
    """Whether it knows how a channel works that the other side has opened."""
    max_message_size: int = MAX_MESSAGE_SIZE
    """Bytes of the largest message that it sends and takes."""
    delivers_before_closing: bool = True
    """Whether the application gets what was acknowledged before the channel was closed by the other side."""
    delivers_interleaved: bool = True
    """Whether the application gets all messages where several channels alternate and packets are lost."""
    lifetime: int = 500
    """Milliseconds after which it gives up a message of its channel `lifetime`."""


OURS = Stack([sys.executable, "-m", "e2e.peers.aiortc_peer"], {})


def aiortc() -> Stack:
    """Return stock aiortc."""
    return Stack(OURS.command, {STOCK_VARIABLE: STOCK})


DCSCTP_LIFETIME = 60_000
"""So long that no message expires before it is sent.

The SCTP of libwebrtc (dcsctp) stops for good, on all its channels, when the lifetime of a message ends after
some of its fragments were sent and acknowledged, and nothing else is in flight: neither the FORWARD TSN comes
nor anything else. Our SACKs acknowledge a whole burst at once, so it gets there often: in 11 of 12 runs that
sent 16 MB beside messages with lifetimes of 20 and 50 ms.
"""


def libwebrtc() -> Stack:
    """Return libwebrtc, what Chromium is made with, but of another version."""
    need("the PyPI package wrtc", find_spec("webrtc") is not None)
    command = [sys.executable, "-m", "e2e.peers.libwebrtc_peer"]
    return Stack(command, {}, lifetime=DCSCTP_LIFETIME)


def node_stack(program: str, **limits: Any) -> Stack:
    """Return a stack whose peer runs in Node."""
    node = shutil.which("node")
    need("node", node is not None, in_ci=False)
    need("`npm ci --prefix e2e/peers`", (PEERS / "node_modules").exists(), in_ci=False)
    return Stack([str(node), str(PEERS / program)], {}, **limits)


def libdatachannel() -> Stack:
    """Return libdatachannel, which has usrsctp.

    node-datachannel drops the messages that it has not given to JavaScript yet when the other side closes the
    channel, though SCTP has acknowledged all of them (its issue 375).
    """
    return node_stack("libdatachannel_peer.js", tells_parameters=False, delivers_before_closing=False)


def werift() -> Stack:
    """Return werift, all of which is TypeScript.

    It announces lossy channels as ordered in any case, and stops when many channels come and go at once. If a
    lost packet held back two messages of a channel, and one of another channel lies between them, it keeps
    the second of them until another one comes on that channel (its issue 706).
    """
    return node_stack(
        "werift_peer.js", tells_parameters=False, max_message_size=65536, delivers_interleaved=False
    )


def wrtc() -> Stack:
    """Return libwebrtc in Node, by way of npm's @roamhq/wrtc.

    Of what comes before its program listens to a channel it loses the order, or all.
    """
    return node_stack("wrtc_peer.js")


def chromium() -> Stack:
    """Return Chromium."""
    need("the Debian package chromium", shutil.which("chromium") is not None)
    need("the PyPI package playwright", find_spec("playwright") is not None)
    command = [sys.executable, "-m", "e2e.peers.chromium_peer"]
    return Stack(command, {}, lifetime=DCSCTP_LIFETIME)


@functools.cache
def built_pion() -> Path:
    """Build the peer on pion from Debian's packages, once."""
    path = Path(tempfile.mkdtemp(prefix="flyx-pion-"), "src", "pion")
    atexit.register(shutil.rmtree, path.parent.parent, ignore_errors=True)
    # Where GOPATH has it, with a go.mod, Go finds the packages of version 3 without their modules.
    shutil.copytree(PEERS / "pion", path)
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": f"{path.parent.parent}:{GOPATH}"}
    subprocess.run(["go", "build", "-o", "pion"], cwd=path, env=environment, check=True)
    return path / "pion"


def pion() -> Stack:
    """Return pion, which takes no messages of more than 65,535 bytes."""
    need("the Debian package golang-go", shutil.which("go") is not None)
    source = GOPATH / "src/github.com/pion/webrtc"
    need("the Debian package golang-github-pion-webrtc.v3-dev", source.exists())
    return Stack([str(built_pion())], {}, max_message_size=65535)


STACKS = {stack.__name__: stack for stack in (aiortc, libwebrtc, libdatachannel, chromium, pion)}

SIMPLE_STACKS = {stack.__name__: stack for stack in (werift, wrtc)}
"""Those that are good for the channels of a transfer, not for all that there is."""
