"""`flyx doctor` in networks of which each lacks something: real processes, and real servers of every kind."""

from __future__ import annotations

from typing import Any

import pytest

from e2e.laboratory import SERVER, SOAK, STUN_URL, TCP_RELAY, TLS_RELAY, UDP_RELAY, Case, Laboratory, Site
from e2e.network import ADDRESS_RESTRICTED, FULL_CONE, PORT_RESTRICTED, SYMMETRIC, Firewall, Nat
from e2e.processes import FlyxProcess

SECOND_STUN_URL = f"stun:{SERVER}:3478"
RELAYS = (f"{UDP_RELAY}?transport=udp", TCP_RELAY, TLS_RELAY)
NO_UDP = Firewall(udp="drop")

Findings = dict[str, list[dict[str, Any]]]


def case(**differences: Any) -> Case:
    """A server, two STUN servers and relays by every way, and both sides behind an ordinary NAT."""
    home = Site(nat=PORT_RESTRICTED)
    usual = {"sender": home, "receiver": home, "turn": RELAYS, "stun": (STUN_URL, SECOND_STUN_URL)}
    return Case(**{"name": "doctor", **usual, **differences})


def build(laboratory: Laboratory, of: Case) -> None:
    laboratory.build(of)
    laboratory.second_stun()


def examine(laboratory: Laboratory, of: Case, *arguments: str, status: int) -> Findings:
    """What a doctor on the receiver's computer finds, by name."""
    doctor = laboratory.start("receiver", "doctor", "--server", of.server, "--json", *arguments)
    doctor.ends(status)
    found: Findings = {}
    for finding in doctor.named("finding"):
        found.setdefault(finding["name"], []).append(finding)
    (examined,) = doctor.named("examined")
    assert examined["seconds"] < 20
    return found


def failing(found: Findings) -> set[str]:
    return {name for name, findings in found.items() if any(f["state"] == "failing" for f in findings)}


def words(found: Findings, name: str) -> list[str]:
    return sorted(finding["words"] for finding in found[name])


def test_behind_an_ordinary_nat_nothing_fails(laboratory: Laboratory) -> None:
    of = case()
    build(laboratory, of)
    found = examine(laboratory, of, status=0)
    assert failing(found) == set()
    (mapping,) = found["mapping"]
    assert mapping["figures"] == {"mapping": "endpoint-independent"}
    assert [relay["state"] for relay in found["turn"]] == ["ok"] * 3
    assert found["mtu"][0]["figures"] == {"mtu": 1500}


def test_a_symmetric_nat_is_found_by_two_servers(laboratory: Laboratory) -> None:
    of = case(receiver=Site(nat=SYMMETRIC))
    build(laboratory, of)
    (mapping,) = examine(laboratory, of, status=0)["mapping"]
    assert (mapping["state"], mapping["figures"]) == ("warning", {"mapping": "dependent"})


@pytest.mark.parametrize(
    ("nat", "mapping", "filtering"),
    [
        pytest.param(FULL_CONE, *("endpoint-independent",) * 2, id="full cone", marks=SOAK),
        pytest.param(
            ADDRESS_RESTRICTED, "endpoint-independent", "address-dependent", id="address-restricted"
        ),
        pytest.param(
            *(PORT_RESTRICTED, "endpoint-independent", "address- and port-dependent"),
            id="port-restricted",
            marks=SOAK,
        ),
        pytest.param(SYMMETRIC, *("address- and port-dependent",) * 2, id="symmetric"),
    ],
)
def test_a_stun_server_of_two_addresses_shows_what_kind_of_nat_it_is(
    laboratory: Laboratory, nat: Nat, mapping: str, filtering: str
) -> None:
    of = case(receiver=Site(nat=nat), stun=(SECOND_STUN_URL,))
    laboratory.build(of)
    laboratory.second_stun(behavior_discovery=True)
    found = examine(laboratory, of, status=0)
    assert found["mapping"][0]["figures"] == {"mapping": mapping}
    assert found["filtering"][0]["figures"] == {"filtering": filtering}


def test_where_udp_is_blocked_the_other_ways_to_the_relay_are_told(laboratory: Laboratory) -> None:
    of = case(receiver=Site(nat=PORT_RESTRICTED, firewall=NO_UDP))
    build(laboratory, of)
    found = examine(laboratory, of, status=1)
    assert failing(found) == {"stun", "turn"}
    assert "UDP" in found["stun"][0]["meaning"]
    by_tcp, by_udp, by_tls = words(found, "turn")
    assert by_udp == "192.0.2.2 by UDP did not answer"
    assert "by TCP is ready" in by_tcp
    assert "turn.example by TLS is ready" in by_tls


def test_a_relay_with_another_secret_refuses_by_every_way(laboratory: Laboratory) -> None:
    of = case(secret="another secret")
    build(laboratory, of)
    found = examine(laboratory, of, status=1)
    assert failing(found) == {"turn"}
    assert all(told.endswith("refused: wrong credentials (401)") for told in words(found, "turn"))
    assert "--turn-secret" in found["turn"][0]["advice"]


def test_without_a_name_server_that_answers_the_name_is_blamed(laboratory: Laboratory) -> None:
    of = case(server="ws://server.example:443", names={"*": "silent"})
    build(laboratory, of)
    found = examine(laboratory, of, status=1)
    assert {"dns", "server", "websocket"} <= failing(found)
    assert words(found, "dns") == ["server.example was not found: no name server answers"]
    assert found["disk"][0]["state"] == "ok"


def test_without_a_server_this_computer_is_examined(laboratory: Laboratory) -> None:
    of = case(server=f"ws://{SERVER}:444")
    build(laboratory, of)
    found = examine(laboratory, of, status=1)
    assert failing(found) == {"server", "websocket"}
    assert "flyx serve" in found["server"][0]["advice"]


def test_with_a_code_the_way_between_two_nats_is_tried_and_the_code_stays_good(
    laboratory: Laboratory,
) -> None:
    of = case()
    build(laboratory, of)
    sender: FlyxProcess = laboratory.send(of)
    code = sender.code()
    found = examine(laboratory, of, code, status=0)
    assert found["peer"][0]["words"].startswith("connected directly")
    assert any(pair["figures"]["result"] == "works" for pair in found["pair"])
    laboratory.receive(of, code).ends(0)
    sender.ends(0)


def test_doctor_names_what_was_tried_and_which_relay_refused_where_there_is_no_connection(
    laboratory: Laboratory,
) -> None:
    of = case(receiver=Site(nat=PORT_RESTRICTED, firewall=NO_UDP), secret="another secret")
    build(laboratory, of)
    sender = laboratory.send(of)
    receiver = laboratory.receive(of, sender.code())
    receiver.fails(4, "peer_unreachable", within=30)
    (error,) = receiver.named("error")
    assert "UDP to the other side got no answer" in error["message"]
    assert "192.0.2.2 refused: wrong credentials (401)" in error["message"]
    assert "turn.example refused: wrong credentials (401)" in error["message"]
    told = receiver.named("connecting")
    assert told
    assert "refused: wrong credentials (401)" in told[0]["message"]
