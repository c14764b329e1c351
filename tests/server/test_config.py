from __future__ import annotations

from flyx.cli import serve
from flyx.server import config


def test_the_commands_defaults_are_the_servers() -> None:
    for name in ("DEFAULT_HOST", "DEFAULT_PORT", "DEFAULT_STUN_URL", "DEFAULT_MAX_ROOMS"):
        assert getattr(serve, name) == getattr(config, name)
    default = config.ServerConfig()
    assert (default.host, default.port) == ("0.0.0.0", 8000)
