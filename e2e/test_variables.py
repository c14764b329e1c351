"""Whatever an environment holds, a server, a sender and a receiver in it do what they would do without."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.processes import Flyx, sha256, write_random
from flyx.errors import EXIT_DONE

DEAD = "http://me:s3cret@127.0.0.1:9"
SECRET = "t0ken-of-this-server"

ENVIRONMENTS = {
    "the services of Kubernetes": {
        "FLYX_SERVICE_HOST": "10.0.0.1",
        "FLYX_PORT": "tcp://10.0.0.1:8000",
        "FLYX_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "FLYX_PORT_8000_TCP_PORT": "8000",
        "FLYX_METRICS_PORT": "tcp://10.0.0.2:9090",
        "FLYX_TURN_PORT": "udp://10.0.0.3:3478",
        "FLYX_TURN_TLS_PORT": "tcp://10.0.0.3:5349",
        "FLYX_SERVER_PORT": "tcp://10.0.0.4:8000",
    },
    "proxies that are dead": dict.fromkeys(
        ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"), DEAD
    ),
    "empty variables": dict.fromkeys(
        [
            *(
                "FLYX_CONFIG",
                "FLYX_PORT",
                "FLYX_STUN",
                "FLYX_SERVER",
                "FLYX_LOCAL",
                "FLYX_RECEIVERS",
                "FLYX_YES",
            ),
            *(
                "FLYX_CODE",
                "FLYX_OUTPUT",
                "FLYX_TLS_CA",
                "FLYX_DEBUG",
                "HTTP_PROXY",
                "NO_PROXY",
                "SSL_CERT_FILE",
            ),
        ],
        "",
    ),
    "a configuration at home": {
        "FLYX_CONFIG": "~/flyx.toml",
        "FLYX_OUTPUT": "~/in",
    },
}


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_a_file_arrives_in_an_environment(environment: dict[str, str], flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 10_000)
    (tmp_path / "token").write_text(SECRET)
    tokens = 'port = 0\napi-token = "@~/token"\n[send]\napi-token = "@~/token"\n'
    (tmp_path / "flyx.toml").write_text(f"[serve]\n{tokens}")
    (tmp_path / ".config" / "flyx").mkdir(parents=True)
    (tmp_path / ".config" / "flyx" / "config.toml").write_text("[serve]\nport = 0\n")
    flyx.environment |= environment
    serve = flyx.start("serve", "--host", "127.0.0.1", "--stun", "none")
    url = serve.prints(r"listening on (ws://\S+)\n")[1]
    sender = flyx.start("send", "--server", url, source)
    line = [*sender.out.split()[1:], "--yes"] if sender.code() else []
    receiver = flyx.start(*line, *([] if environment.get("FLYX_OUTPUT") else ["-o", "in"])).ends(EXIT_DONE)
    sender.ends(EXIT_DONE)
    assert sha256(tmp_path / "in" / "file") == sha256(source)
    for process in (serve, sender, receiver):
        assert "s3cret" not in process.out + process.err
        assert SECRET not in process.out + process.err
