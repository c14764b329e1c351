"""What doctor says of this computer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from flyx.client.doctor.finding import FindingState
from flyx.client.doctor.machine import DATAGRAMS, check_descriptors, check_disk, check_mdns, check_offload
from tests.storage.support import descriptors_no_more_than


async def test_offload_is_what_a_transfer_to_ourselves_shows() -> None:
    finding = await check_offload()
    figures = finding.figures
    assert figures["datagrams"] == DATAGRAMS
    assert 1 <= int(str(figures["send_calls"])) <= DATAGRAMS
    if sys.platform == "linux":
        assert finding.state is FindingState.OK
        assert figures["send_calls"] == 1


async def test_a_directory_that_takes_files_is_measured(tmp_path: Path) -> None:
    finding = await check_disk(tmp_path)
    assert finding.state is not FindingState.FAILING
    assert int(str(finding.figures["rate"])) > 0
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["missing", "file"])
async def test_a_directory_that_takes_none_fails(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    finding = await check_disk(tmp_path / name)
    assert finding.state is FindingState.FAILING
    assert "--output" in finding.advice


async def test_few_descriptors_are_a_warning() -> None:
    # Not around the test: the loop that runs it needs descriptors too, and earlier tests may still have some.
    with descriptors_no_more_than(200):
        finding = await check_descriptors()
    assert finding.state is FindingState.WARNING
    assert finding.figures == {"limit": 200}
    assert "ulimit" in finding.advice


async def test_multicast_that_comes_back_is_good_and_otherwise_the_reason_is_told() -> None:
    finding = await check_mdns()
    assert finding.state is FindingState.OK or ": " in finding.words
