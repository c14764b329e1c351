"""Two hosts on one machine, joined by an emulated link: network namespaces and emulator.c between them.

with Link(rate_mbit=100, delay_ms=25, loss_percent=1) as link:
    subprocess.run(link.on("left", ["ping", "-c", "1", link.address("right")]))

Needs root, iproute2, a C compiler and /dev/net/tun; see missing().
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from e2e.namespaces import inside, make_namespace, remove_namespace, run

Host = Literal["left", "right"]

_HOSTS: dict[Host, str] = {"left": "10.77.0.1", "right": "10.77.0.2"}
_SOURCE = Path(__file__).with_name("emulator.c")
_numbers = itertools.count()


def missing() -> str | None:
    """Return what a link needs and this machine lacks; None if nothing."""
    if os.geteuid() != 0:
        return "root"
    for program in ("ip", "cc"):
        if not shutil.which(program):
            return program
    return None if Path("/dev/net/tun").exists() else "/dev/net/tun"


class Link:
    """A link between the hosts `left` and `right`, and the hosts."""

    def __init__(
        self,
        *,
        rate_mbit: float,
        delay_ms: float,
        loss_percent: float = 0.0,
        burst: float = 1.0,
        queue_ms: float | None = None,
        jitter_ms: float = 0.0,
        mtu: int = 1500,
        seed: int = 1,
    ) -> None:
        """Args:
        rate_mbit: of the bottleneck, each way, in 10^6 bits a second, IP headers included.
        delay_ms: one way.
        loss_percent: of packets, at random.
        burst: mean packets lost in a row.
        queue_ms: the bottleneck's buffer as time at its rate; default: a round trip, at least 5 ms.
        jitter_ms: each packet is delayed by up to so much more, and may overtake others.
        mtu: bytes.
        seed: of the losses.
        """
        queue = max(2 * delay_ms, 5.0) if queue_ms is None else queue_ms
        figures = (rate_mbit, delay_ms, loss_percent, burst, queue, jitter_ms, mtu, seed)
        self._figures = [str(figure) for figure in figures]
        self._prefix = f"flyx{os.getpid()}-{next(_numbers)}"
        # Set by __enter__.
        self._emulator: subprocess.Popen[str]
        # What each direction has carried and dropped, left to right first: set by __exit__.
        self.report: list[dict[str, int]] = []

    def __enter__(self) -> Self:
        arguments = []
        for host, address in _HOSTS.items():
            make_namespace(self.namespace(host))
            arguments += [self.namespace(host), address]
        self._emulator = emulate([*arguments, *self._figures])
        for host in _HOSTS:
            run("ip", "-n", self.namespace(host), "route", "add", "default", "dev", "wan0")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._emulator.terminate()
        output, _ = self._emulator.communicate()
        self.report = json.loads(output)
        for host in _HOSTS:
            remove_namespace(self.namespace(host))

    def namespace(self, host: Host) -> str:
        """The name of a host's network namespace."""
        return f"{self._prefix}-{host}"

    def address(self, host: Host) -> str:
        """A host's IPv4 address."""
        return _HOSTS[host]

    def on(self, host: Host, command: Sequence[Any]) -> list[str]:
        """Return the command that runs this one on a host."""
        return inside(self.namespace(host), command)

    def cut(self) -> None:
        """Lose everything from now on; what is under way still arrives."""
        self._emulator.send_signal(signal.SIGUSR1)

    def mend(self) -> None:
        """Carry packets again."""
        self._emulator.send_signal(signal.SIGUSR2)


def emulate(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Start emulator.c with these arguments; return it when it carries packets. SIGTERM ends it."""
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch, "emulator")
        subprocess.run(["cc", "-O2", "-o", program, _SOURCE], check=True)
        emulator = subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, text=True)
    assert emulator.stdout is not None
    assert emulator.stdout.readline() == "ready\n"
    return emulator
