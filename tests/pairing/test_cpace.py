"""CPace: the draft's own vectors, and what its map to the curve must do for every input."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.pairing.cpace import (
    LowOrderPoint,
    calculate_generator,
    generator_string,
    intermediate_session_key,
    lv_cat,
    scalar_mult_vfy,
    transcript_ir,
)

VECTORS = json.loads((Path(__file__).parent / "data" / "cpace.json").read_text())
RUN = {name: bytes.fromhex(value) for name, value in VECTORS["run"].items()}
P = 2**255 - 19
A = 486662

entropy = random.Random(1).randbytes


def test_the_encodings_are_those_of_the_draft() -> None:
    for parts, joined in VECTORS["lv_cat"]:
        assert lv_cat(*map(bytes.fromhex, parts)).hex() == joined
    for parts, transcript in VECTORS["transcript_ir"]:
        assert transcript_ir(*map(bytes.fromhex, parts)).hex() == transcript


def test_the_generator_is_that_of_the_draft() -> None:
    inputs = RUN["prs"], RUN["ci"], RUN["sid"]
    assert generator_string(*inputs).hex() == VECTORS["generator_string"]
    assert calculate_generator(*inputs, entropy=entropy) == RUN["g"]


def test_the_shares_and_the_key_are_those_of_the_draft() -> None:
    assert scalar_mult_vfy(RUN["ya"], RUN["g"]) == RUN["Ya"]
    assert scalar_mult_vfy(RUN["yb"], RUN["g"]) == RUN["Yb"]
    shared = scalar_mult_vfy(RUN["ya"], RUN["Yb"])
    assert shared == scalar_mult_vfy(RUN["yb"], RUN["Ya"]) == RUN["K"]
    transcript = transcript_ir(RUN["Ya"], RUN["ADa"], RUN["Yb"], RUN["ADb"])
    assert intermediate_session_key(RUN["sid"], shared, transcript) == RUN["ISK_IR"]


@pytest.mark.parametrize(("point", "product"), VECTORS["scalar_mult_vfy"]["points"])
def test_points_of_low_order_are_refused_and_their_neighbours_are_not(point: str, product: str) -> None:
    scalar = bytes.fromhex(VECTORS["scalar_mult_vfy"]["scalar"])
    if int(product, 16):
        assert scalar_mult_vfy(scalar, bytes.fromhex(point)).hex() == product
    else:
        with pytest.raises(LowOrderPoint):
            scalar_mult_vfy(scalar, bytes.fromhex(point))


def elligator2(element: int) -> int:
    """The reference of the draft's appendix, as its formulas stand."""
    v = -A * pow(1 + 2 * element**2, -1, P)
    epsilon = pow(v**3 + A * v**2 + v, (P - 1) // 2, P)
    return (epsilon * v - (1 - epsilon) * A * pow(2, -1, P)) % P


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=300), st.binary(min_size=64))
def test_the_generator_is_what_the_formulas_give_whatever_blinds_it(
    prs: bytes, ci: bytes, sid: bytes, blinding: bytes
) -> None:
    digest = hashlib.sha512(generator_string(prs, ci, sid)).digest()
    expected = elligator2(int.from_bytes(digest[:32], "little") % 2**255)
    drawn = iter([blinding[:32], blinding[32:64]])
    generator = calculate_generator(prs, ci, sid, entropy=lambda size: next(drawn))
    assert int.from_bytes(generator, "little") == expected


@given(st.binary(max_size=300))
def test_a_short_password_fills_the_same_first_block(prs: bytes) -> None:
    text = generator_string(prs, b"ci", b"sid")
    assert text.endswith(lv_cat(b"ci", b"sid"))
    if len(prs) <= 100:
        assert len(text) == len(generator_string(b"", b"ci", b"sid"))
    assert len(text) - len(lv_cat(b"ci", b"sid")) >= 128
