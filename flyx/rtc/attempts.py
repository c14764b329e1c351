"""What a peer connection has tried to reach the other side, and the words for it.

PeerConnection.attempts() takes the snapshot; the words are pure functions of it. Addresses are in a snapshot
to be logged with --debug: they are in no text for people, who pass these on.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from enum import Enum, auto
from typing import Literal

from msgspec import Struct

OK = "ok"
"""The outcome of a server that has done what it was asked for."""

NO_ANSWER = "did not answer"
"""The outcome of a server that was silent."""

NO_NAME_SERVER = "was not found: no name server answers"
"""The outcome of a server whose name could not be looked up."""


class PairState(Enum):
    """The states of a candidate pair, RFC 8445 §6.1.2.6."""

    FROZEN = auto()
    WAITING = auto()
    IN_PROGRESS = auto()
    SUCCEEDED = auto()
    FAILED = auto()


class PairAttempt(Struct, frozen=True):
    """A candidate pair of the checklist.

    Attributes:
        local_type: host, srflx, prflx or relay (RFC 8445 §5.1.1).
        remote_type: the same; it is what the peer says.
        family: of the IP addresses, 4 or 6.
        state: of its checks.
        local_address: "host:port" of the local candidate.
        remote_address: the same of the remote one.
        tunnelled: it is the way through the signaling server; its addresses mean nothing.
    """

    local_type: str
    remote_type: str
    family: int
    state: PairState
    local_address: str = ""
    remote_address: str = ""
    tunnelled: bool = False


class ServerAttempt(Struct, frozen=True):
    """A STUN or TURN server that was asked, by one URL.

    Attributes:
        url: as the signaling server gave it: "turn:host:port?transport=udp" (RFC 7064, RFC 7065).
        kind: what it was asked for: "stun" a reflexive address, "turn" an allocation.
        outcome: None while it is asked, OK, or a predicate: "did not answer", "refused: wrong credentials".
            refusal() and failure_outcome() have the words.
        code: of the STUN error response (RFC 8489 §14.8), if there was one.
    """

    url: str
    kind: Literal["stun", "turn"]
    outcome: str | None = None
    code: int | None = None


class Attempts(Struct, frozen=True):
    """All that was tried for one connection.

    Attributes:
        pairs: candidate pairs, in any order.
        servers: each URL that was asked.
        remote_candidates: addresses that the other side has told, those that go with none of ours included.
    """

    pairs: tuple[PairAttempt, ...] = ()
    servers: tuple[ServerAttempt, ...] = ()
    remote_candidates: int = 0


_REFUSALS = {
    300: "refused: it names another server",
    400: "refused: bad request",
    401: "refused: wrong credentials",
    403: "refused: forbidden",
    437: "refused: allocation mismatch",
    438: "refused: stale nonce",
    440: "refused: address family not supported",
    441: "refused: wrong credentials",
    442: "refused: transport not supported",
    443: "refused: peer address of another family",
    486: "refused: quota reached",
    500: "refused: server error",
    508: "refused: insufficient capacity",
}
"""Error codes of RFC 8489 §14.8 and RFC 8656 §18.12."""


def refusal(code: int) -> str:
    """Return the outcome for a STUN or TURN error response."""
    return _REFUSALS.get(code, "refused")


def failure_outcome(error: BaseException) -> str:
    """Return the outcome for what kept us from asking, or the server from answering."""
    match error:
        case socket.gaierror(errno=socket.EAI_AGAIN):
            return NO_NAME_SERVER
        case socket.gaierror():
            return "was not found: its name has no address here"
        case TimeoutError():
            return NO_ANSWER
        case ConnectionRefusedError():
            return "is not there: connection refused"
        case OSError(strerror=str(reason)):
            return f"was not reached: {reason}"
        case _:
            return NO_ANSWER


def failure_text(attempts: Attempts, reason: str) -> str:
    """Return why there is no connection: what came of each way, and of each relay that could not be had.

    Args:
        attempts: as they stood in the end.
        reason: a clause to begin with: "it was not made within 30 s".
    """
    return "; ".join([reason, *_pairs_told(attempts), *_failures_told(attempts)])


def failure_hint(attempts: Attempts, *, refuses_relays: bool = False) -> str:
    """Return a hint for when there is no connection; the person may have refused all relays."""
    relays = [server for server in attempts.servers if server.kind == "turn"]
    doctor = "`flyx doctor` on either side shows what its network lets through"
    if attempts.pairs and all(map(_is_on_link, attempts.pairs)):
        return f"the two share no addresses but link-local ones: are both in a network? {doctor}"
    if refuses_relays:
        return f"a relay may help where a firewall blocks UDP: leave out --no-relay; {doctor}"
    if not relays:
        relay = "`flyx serve --with-turn` or `--relay 2MB`"
        return f"a relay would help where a firewall blocks UDP: {relay}; {doctor}"
    if not any(server.outcome == OK for server in relays):
        return f"the relay is for whoever runs the server to mend, or try from another network; {doctor}"
    return f"try from another network; {doctor}"


def progress_text(attempts: Attempts) -> str:
    """Return what is being tried, for a person who has waited for some time."""
    count = attempts.remote_candidates
    if count:
        trying = f"Trying {_counted(count, 'address', 'addresses')} of the other side"
    else:
        trying = "The other side has told no address yet"
    open_relays = _by_host(server for server in attempts.servers if server.outcome is None)
    waiting = [f"{_called(kind)} {host} has not answered yet" for (kind, host), _ in open_relays]
    return "; ".join([trying, *waiting, *_failures_told(attempts)])


def log_lines(attempts: Attempts) -> list[str]:
    """Return a line for each pair and each server, addresses included, for --debug."""
    pairs = [
        f"{pair.local_type} {pair.local_address} to {pair.remote_type} {pair.remote_address}: "
        f"{pair.state.name.lower()}"
        for pair in attempts.pairs
    ]
    return pairs + [f"{server.url}: {_outcome_text(server)}" for server in attempts.servers]


def server_host(url: str) -> str:
    """Return the host of a stun: or turn: URL, as people know the server (RFC 7064 §3.1, RFC 7065 §3.1)."""
    address = url.partition(":")[2].partition("?")[0]
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0]


def _pairs_told(attempts: Attempts) -> list[str]:
    """What came of the candidate pairs: first of those without a relay, then of those with one."""
    if not attempts.pairs:
        if not attempts.remote_candidates:
            return ["the other side has told no address"]
        count = _counted(attempts.remote_candidates, "address", "addresses")
        return [f"the other side has told {count}, none of a kind that this network has"]
    relayed = [pair for pair in attempts.pairs if "relay" in (pair.local_type, pair.remote_type)]
    direct = [pair for pair in attempts.pairs if pair not in relayed]
    tunnelled = [pair for pair in relayed if pair.tunnelled]
    relayed = [pair for pair in relayed if not pair.tunnelled]
    told: list[str] = []
    if direct:
        told.append(f"UDP to the other side {_result(direct)}")
    if relayed:
        told.append(f"the way through a relay {_result(relayed)}")
    if tunnelled:
        told.append(f"the way through the signaling server {_result(tunnelled)}")
    return told


def _result(pairs: list[PairAttempt]) -> str:
    families = " and ".join(sorted({_family(pair) for pair in pairs}))
    tried = f" ({_counted(len(pairs), 'pair', 'pairs')} of addresses, {families})"
    if pairs[0].tunnelled:
        tried = ""
    if any(pair.state is PairState.SUCCEEDED for pair in pairs):
        return f"worked, but no encrypted connection came about{tried}"
    if all(pair.state in (PairState.FROZEN, PairState.WAITING) for pair in pairs):
        return f"was not tried yet{tried}"
    return f"got no answer{tried}"


def _family(pair: PairAttempt) -> str:
    return f"link-local IPv{pair.family}" if _is_on_link(pair) else f"IPv{pair.family}"


def _is_on_link(pair: PairAttempt) -> bool:
    """Whether a pair leads no further than the link between the two, if there is one: RFC 4291, RFC 3927."""
    return pair.local_address.lower().startswith(("fe80:", "[fe80:", "169.254."))


def _failures_told(attempts: Attempts) -> list[str]:
    """Each relay that could not be had; each STUN server, if none has told us an address of ours."""
    told: list[str] = []
    for kind in ("stun", "turn"):
        servers = [server for server in attempts.servers if server.kind == kind]
        answered = {server_host(server.url) for server in servers if server.outcome == OK}
        if kind == "stun" and answered:
            continue
        failed = [server for server in servers if server.outcome not in (None, OK)]
        for (_, host), by_url in _by_host(failed):
            if host not in answered:
                told += _server_told(kind, host, by_url)
    return told


def _server_told(kind: str, host: str, servers: list[ServerAttempt]) -> list[str]:
    """One clause for each outcome that a server has had; by which transports, if it had several."""
    by_outcome: dict[str, list[str]] = {}
    for server in servers:
        by_outcome.setdefault(_outcome_text(server), []).append(_transport(server.url))
    if len(by_outcome) == 1:
        return [f"{_called(kind)} {host} {next(iter(by_outcome))}"]
    return [
        f"{_called(kind)} {host} {outcome} by {' and '.join(dict.fromkeys(transports))}"
        for outcome, transports in by_outcome.items()
    ]


def _outcome_text(server: ServerAttempt) -> str:
    outcome = server.outcome or "has not answered yet"
    return outcome if server.code is None else f"{outcome} ({server.code})"


def _transport(url: str) -> str:
    """Return how a TURN server is spoken to: a turns: URL without a transport means TLS over TCP."""
    scheme, _, rest = url.partition(":")
    transport = rest.partition("?transport=")[2].upper()
    if scheme.lower() in ("turns", "stuns"):
        return "DTLS" if transport == "UDP" else "TLS"
    return transport or "UDP"


def _by_host(servers: Iterable[ServerAttempt]) -> list[tuple[tuple[str, str], list[ServerAttempt]]]:
    """Return the servers by (kind, host), in the order in which they were given."""
    hosts: dict[tuple[str, str], list[ServerAttempt]] = {}
    for server in servers:
        hosts.setdefault((server.kind, server_host(server.url)), []).append(server)
    return list(hosts.items())


def _called(kind: str) -> str:
    return "the relay" if kind == "turn" else "the STUN server"


def _counted(count: int, one: str, many: str) -> str:
    return f"1 {one}" if count == 1 else f"{count} {many}"
