from __future__ import annotations

import asyncio
import datetime
import ipaddress
import logging
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flyx.errors import InputError
from flyx.server.app import Server
from flyx.server.config import LimitConfig
from flyx.server.transport.tls import Certificate
from tests.server.peers import OFFER, PATIENCE, local, peer
from tests.server.raw_websocket import connection, http, trusting

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def issue(directory: Path, name: str, *, password: bytes | None = None) -> tuple[Path, Path]:
    """Make a certificate for the loopback and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = directory / f"{name}.pem", directory / f"{name}.key"
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    return paths


async def test_a_pair_meets_over_tls(tmp_path: Path) -> None:
    certificate, key = issue(tmp_path, "one")
    context = trusting(str(certificate))
    async with Server(local(tls=(certificate, key))) as server:
        assert server.url == f"wss://127.0.0.1:{server.port}"
        async with peer(server, ssl=context) as sender:
            sender.joined = await sender.expect("joined")
            async with peer(server, f"/ws/{sender.room_id}", ssl=context) as receiver:
                await receiver.expect("joined")
                await sender.say(OFFER)
                await receiver.expect("offer")
        answer = await http(
            server, b"POST /room HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", ssl=context
        )
        assert b'"ws_url":"wss://localhost/ws/' in answer


async def test_a_renewed_certificate_is_shown_and_no_connection_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    certificate, key = issue(tmp_path, "one")
    old = trusting(str(certificate))
    async with Server(local(tls=(certificate, key))) as server, peer(server, ssl=old) as sender:
        await sender.expect("joined")
        renewed = issue(tmp_path, "two")
        renewed[0].replace(certificate)
        # Half of it is there: the old one stays.
        server.reload_certificate()
        assert await http(server, GET, ssl=old)
        renewed[1].replace(key)
        server.reload_certificate()
        with pytest.raises(ssl.SSLCertVerificationError):
            await http(server, GET, ssl=old)
        assert b" 200 " in await http(server, GET, ssl=trusting(str(certificate)))
        await sender.expect_silence()
    messages = [record.getMessage() for record in caplog.records]
    assert messages.index("certificate not reloaded") < messages.index("certificate reloaded")


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", bytes(100)])
async def test_who_does_not_finish_the_handshake_is_counted_and_cut_off(tmp_path: Path, sent: bytes) -> None:
    limits = LimitConfig(handshake_timeout=0.3, max_connections_per_address=3)
    certificate, key = issue(tmp_path, "one")
    context = trusting(str(certificate))
    async with Server(local(tls=(certificate, key), limits=limits)) as server:
        async with connection(server) as silent:
            await silent.send(sent)
            async with asyncio.timeout(PATIENCE):
                try:
                    await silent.reader.read()
                except ConnectionError:
                    pass
        async with asyncio.timeout(PATIENCE):
            while b"flyx_connections 1.0" not in await http(server, metrics(), ssl=context):
                pass


async def test_connections_count_before_their_handshake(tmp_path: Path) -> None:
    limits = LimitConfig(handshake_timeout=60, max_connections_per_address=2)
    certificate, key = issue(tmp_path, "one")
    async with Server(local(tls=(certificate, key), limits=limits)) as server:
        async with connection(server), connection(server):
            answer = await http(server, metrics(), ssl=trusting(str(certificate)))
            assert answer.startswith(b"HTTP/1.1 429 ")


def metrics() -> bytes:
    return GET.replace(b"healthz", b"metrics")


async def test_plain_clients_do_not_disturb_a_tls_server(tmp_path: Path) -> None:
    certificate, key = issue(tmp_path, "one")
    async with Server(local(tls=(certificate, key))) as server:
        async with connection(server) as plain:
            await plain.send(GET)
            async with asyncio.timeout(PATIENCE):
                try:
                    assert b"HTTP" not in await plain.reader.read()
                except ConnectionError:
                    pass
        assert b" 200 " in await http(server, GET, ssl=trusting(str(certificate)))


def test_files_that_are_no_certificate_are_input_errors(tmp_path: Path) -> None:
    certificate, key = issue(tmp_path, "one")
    _, other_key = issue(tmp_path, "two")
    _, locked = issue(tmp_path, "three", password=b"secret")
    garbage = tmp_path / "garbage"
    garbage.write_text("garbage")
    for files in ((certificate, other_key), (certificate, locked), (garbage, key), (certificate, garbage)):
        with pytest.raises(InputError) as caught:
            Certificate(*files)
        assert caught.value.hint
    with pytest.raises(InputError, match="cannot read"):
        Certificate(tmp_path / "missing", key)


async def test_old_tls_is_refused(tmp_path: Path) -> None:
    certificate, key = issue(tmp_path, "one")
    context = trusting(str(certificate))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    async with Server(local(tls=(certificate, key))) as server:
        assert b" 200 " in await http(server, GET, ssl=context)
    assert Certificate(certificate, key).context.minimum_version is ssl.TLSVersion.TLSv1_2
