from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.errors import InputError
from flyx.net.proxy import Proxy, proxy_for

VARIABLES = ("ws", "wss", "http", "https", "all", "socks", "no")
HTTP = Proxy("http", "proxy.test", 3128)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without any proxy."""
    for name in VARIABLES:
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_PROXY".upper(), raising=False)
    monkeypatch.delenv("REQUEST_METHOD", raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variable", "scheme", "leads"),
    [
        ("HTTPS_PROXY", "wss", True),
        ("https_proxy", "wss", True),
        ("ALL_PROXY", "wss", True),
        ("all_proxy", "ws", True),
        ("HTTP_PROXY", "ws", True),
        ("http_proxy", "ws", True),
        ("HTTPS_PROXY", "ws", True),
        ("HTTP_PROXY", "wss", False),
        ("ALL_PROXY", "turn", True),
        ("HTTPS_PROXY", "turns", True),
        ("HTTP_PROXY", "turn", False),
    ],
)
def test_the_usual_variables_name_the_proxy(
    environment: pytest.MonkeyPatch, variable: str, scheme: str, leads: bool
) -> None:
    environment.setenv(variable, "http://proxy.test:3128")
    proxy = proxy_for(scheme, "server.test")
    assert proxy == (HTTP if leads else None)
    assert proxy is None or str(proxy) == f"proxy.test:3128 ({variable})"


def test_without_any_there_is_none(environment: pytest.MonkeyPatch) -> None:
    assert proxy_for("wss", "server.test") is None


def test_lower_case_wins(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", "http://other.test:1")
    environment.setenv("https_proxy", "http://proxy.test:3128")
    assert proxy_for("wss", "server.test") == HTTP


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("proxy.test:3128", HTTP),
        ("http://proxy.test", Proxy("http", "proxy.test", 80)),
        ("https://proxy.test", Proxy("https", "proxy.test", 443)),
        ("SOCKS5H://Proxy.test", Proxy("socks5h", "proxy.test", 1080)),
        ("socks://proxy.test", Proxy("socks5h", "proxy.test", 1080)),
        ("socks5://proxy.test:9", Proxy("socks5", "proxy.test", 9)),
        ("socks4://proxy.test", Proxy("socks4", "proxy.test", 1080)),
        ("http://[2001:db8::1]:3128/", Proxy("http", "2001:db8::1", 3128)),
        ("http://me:p%40ss@proxy.test:3128", Proxy("http", "proxy.test", 3128, "me", "p@ss")),
        ("http://me@proxy.test:3128", Proxy("http", "proxy.test", 3128, "me")),
    ],
)
def test_the_url_of_a_proxy_may_be_written_in_several_ways(
    environment: pytest.MonkeyPatch, url: str, proxy: Proxy
) -> None:
    environment.setenv("all_proxy", url)
    assert proxy_for("wss", "server.test") == proxy


@pytest.mark.parametrize(
    "url",
    ["ftp://me:s3cret@proxy.test", "http://", "http://me:s3cret@:1", "http://x:s3cret@proxy.test:99999"],
)
def test_what_is_no_proxy_is_an_error_that_names_the_variable_and_no_secret(
    environment: pytest.MonkeyPatch, url: str
) -> None:
    environment.setenv("HTTPS_PROXY", url)
    with pytest.raises(InputError, match="HTTPS_PROXY") as caught:
        proxy_for("wss", "server.test")
    assert caught.value.hint
    assert "s3cret" not in str(caught.value)


def test_credentials_are_never_shown() -> None:
    proxy = Proxy("http", "proxy.test", 3128, "somebody", "s3cret")
    assert str(proxy) == "proxy.test:3128"
    for shown in (str(proxy), repr(proxy), f"{proxy}"):
        assert "proxy.test" in shown
        assert "somebody" not in shown
        assert "s3cret" not in shown


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost.",
        "a.localhost",
        "127.0.0.1",
        "127.8.9.1",
        "::1",
        "fe80::1%eth0",
        "169.254.1.1",
    ],
)
def test_what_is_here_or_on_this_link_is_never_behind_a_proxy(
    environment: pytest.MonkeyPatch, host: str
) -> None:
    environment.setenv("ALL_PROXY", "http://proxy.test:3128")
    assert proxy_for("wss", host) is None


@pytest.mark.parametrize(
    ("exempt", "host", "port", "leads"),
    [
        ("*", "server.test", None, False),
        ("server.test", "server.test", None, False),
        ("server.test", "a.server.test", None, False),
        (".server.test", "a.server.test", None, False),
        ("server.test", "other-server.test", None, True),
        ("other.test, server.test", "SERVER.test", None, False),
        ("server.test:8000", "server.test", 8000, False),
        ("server.test:8000", "server.test", 9000, True),
        ("192.0.2.1", "192.0.2.1", 80, False),
        ("192.0.2.0/24", "192.0.2.77", 80, False),
        ("192.0.2.0/24", "192.0.3.77", 80, True),
        ("2001:db8::/32", "2001:db8::5", 80, False),
        ("[2001:db8::5]", "2001:db8::5", 80, False),
        ("2001:db8::6", "2001:db8::5", 80, True),
        ("localhost,,nonsense/99", "192.0.3.77", 80, True),
    ],
)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_no_proxy_exempts(
    environment: pytest.MonkeyPatch, variable: str, exempt: str, host: str, port: int | None, leads: bool
) -> None:
    environment.setenv("ALL_PROXY", "http://proxy.test:3128")
    environment.setenv(variable, exempt)
    assert proxy_for("wss", host, port) == (HTTP if leads else None)


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_any_text_is_a_proxy_or_refused(text: str) -> None:
    with pytest.MonkeyPatch.context() as environment:
        for name in VARIABLES:
            environment.delenv(f"{name}_proxy", raising=False)
            environment.delenv(f"{name}_PROXY".upper(), raising=False)
        environment.setenv("ALL_PROXY", text)
        with suppress(InputError):
            proxy = proxy_for("wss", "server.test")
            assert proxy is None or (proxy.host and 0 < proxy.port < 65536)
