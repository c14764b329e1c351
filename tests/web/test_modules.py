"""The modules of the page's engine, each tested in Node, against vectors that flyx makes here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.web.vectors import make

HERE = Path(__file__).parent
NODE = shutil.which("node")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "vectors.json"
    path.write_text(json.dumps(make()))
    return path


@pytest.mark.skipif(NODE is None, reason="needs Node.js")
@pytest.mark.parametrize("module", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_a_module_does_what_its_tests_say(module: str, vectors: Path) -> None:
    run = subprocess.run(
        [str(NODE), "--no-warnings", "--test", "--test-reporter=tap", str(HERE / module)],
        env={**os.environ, "FLYX_VECTORS": str(vectors)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stdout + run.stderr
