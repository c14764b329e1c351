"""What a NAT does with UDP: mapping and filtering behaviour, in the terms of RFC 4787 §4.1 and §5. Pure.

flyx.client.doctor.network asks the questions of RFC 5780 §4.3 and §4.4, and this judges the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from flyx.client.doctor.finding import Finding, FindingState

Endpoint = tuple[str, int]
"""Address and port."""


class Mapping(StrEnum):
    """How the address that others see depends on whom we send to."""

    # It is our own: there is no NAT.
    NONE = "none"
    INDEPENDENT = "endpoint-independent"
    ADDRESS = "address-dependent"
    ADDRESS_AND_PORT = "address- and port-dependent"
    # On the address at least: no server with two addresses was there to tell which.
    DEPENDENT = "dependent"
    UNKNOWN = "unknown"


class Filtering(StrEnum):
    """Whose datagrams are let in."""

    INDEPENDENT = "endpoint-independent"
    ADDRESS = "address-dependent"
    ADDRESS_AND_PORT = "address- and port-dependent"
    UNKNOWN = "unknown"


def mapping_of(
    local: Endpoint,
    first: Endpoint | None,
    other_address: Endpoint | None = None,
    other_port: Endpoint | None = None,
    elsewhere: Sequence[Endpoint] = (),
) -> Mapping:
    """Judge the addresses that one socket of ours has seen of itself. RFC 5780 §4.3.

    Args:
        local: the socket's own.
        first: as the first server sees it; None if it did not answer.
        other_address: as its other address sees it, at the same port.
        other_port: as its other address sees it at its other port.
        elsewhere: as other servers see it.
    """
    if first is None:
        return Mapping.UNKNOWN
    if first == local:
        return Mapping.NONE
    if other_address is not None:
        if other_address == first:
            return Mapping.INDEPENDENT
        if other_port is None:
            return Mapping.DEPENDENT
        return Mapping.ADDRESS if other_port == other_address else Mapping.ADDRESS_AND_PORT
    if any(seen != first for seen in elsewhere):
        return Mapping.DEPENDENT
    return Mapping.INDEPENDENT if elsewhere else Mapping.UNKNOWN


def filtering_of(*, other_works: bool, from_other: bool, from_other_port: bool) -> Filtering:
    """Judge which answers have come to a socket that has sent to one address of a server. RFC 5780 §4.4.

    Args:
        other_works: the server's other address answers those who ask it.
        from_other: an answer came from its other address.
        from_other_port: one came from its other port.
    """
    if from_other:
        return Filtering.INDEPENDENT
    if not other_works:
        return Filtering.UNKNOWN
    return Filtering.ADDRESS if from_other_port else Filtering.ADDRESS_AND_PORT


_RELAY = "the server's operator can add a relay: `flyx serve --with-turn`"

_DEPENDENT_MEANING = (
    "a direct path only to computers that are public, or behind a NAT that filters by address at most; "
    "to the others through a relay"
)


def mapping_finding(mapping: Mapping, has_relay: bool) -> Finding:
    """Say what a mapping behaviour means."""
    figures = {"mapping": mapping.value}
    match mapping:
        case Mapping.NONE:
            words, meaning = "no NAT", "others reach this computer as it is, if no firewall forbids it"
        case Mapping.INDEPENDENT:
            words = "endpoint-independent: everybody sees the same address"
            meaning = "a direct path to nearly every other network"
        case Mapping.UNKNOWN:
            words = "there is a NAT or there may be; one STUN server alone cannot tell how it maps"
            meaning = "whether there will be a direct path shows when it is tried"
        case _:
            kind = mapping.value if mapping is not Mapping.DEPENDENT else "dependent on the destination"
            words = f"{kind} (a symmetric NAT)"
            advice = "" if has_relay else _RELAY
            return Finding("mapping", FindingState.WARNING, words, _DEPENDENT_MEANING, advice, figures)
    return Finding("mapping", FindingState.OK, words, meaning, figures=figures)


def filtering_finding(filtering: Filtering, mapping: Mapping) -> Finding:
    """Say what a filtering behaviour means."""
    match filtering:
        case Filtering.INDEPENDENT:
            words = "endpoint-independent: anybody is let in"
            meaning = "a direct path even to computers behind a symmetric NAT"
        case Filtering.ADDRESS:
            words = "address-dependent: whoever we have sent to is let in, from any port"
            meaning = "a direct path even to computers behind a symmetric NAT"
        case Filtering.ADDRESS_AND_PORT:
            words = "address- and port-dependent: only what we have sent to is let in"
            meaning = "no direct path to computers behind a symmetric NAT; a relay helps"
        case Filtering.UNKNOWN:
            words = "not known: the STUN servers have no second address (RFC 5780)"
            meaning = (
                "whether computers behind a symmetric NAT can be reached directly shows when it is tried"
            )
    if mapping not in (Mapping.NONE, Mapping.INDEPENDENT, Mapping.UNKNOWN):
        meaning = ""
    figures = {"filtering": filtering.value}
    return Finding("filtering", FindingState.OK, words, meaning, figures=figures)
