"""The modules of the page that need no browser, in Node."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent / "page"
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node.js")


@pytest.fixture
def node() -> str:
    return str(NODE)


@pytest.mark.parametrize("tests", sorted(HERE.glob("*.test.mjs")), ids=lambda path: path.name)
def test_the_modules_do_what_their_tests_say(node: str, tests: Path, tmp_path: Path) -> None:
    command = [node, "--no-warnings", "--test", "--test-reporter=spec", tests]
    result = subprocess.run(command, env={"TMPDIR": str(tmp_path)}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def written(node: str, path: Path, members: list[dict[str, Any]]) -> Path:
    """An archive of these."""
    command = [node, "--no-warnings", HERE / "write_zip.mjs", path]
    subprocess.run(command, input=json.dumps(members), text=True, check=True)
    return path


def member(path: str, *, mtime: float = 1_700_000_001_500, **fields: Any) -> dict[str, Any]:
    return {"path": path, "isDirectory": False, "mtime": mtime, **fields}


streamed = pytest.mark.parametrize("streamed", [False, True])


@streamed
def test_an_archive_is_read_by_others(node: str, tmp_path: Path, streamed: bool) -> None:
    members = [
        member("tree", isDirectory=True),
        member("tree/empty", text="", streamed=streamed),
        member("tree/Grüße 😀.txt", text="hello " * 1000, streamed=streamed),
        member("tree/old", text="x", mtime=-1e12, streamed=streamed),
        member("tree/far", text="x", mtime=9e12, streamed=streamed),
    ]
    path = written(node, tmp_path / "a.zip", members)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["tree/", *(each["path"] for each in members[1:])]
        assert archive.read("tree/Grüße 😀.txt") == b"hello " * 1000
        infos = archive.infolist()
        assert infos[0].is_dir()
        assert [info.external_attr >> 16 for info in infos[:2]] == [0o040755, 0o100644]
        assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
    if unzip := shutil.which("unzip"):
        told = subprocess.run([unzip, "-t", path], capture_output=True, text=True)
        assert told.returncode == 0, told.stdout
        subprocess.run([unzip, "-q", path], cwd=tmp_path, check=True)
        assert (tmp_path / "tree" / "Grüße 😀.txt").stat().st_mtime == 1_700_000_001


@streamed
def test_an_archive_has_files_places_and_counts_beyond_32_and_16_bits(
    node: str, tmp_path: Path, streamed: bool
) -> None:
    """As far as that can be told without writing them: the bytes of the long ones are holes."""
    long = 5 << 30
    members = [member(f"small {n}", text=str(n)) for n in range(66_000)]
    members[100:100] = [
        member("just not long", size=0xFFFFFFFE, streamed=streamed),
        member("long", size=long, streamed=streamed),
    ]
    members.append(member("behind", text="it is there"))
    path = written(node, tmp_path / "long.zip", members)
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == 66_003
        assert archive.getinfo("long").file_size == long
        assert archive.getinfo("behind").header_offset > long
        for name, content in (("behind", b"it is there"), ("small 0", b"0"), ("small 65999", b"65999")):
            assert archive.read(name) == content
        with archive.open("long") as file:
            assert file.read(10) == bytes(10)
