"""Network namespaces: each has interfaces, addresses, routes and a name service of its own.

Needs root and iproute2.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path


def make_namespace(name: str) -> None:
    """Make a network namespace with nothing but a loopback, and no name server.

    Raises:
        CalledProcessError: this process may not.
    """
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "lo", "up")
    # Addresses are good at once: nobody else has them.
    settings = ["net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.default.router_solicitations=0"]
    # Where the kernel has them, the firewall of bridges sees what switches carry; here it is not to.
    if Path("/proc/sys/net/bridge").exists():
        settings += ["net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0"]
    run(*inside(name, ["sysctl", "-q", "-w", *settings]))
    # Else it would ask the name server of this machine.
    files_of(name).mkdir(parents=True)
    Path(files_of(name), "resolv.conf").write_text("nameserver 127.0.0.1\n")


def remove_namespace(name: str) -> None:
    """Remove a namespace, however much of it there is."""
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    shutil.rmtree(files_of(name), ignore_errors=True)


def files_of(name: str) -> Path:
    """The directory of the files that the processes in a namespace find in /etc."""
    return Path("/etc/netns", name)


def inside(name: str, command: Sequence[str | Path]) -> list[str]:
    """Return the command that runs this one in a namespace."""
    return ["ip", "netns", "exec", name, *map(str, command)]


def run(*command: str | Path, text: str | None = None) -> str:
    """Run a command to its end; return what it prints.

    Raises:
        CalledProcessError: it failed. What it was given and what it said are in a note.
    """
    done = subprocess.run(command, input=text, check=False, capture_output=True, text=True)
    if done.returncode:
        error = subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        error.add_note(f"{done.stderr}\n{text or ''}")
        raise error
    return done.stdout
