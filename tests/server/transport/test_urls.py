from __future__ import annotations

from flyx.server.transport.urls import connectable, reachable_urls, url_of


def test_ipv6_hosts_stand_in_brackets() -> None:
    assert url_of("::1", 8000) == "ws://[::1]:8000"
    assert url_of("example.org", 80) == "ws://example.org:80"


def test_all_addresses_stand_for_the_loopback_when_connecting() -> None:
    assert connectable("0.0.0.0") == "127.0.0.1"
    assert connectable("::") == "::1"
    assert connectable("192.0.2.1") == "192.0.2.1"


def test_urls_for_others_are_named_only_for_all_addresses() -> None:
    assert reachable_urls("127.0.0.1", 8000) == []
    urls = reachable_urls("0.0.0.0", 8000)
    assert urls
    assert all(url.startswith("ws://") and url.endswith(":8000") for url in urls)
