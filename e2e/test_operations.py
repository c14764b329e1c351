"""Running a server: TLS and its renewal, a token for making rooms, draining; with real processes."""

from __future__ import annotations

import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from websockets.sync.client import connect

from e2e.processes import Flyx, FlyxProcess, sha256, write_random
from flyx.cli.signals import ONE_SIGNAL


def serve(flyx: Flyx, *arguments: str | Path, **environment: str) -> tuple[FlyxProcess, str]:
    """Start a server on the loopback; return it and its URL."""
    server = flyx.start(
        "serve", "--host", "127.0.0.1", "--port", "0", "--stun", "none", *arguments, **environment
    )
    return server, server.prints(r"listening on (wss?://\S+)\n")[1]


def issue(directory: Path, name: str) -> tuple[Path, Path]:
    """Make a certificate for the loopback, and its key."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    command = [
        *(
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ),
        *("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
        *("-out", str(certificate), "-keyout", str(key)),
    ]
    subprocess.run(command, capture_output=True, check=True)
    return certificate, key


def shown(url: str, certificate: Path) -> bool:
    """Whether the server shows this certificate."""
    port = int(url.rpartition(":")[2])
    return ssl.get_server_certificate(("127.0.0.1", port)).split() == certificate.read_text().split()


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url.replace("ws:", "http:"), timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_transfer_over_tls_with_a_token_while_the_certificate_is_renewed(flyx: Flyx) -> None:
    certificate, key = issue(flyx.directory, "first")
    server, url = serve(flyx, "--tls-cert", certificate, "--tls-key", key, FLYX_API_TOKEN="s3cret")
    source = write_random(flyx.directory / "sent.bin", 10**6)
    trust = {"SSL_CERT_FILE": str(certificate)}

    flyx.start("send", "--server", url, "--json", source, **trust).fails(3, "server_refused")
    token = flyx.directory / "token"
    token.write_text("s3cret\n")
    sender = flyx.start("send", "--server", url, "--json", "--api-token", f"@{token}", source, **trust)
    code = sender.code()

    assert shown(url, certificate)
    renewed = issue(flyx.directory, "second")
    for old, new in zip((certificate, key), renewed, strict=True):
        new.replace(old)
    server.send_signal(signal.SIGHUP).says("certificate reloaded")
    assert shown(url, certificate)

    # The sender came with the old one and is still there; who comes now meets the new one.
    target = flyx.directory / "in"
    receiver = flyx.start("receive", "--server", url, "--json", "--yes", "-o", target, code, **trust)
    receiver.ends(0)
    sender.ends(0)
    assert sha256(target / "sent.bin") == sha256(source)
    assert "s3cret" not in server.err


def test_sigterm_tells_clients_to_come_back_and_ends_when_none_is_left(flyx: Flyx) -> None:
    server, url = serve(flyx, "--drain", "60")
    source = write_random(flyx.directory / "sent.bin", 10**6)
    assert status_of(f"{url}/readyz") == 200
    waiting = flyx.start("send", "--server", url, "--json", source)
    waiting.code()
    server.send_signal(signal.SIGTERM).says("draining")
    # One client: it is told at once, and would come back. Nobody is left: nothing to wait for.
    server.ends(0)
    waiting.event("notice", lambda event: "the server is stopping" in event["message"])


def test_a_server_that_is_drained_is_not_ready_and_a_second_signal_ends_it_at_once(flyx: Flyx) -> None:
    server, url = serve(flyx, "--drain", "600")
    source = write_random(flyx.directory / "sent.bin", 10**6)
    senders = [flyx.start("send", "--server", url, "--json", source) for _ in range(3)]
    for sender in senders:
        sender.code()
    server.send_signal(signal.SIGTERM).says("draining")
    assert status_of(f"{url}/readyz") == 503
    assert status_of(f"{url}/healthz") == 200
    # Signals closer together count as one.
    time.sleep(2 * ONE_SIGNAL)
    server.send_signal(signal.SIGTERM).ends(0)
    for sender in senders:
        sender.event("notice", lambda event: "the server is stopping" in event["message"])


def test_options_that_cannot_be_are_refused_with_a_reason(flyx: Flyx) -> None:
    missing = ("--tls-cert", "missing.pem", "--tls-key", "missing.key")
    flyx.start("serve", "--port", "0", *missing).complains(2, "cannot read --tls-cert missing.pem")
    refused = flyx.start("serve", "--port", "0", "--create-rate", "often")
    refused.complains(2, "--create-rate cannot be used: often is not a rate", "write it like 60/minute")


def test_a_server_holds_what_strangers_may_do_to_its_limits(flyx: Flyx) -> None:
    server, url = serve(
        flyx, "--create-rate", "2/minute", "--miss-rate", "1/minute", "--log-level", "warning"
    )
    statuses = [status_of(f"{url}/room/ZZZZZZ") for _ in range(3)]
    assert statuses == [404, 429, 429]
    server.shows(r"limit reached.* limit=miss")
    assert "127.0.0.1" not in server.err


def test_silent_connections_keep_no_receiver_out(flyx: Flyx, tmp_path: Path) -> None:
    """15 of them took every place of a room for as long as they liked."""
    source = write_random(tmp_path / "file.bin", 100_000)
    sender = flyx.send(source)
    code = sender.code()
    with ExitStack() as strangers:
        for _ in range(15):
            silent = strangers.enter_context(connect(f"{flyx.server}/ws/{code[:6]}"))
            assert '"joined"' in str(silent.recv(timeout=10))
        flyx.receive(code, tmp_path / "in").ends(0)
        sender.ends(0)
    assert sha256(tmp_path / "in" / "file.bin") == sha256(source)
