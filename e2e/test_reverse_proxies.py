"""The configurations of flyx/docs/serving.md, each as it stands there: a file passes, and WebSockets last."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.namespaces import files_of
from e2e.network import Host, Network
from e2e.processes import FlyxProcess, clean_environment, need, sha256, write_random
from e2e.services import Certificate
from flyx.client.websocket import PING_INTERVAL
from flyx.errors import EXIT_DONE, EXIT_SERVER

PAPER = (Path(__file__).parents[1] / "flyx/docs/serving.md").read_text()
SERVE, *CHAPTERS = PAPER.split("\n## Behind a proxy\n")[1].split("\n### ")
SNIPPETS = {
    chapter.split("\n")[0].lower(): re.findall(r"```\w+\n(.*?)```", chapter, re.DOTALL)
    for chapter in CHAPTERS
}
"""The files of each proxy, the first one that which the program is started with."""

NAME = "flyx.example.org"

# What distributions put around the snippet, as little as there can be of it.
AROUND = {
    "nginx": "daemon off; pid {here}/pid; error_log stderr; events {{}}\n"
    "http {{ access_log off; client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;\n"
    "fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;\n"
    "include {here}/snippet; }}\n",
    "haproxy": "{snippet}",
    "apache": "ServerRoot {here}\nPidFile {here}/pid\nErrorLog /dev/stderr\nUser www-data\nGroup www-data\n"
    "ServerName localhost\nListen 80\nListen 443\n{modules}\nInclude {here}/snippet\n",
    "caddy": "{{\nlocal_certs\nskip_install_trust\nadmin off\nstorage file_system {here}/caddy\n}}\n"
    "import {here}/snippet\n",
    "traefik": "{snippet}",
    "envoy": "{snippet}",
}
COMMANDS = {
    "nginx": "nginx -p {here} -c {here}/config",
    "haproxy": "haproxy -db -f {here}/config",
    "apache": "apache2 -DFOREGROUND -f {here}/config",
    "caddy": "caddy run --adapter caddyfile --config {here}/config",
    "traefik": "traefik --configfile {here}/config.yaml",
    "envoy": "envoy -c {here}/config.yaml --disable-hot-restart --log-level warn",
}
NOT_IN_DEBIAN = ("traefik", "envoy")
APACHE_MODULES = "mpm_event authz_core alias headers ssl proxy proxy_http"

# Runs on the host, until the proxy answers by TLS.
ANSWERS = """
import socket, ssl, sys, time
context = ssl.create_default_context()
while True:
    try:
        context.load_verify_locations(sys.argv[1])
        with socket.create_connection((sys.argv[2], 443)) as sock:
            context.wrap_socket(sock, server_hostname=sys.argv[2]).close()
        break
    except OSError:
        time.sleep(0.05)
"""


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """The machine of the server, where every port is free, and another one; both know the name."""
    with Network() as network:
        switch = network.switch()
        server = network.host("server").plug(switch, "203.0.113.5/24")
        client = network.host("client").plug(switch, "203.0.113.6/24")
        for host in (server, client):
            names = Path(files_of(host.namespace), "hosts")
            names.write_text(f"127.0.0.1 localhost\n203.0.113.5 {NAME}\n")
        yield server, client


@pytest.fixture
def processes(hosts: tuple[Host, Host]) -> Iterator[list[FlyxProcess]]:
    """Those of one test, which end before their hosts."""
    started: list[FlyxProcess] = []
    yield started
    for process in started:
        process.kill()
        assert not process.crashed, process


# Seconds for which a sender waits for its receiver: the longer, by more than any idle timeout.
IDLE = [0, pytest.param(75, marks=pytest.mark.soak)]


@pytest.mark.parametrize("idle", IDLE)
@pytest.mark.parametrize("proxy", COMMANDS)
def test_a_file_passes_by_way_of_a_proxy(
    proxy: str, idle: int, hosts: tuple[Host, Host], processes: list[FlyxProcess], tmp_path: Path
) -> None:
    here, elsewhere = hosts
    program = COMMANDS[proxy].split()[0]
    need(program, shutil.which(program) is not None, in_ci=program not in NOT_IN_DEBIAN)
    authority = configure(proxy, here, tmp_path)
    environment = clean_environment(tmp_path)

    def start(host: Host, *arguments: str | Path) -> FlyxProcess:
        processes.append(host.start(arguments, environment, tmp_path))
        return processes[-1]

    serve = shlex.split(SERVE.split("```sh\n")[1].split("```")[0])[1:]
    server = start(here, *serve, "--stun", "none", "--create-rate", "1/hour")
    server.prints("listening on")
    command = COMMANDS[proxy].format(here=tmp_path).split()
    processes.append(here.program([shutil.which(program) or program, *command[1:]], environment, tmp_path))
    here.run(sys.executable, "-c", ANSWERS, authority, NAME)

    source = write_random(tmp_path / "file", 100_000)
    # By way of the redirection as well.
    sender = start(here, "send", "--server", f"http://{NAME}", "--tls-ca", authority, source)
    sender.code()
    assert sender.out.startswith(f"flyx receive --server http://{NAME} ")
    time.sleep(idle)
    assert "out of reach" not in sender.err
    receiver = start(
        elsewhere, *sender.out.split()[1:], "--tls-ca", authority, "--yes", "-o", tmp_path / "in"
    )
    receiver.ends(EXIT_DONE)
    sender.ends(EXIT_DONE)
    assert sha256(tmp_path / "in" / "file") == sha256(source)
    # What one address may do is used up, of those that the proxy tells.
    again = ("send", "--server", f"https://{NAME}", "--tls-ca", authority, source)
    start(here, *again).ends(EXIT_SERVER)
    server.says("limit reached")
    start(elsewhere, *again).code()


def configure(proxy: str, host: Host, here: Path) -> Path:
    """Write the files of a proxy, and of its certificate where the snippet looks; return its authority."""
    certificate = Certificate(here / "issued", NAME)
    place = Path(files_of(host.namespace), "ssl", "flyx")
    place.mkdir(parents=True)
    shutil.copy(certificate.chain, place / "certificate.pem")
    shutil.copy(certificate.key, place / "key.pem")
    (place / "both.pem").write_bytes(certificate.chain.read_bytes() + certificate.key.read_bytes())
    snippet, *others = SNIPPETS[proxy]
    for other in others:
        # There is but one: Traefik's.
        snippet = snippet.replace("/etc/traefik/", f"{here}/")
        (here / "flyx.yml").write_text(other)
    (here / "snippet").write_text(snippet)
    modules = "\n".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in APACHE_MODULES.split()
    )
    config = "config.yaml" if proxy in NOT_IN_DEBIAN else "config"
    (here / config).write_text(AROUND[proxy].format(here=here, snippet=snippet, modules=modules))
    return here / "caddy/pki/authorities/local/root.crt" if proxy == "caddy" else certificate.authority


@pytest.mark.parametrize("proxy", COMMANDS)
def test_a_proxy_waits_for_longer_than_there_is_between_two_pings(proxy: str) -> None:
    pattern = r"(?im)timeout(?: (?:client|server|tunnel))?:? (\d+)s?;?$"
    timeouts = re.findall(pattern, SNIPPETS[proxy][0])
    expected = {"nginx": 2, "haproxy": 3, "apache": 1, "caddy": 0, "traefik": 0, "envoy": 1}
    assert len(timeouts) == expected[proxy]
    assert all(int(seconds) > 2 * PING_INTERVAL for seconds in timeouts)
