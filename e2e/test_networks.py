"""The table of networks, row by row: between which machines a transfer works, by which path, and what is said
where it cannot."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from e2e.laboratory import (
    NO_CONNECTION,
    TCP_RELAY,
    TLS_RELAY,
    UDP_RELAY,
    Case,
    Laboratory,
    Site,
    check,
)
from e2e.network import ADDRESS_RESTRICTED, FULL_CONE, PORT_RESTRICTED, SYMMETRIC, Firewall

PUBLIC = Site()
SITES = {
    "public": PUBLIC,
    "full cone": Site(FULL_CONE),
    "address-restricted": Site(ADDRESS_RESTRICTED),
    "port-restricted": Site(PORT_RESTRICTED),
    "carrier-grade": Site(PORT_RESTRICTED, carrier=PORT_RESTRICTED),
    "symmetric": Site(SYMMETRIC),
}

def test_try(laboratory: Laboratory) -> None:
    check(c := Case("port-restricted with port-restricted", SITES["port-restricted"], SITES["full cone"]), laboratory.run(c))
