"""What `flyx serve` refuses before it listens."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyx.cli.app import app

REDIS = ["--redis", "redis://127.0.0.1:1/0"]


def refusal(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """What is said to whoever starts a server like that, which must not start."""
    with pytest.raises(SystemExit) as caught:
        app(["serve", "--port", "0", *arguments])
    assert caught.value.code == 2
    out, err = capfd.readouterr()
    assert not out
    assert err.startswith("error: ")
    assert "\nhint: " in err
    assert "Traceback" not in err
    return err


def test_several_workers_need_a_redis(capfd: pytest.CaptureFixture[str]) -> None:
    err = refusal(["--workers", "2"], capfd)
    assert "share their rooms through Redis" in err
    assert "--redis" in err


def test_rooms_are_in_one_place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "rooms.db"
    err = refusal(["--state", str(state), *REDIS], capfd)
    assert "--state and --redis exclude each other" in err
    assert not state.exists()


@pytest.mark.parametrize(
    "url", ["localhost:6379", "http://:hunter2@localhost", "redis://:hunter2@localhost:port/0", "", "redis"]
)
def test_a_url_that_can_be_no_redis_is_refused_unread(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    err = refusal(["--redis", url], capfd)
    assert "--redis needs the URL of a Redis" in err
    assert "redis://localhost:6379/0" in err
    # It may be in a log, or on a screen that others see.
    assert "hunter2" not in err
