"""Hosts on one machine: network namespaces, each with a cable that can be pulled.

Each test makes its own; it needs root and iproute2, and is skipped where it may not.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from e2e.processes import FlyxProcess, need

ADDRESSES = {"left": "10.91.0.1", "right": "10.91.0.2", "third": "10.91.0.3"}

_numbers = itertools.count()


class Network:
    """The hosts of ADDRESSES, without any other network. `left` is the switch that the others plug into."""

    def __init__(self) -> None:
        prefix = f"flyx-{os.getpid()}-{next(_numbers)}"
        self._hosts = {host: f"{prefix}-{host}" for host in ADDRESSES}

    def __enter__(self) -> Self:
        need("the right to make network namespaces", os.geteuid() == 0)
        need("ip, of the package iproute2", shutil.which("ip") is not None)
        try:
            for name in self._hosts.values():
                _ip("netns", "add", name)
                _ip("-n", name, "link", "set", "lo", "up")
            left, *others = self._hosts.values()
            _ip("-n", left, "link", "add", "cable", "type", "bridge")
            for number, other in enumerate(others):
                end = f"socket{number}"
                _ip("-n", left, "link", "add", end, "type", "veth", "peer", "name", "cable", "netns", other)
                _ip("-n", left, "link", "set", end, "master", "cable", "up")
            for host, address in ADDRESSES.items():
                self.address(host, address)
                self.cable(host, "up")
        except subprocess.CalledProcessError as error:
            self.__exit__(None, None, None)
            need(f"the right to make network namespaces ({error.stderr.strip()})", False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in self._hosts.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def cable(self, host: str, state: str) -> None:
        """Pull the cable out of a host ("down"), or put it in ("up")."""
        _ip("-n", self._hosts[host], "link", "set", "cable", state)

    def address(self, host: str, address: str) -> None:
        """Give a host this address and no other."""
        _ip("-n", self._hosts[host], "address", "flush", "dev", "cable")
        _ip("-n", self._hosts[host], "address", "add", f"{address}/24", "dev", "cable")

    def limit(self, host: str, megabits: int) -> None:
        """Let a host send no faster than this, from now on."""
        command = ["tc", "qdisc", "replace", "dev", "cable", "root", "tbf"]
        rate = ["rate", f"{megabits}mbit", "burst", "256k", "latency", "50ms"]
        _run("ip", "netns", "exec", self._hosts[host], *command, *rate)

    def start(
        self, host: str, arguments: Sequence[str | Path], environment: dict[str, str], directory: Path
    ) -> FlyxProcess:
        """Run flyx on a host."""
        return _Hosted(self._hosts[host], [str(a) for a in arguments], environment, directory)


class _Hosted(FlyxProcess):
    def __init__(
        self, namespace: str, arguments: Sequence[str], environment: dict[str, str], directory: Path
    ) -> None:
        self._namespace = namespace
        super().__init__(arguments, environment, directory)

    def _start(
        self, command: list[str], environment: dict[str, str], directory: Path
    ) -> subprocess.Popen[bytes]:
        return super()._start(["ip", "netns", "exec", self._namespace, *command], environment, directory)


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
