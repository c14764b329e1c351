"""The private names of aiortc and aioice that flyx uses are still there."""

from __future__ import annotations

from importlib.metadata import requires, version

import pytest
from aioice import Connection
from aiortc import RTCConfiguration, RTCPeerConnection

from flyx.rtc import seam


async def test_every_private_name_exists_in_the_installed_release() -> None:
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        pc.createDataChannel("any")
        assert pc.sctp is not None
        gatherer = pc.sctp.transport.transport.iceGatherer
        instances = {type(gatherer): gatherer, Connection: gatherer._connection}
        assert set(instances) == set(seam.PRIVATE_NAMES)
        for kind, names in seam.PRIVATE_NAMES.items():
            for name in names:
                assert hasattr(instances[kind], name), f"{kind.__name__}.{name}"
    finally:
        await pc.close()


def test_aiortc_is_pinned_to_the_release_that_is_tested() -> None:
    assert f"aiortc=={version('aiortc')}" in (requires("flyx") or [])


async def test_without_a_network_the_loopback_is_a_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: [])
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        pc.createDataChannel("any")
        candidates = await seam.gather_host_candidates(pc)
        assert [candidate.ip for candidate in candidates] == seam.LOOPBACK_ADDRESSES
    finally:
        await pc.close()
