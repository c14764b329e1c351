"""Addresses of the loopback on which a server answers, refuses, or swallows what comes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

LOOPBACKS = tuple(f"127.0.0.{n}" for n in range(2, 30))


@contextmanager
def listening(host: str, port: int = 0) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
        yield listener


@contextmanager
def swallowing(host: str, port: int) -> Iterator[None]:
    """A listener whose backlog is full: the kernel drops each SYN that comes."""
    with ExitStack() as stack:
        listener = stack.enter_context(listening(host, port))
        listener.listen(0)
        for _ in range(2):
            filler = stack.enter_context(socket.socket(listener.family, socket.SOCK_STREAM))
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield


def free_port() -> int:
    """A TCP port that nothing listens at, on any of LOOPBACKS."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
