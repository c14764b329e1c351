"""The vectors for other programs are what flyx does, to the byte."""

from __future__ import annotations

import json

import pytest

from tests.pairing.vectors import CASES, PATH, Case, make

RECORDED = {made["name"]: made for made in json.loads(PATH.read_text())["pairings"]}


def test_each_case_is_recorded() -> None:
    assert set(RECORDED) == {case.name for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_whole_pairings_say_what_the_data_file_says(case: Case) -> None:
    assert make(case) == RECORDED[case.name]
