"""The words for what was tried to reach the other side."""

from __future__ import annotations

import errno
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.rtc.attempts import (
    NO_ANSWER,
    NO_NAME_SERVER,
    OK,
    Attempts,
    PairAttempt,
    PairState,
    ServerAttempt,
    failure_hint,
    failure_outcome,
    failure_text,
    log_lines,
    progress_text,
    refusal,
    server_host,
)

REASON = "it was not made within 30 s"
UDP, TCP, TLS = (
    "turn:turn.example.org:3478?transport=udp",
    "turn:turn.example.org:3478?transport=tcp",
    "turns:turn.example.org:443?transport=tcp",
)
STUN = "stun:stun.example.org:3478"


def pair(
    local: str = "host", remote: str = "srflx", family: int = 4, state: PairState = PairState.FAILED
) -> PairAttempt:
    return PairAttempt(local, remote, family, state, "192.0.2.7:1234", "198.51.100.9:4321")


def told(*servers: ServerAttempt, pairs: tuple[PairAttempt, ...] = (pair(),)) -> str:
    return failure_text(Attempts(pairs, servers, len(pairs)), REASON).removeprefix(f"{REASON}; ")


DIRECT = "UDP to the other side got no answer (1 pair of addresses, IPv4)"


@pytest.mark.parametrize(
    ("servers", "words"),
    [
        ((), DIRECT),
        ((ServerAttempt(UDP, "turn", OK),), DIRECT),
        (
            (ServerAttempt(UDP, "turn", refusal(401), 401),),
            f"{DIRECT}; the relay turn.example.org refused: wrong credentials (401)",
        ),
        # One outcome by all ways is told once; a server that can be had by one way can be had.
        (
            (ServerAttempt(UDP, "turn", NO_ANSWER), ServerAttempt(TCP, "turn", NO_ANSWER)),
            f"{DIRECT}; the relay turn.example.org did not answer",
        ),
        (
            (ServerAttempt(UDP, "turn", NO_ANSWER), ServerAttempt(TLS, "turn", refusal(486), 486)),
            f"{DIRECT}; the relay turn.example.org did not answer by UDP; "
            "the relay turn.example.org refused: quota reached (486) by TLS",
        ),
        ((ServerAttempt(UDP, "turn", NO_ANSWER), ServerAttempt(TCP, "turn", OK)), DIRECT),
        # A silent STUN server matters only when no other has answered.
        (
            (ServerAttempt(STUN, "stun", NO_ANSWER),),
            f"{DIRECT}; the STUN server stun.example.org did not answer",
        ),
        ((ServerAttempt(STUN, "stun", NO_ANSWER), ServerAttempt("stun:b", "stun", OK)), DIRECT),
    ],
)
def test_each_server_that_cannot_be_had_is_named_once(servers: tuple[ServerAttempt, ...], words: str) -> None:
    assert told(*servers) == words


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (
            (pair(), pair(family=6), pair("relay")),
            "UDP to the other side got no answer (2 pairs of addresses, IPv4 and IPv6); "
            "the way through a relay got no answer (1 pair of addresses, IPv4)",
        ),
        (
            (pair(state=PairState.SUCCEEDED), pair()),
            "UDP to the other side worked, but no encrypted connection came about "
            "(2 pairs of addresses, IPv4)",
        ),
        (
            (pair(remote="relay", state=PairState.FROZEN),),
            "the way through a relay was not tried yet (1 pair of addresses, IPv4)",
        ),
    ],
)
def test_pairs_are_told_by_the_way_they_take(pairs: tuple[PairAttempt, ...], words: str) -> None:
    assert told(pairs=pairs) == words


def test_no_pair_is_told_apart_from_no_address() -> None:
    assert failure_text(Attempts(), REASON) == f"{REASON}; the other side has told no address"
    text = failure_text(Attempts(remote_candidates=2), REASON)
    assert text == f"{REASON}; the other side has told 2 addresses, none of a kind that this network has"


def test_while_connecting_it_says_what_is_open_and_what_has_failed() -> None:
    servers = (
        ServerAttempt(STUN, "stun", OK),
        ServerAttempt("turn:first.example.org", "turn"),
        ServerAttempt("turn:second.example.org", "turn", refusal(401), 401),
    )
    assert progress_text(Attempts((pair(),), servers, 3)) == (
        "Trying 3 addresses of the other side; the relay first.example.org has not answered yet; "
        "the relay second.example.org refused: wrong credentials (401)"
    )
    assert progress_text(Attempts(remote_candidates=1)) == "Trying 1 address of the other side"
    assert progress_text(Attempts()) == "The other side has told no address yet"


@pytest.mark.parametrize(
    ("servers", "hint"),
    [
        ((), "a relay would help"),
        ((ServerAttempt(UDP, "turn", NO_ANSWER),), "the relay is for whoever runs the server to mend"),
        ((ServerAttempt(UDP, "turn", OK),), "try from another network"),
    ],
)
def test_the_hint_depends_on_the_relays(servers: tuple[ServerAttempt, ...], hint: str) -> None:
    assert failure_hint(Attempts(servers=servers)).startswith(hint)


def test_a_person_who_refuses_relays_is_told_that_and_not_to_have_one() -> None:
    hint = failure_hint(Attempts(), refuses_relays=True)
    assert hint.startswith("a relay may help where a firewall blocks UDP: leave out --no-relay")
    assert "--with-turn" not in hint


def test_the_tunnel_is_told_as_what_it_is() -> None:
    tunnel = PairAttempt("relay", "relay", 6, PairState.FAILED, tunnelled=True)
    assert failure_text(Attempts((tunnel,)), "it failed") == (
        "it failed; the way through the signaling server got no answer"
    )


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (UDP, "turn.example.org"),
        ("stun:stun.example.org", "stun.example.org"),
        ("turn:[2001:db8::1]:443?transport=tcp", "2001:db8::1"),
        ("nonsense", ""),
    ],
)
def test_a_server_is_known_by_its_host(url: str, host: str) -> None:
    assert server_host(url) == host


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "was not found: its name has no address here",
        ),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), NO_NAME_SERVER),
        (TimeoutError(), NO_ANSWER),
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
            "is not there: connection refused",
        ),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "was not reached: Network is unreachable"),
        (ValueError("whatever"), NO_ANSWER),
    ],
)
def test_what_kept_a_server_from_answering_is_a_predicate(error: Exception, words: str) -> None:
    assert failure_outcome(error) == words


# What is told of a way that a server was not asked by any more, as another one was faster.
_outcomes = st.sampled_from([None, OK, NO_ANSWER, refusal(401), "was not needed"])
_servers = st.builds(
    lambda number, transport, outcome: ServerAttempt(
        f"turn:relay{number}.example.org:3478?transport={transport}", "turn", outcome
    ),
    st.integers(0, 3),
    st.sampled_from(["udp", "tcp"]),
    _outcomes,
)
_pairs = st.builds(
    pair,
    st.sampled_from(["host", "srflx", "prflx", "relay"]),
    st.sampled_from(["host", "srflx", "prflx", "relay"]),
    st.sampled_from([4, 6]),
    st.sampled_from(PairState),
)


@given(st.lists(_pairs, max_size=6), st.lists(_servers, max_size=6), st.integers(0, 9))
def test_no_relay_that_failed_is_left_out_and_no_address_told(
    pairs: list[PairAttempt], servers: list[ServerAttempt], count: int
) -> None:
    attempts = Attempts(tuple(pairs), tuple(servers), count)
    had = {server_host(server.url) for server in servers if server.outcome == OK}
    for text in (failure_text(attempts, REASON), progress_text(attempts)):
        assert "192.0.2.7" not in text
        assert "198.51.100.9" not in text
        for server in servers:
            host = server_host(server.url)
            if server.outcome not in (None, OK) and host not in had:
                assert f"the relay {host} {server.outcome}" in text
            elif host in had:
                assert f"{host} {NO_ANSWER}" not in text
                assert f"{host} was not needed" not in text
    assert len(log_lines(attempts)) == len(pairs) + len(servers)


def test_addresses_of_a_link_alone_are_told_as_that_and_blame_no_firewall() -> None:
    pairs = [
        PairAttempt("host", "host", 6, PairState.FAILED, "[fe80::1%eth0]:1", "[fe80::2]:1"),
        PairAttempt("host", "host", 4, PairState.FAILED, "169.254.1.1:1", "169.254.1.2:1"),
    ]
    attempts = Attempts(tuple(pairs), (), 2)
    told = failure_text(attempts, "it failed")
    assert "(2 pairs of addresses, link-local IPv4 and link-local IPv6)" in told
    assert "firewall" not in failure_hint(attempts)
    others = PairAttempt("host", "host", 6, PairState.FAILED, "[2001:db8::1]:1", "[2001:db8::2]:1")
    assert "firewall" in failure_hint(Attempts((*pairs, others), (), 3))
