"""What a network of the tests has besides flyx: TURN and STUN servers, name servers, proxies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from e2e.network import Host, Program
from e2e.processes import DEADLINE, clean_environment, need

SECRET = "a secret that coturn and flyx serve share"
"""The secret of which `flyx serve` makes credentials for coturn."""

Names = Mapping[str, Any]
"""What a name server knows: {"server.example": {"A": ["192.0.2.1"], "AAAA": []}}.

Instead of addresses, or of all types of them, a name can have "silent" or "servfail". The name "*" stands for
all others, which by default do not exist.
"""


class Certificate:
    """A certificate of an authority of its own.

    Attributes:
        authority: its certificate, in PEM.
        chain: the certificate, in PEM.
        key: the key of the certificate.
    """

    def __init__(self, directory: Path, *names: str) -> None:
        """Args:
        directory: an own one.
        names: whom it is for: names, and addresses such as "192.0.2.2".
        """
        need("openssl", shutil.which("openssl") is not None)
        directory.mkdir()
        self.authority = directory / "authority.pem"
        self.chain = directory / "certificate.pem"
        self.key = directory / "key.pem"
        alternatives = ",".join(("IP:" if name[-1].isdigit() else "DNS:") + name for name in names)
        new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes".split()
        signing = directory / "authority.key"
        _quietly(*new, "-keyout", signing, "-out", self.authority, "-subj", "/CN=The tests' authority")
        extensions = ["-addext", f"subjectAltName={alternatives}", "-addext", "basicConstraints=CA:FALSE"]
        signed = [*new, *extensions, "-subj", f"/CN={names[0]}"]
        _quietly(*signed, "-keyout", self.key, "-out", self.chain, "-CA", self.authority, "-CAkey", signing)


class Coturn(Program):
    """coturn: a STUN and TURN server that says what it does on standard output."""

    def __init__(
        self,
        host: Host,
        directory: Path,
        *addresses: str,
        port: int = 3478,
        tls_port: int = 5349,
        certificate: Certificate | None = None,
        secret: str = SECRET,
        behavior_discovery: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        """Args:
        host: where it runs.
        directory: for its files.
        addresses: to listen on, and to relay from.
        port: for UDP and TCP.
        tls_port: for TLS, if there is a certificate.
        certificate: None is no TLS.
        secret: of which credentials are made.
        behavior_discovery: answer from the second of its addresses, and from another port, who asks for that
            (RFC 5780).
        options: more of them.
        """
        need("turnserver, of the package coturn", shutil.which("turnserver") is not None)
        files = directory / f"coturn-{port}-{addresses[0].replace(':', '.')}"
        files.mkdir(exist_ok=True)
        tls = ["--no-tls"]
        if certificate:
            tls = [f"--cert={certificate.chain}", f"--pkey={certificate.key}"]
            tls.append(f"--tls-listening-port={tls_port}")
        command = [
            # Without stdbuf it would say nothing until it has said much.
            *(
                "stdbuf",
                "-oL",
                "turnserver",
                "-n",
                "--no-cli",
                "--no-dtls",
                "--log-file=stdout",
                "--simple-log",
            ),
            *("--verbose", "--use-auth-secret", f"--static-auth-secret={secret}", "--realm=flyx.example"),
            *(f"--listening-port={port}", *tls, *([] if behavior_discovery else ["--no-rfc5780"])),
            *(f"--pidfile={files / 'pid'}", f"--userdb={files / 'db'}"),
            *(f"--{use}-ip={address}" for address in addresses for use in ("listening", "relay")),
            *options,
        ]
        super().__init__(host, command, clean_environment(directory), directory)
        self.prints(rf"UDP listener opened on\W*: \[?{addresses[-1]}\]?:{port}")


class NameServer:
    """A DNS server whose answers can be changed while it runs."""

    def __init__(self, host: Host, directory: Path, addresses: Sequence[str], names: Names) -> None:
        self._zone = directory / "names.json"
        self.set(names)
        command = [sys.executable, "-m", "e2e.peers.name_server", self._zone, *addresses]
        here = Path(__file__).parents[1]
        self.process = Program(host, [str(word) for word in command], clean_environment(directory), here)
        self.process.prints("ready")

    def set(self, names: Names) -> None:
        """Let it answer so from now on."""
        new = self._zone.with_suffix(".new")
        new.write_text(json.dumps(names))
        os.replace(new, self._zone)


def http_proxy(host: Host, directory: Path, port: int = 3128) -> Program:
    """Start an HTTP proxy that connects to wherever it is asked to (CONNECT), and nothing else."""
    need("tinyproxy", shutil.which("tinyproxy") is not None)
    configuration = directory / f"tinyproxy-{host.name}.conf"
    configuration.write_text(f"Port {port}\nTimeout 600\nMaxClients 50\nLogLevel Connect\n")
    command: list[str | Path] = ["tinyproxy", "-d", "-c", configuration]
    return _listening(host.program(command, clean_environment(directory), directory), host, port)


def socks_proxy(host: Host, directory: Path, port: int = 1080) -> Program:
    """Start a SOCKS 5 proxy."""
    need("microsocks", shutil.which("microsocks") is not None)
    command = ["microsocks", "-p", str(port)]
    return _listening(host.program(command, clean_environment(directory), directory), host, port)


def _listening(program: Program, host: Host, port: int) -> Program:
    """Wait until a program that says nothing about it listens on a TCP port."""
    deadline = time.monotonic() + DEADLINE
    while not host.run("ss", "-Hltn", f"sport = :{port}"):
        assert program.process.poll() is None, program
        assert time.monotonic() < deadline, program
        time.sleep(0.05)
    return program


def _quietly(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
