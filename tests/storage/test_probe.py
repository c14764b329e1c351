"""What names a filesystem can have: the usual one under the tests, failing ones, and odd ones played.

Real ones that are odd are in e2e/test_filesystems.py.
"""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.storage import probe
from flyx.storage.probe import NameProbe
from tests.storage.support import mounted

NAMES = st.binary(min_size=1, max_size=255).map(
    lambda name: os.fsdecode(name.translate(None, b"/\0") or b"x")
)

ODD = [
    "a:b",
    "a|b?",
    "aux",
    "aux.c",
    "R.E.M.",
    "blank ",
    "Icon\r",
    "\udce9t\udce9",
    "h\u00e9",
    "e\u0301",
    "\u6f22",
]


@contextmanager
def probe_of(directory: Path) -> Iterator[NameProbe]:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with NameProbe(handle) as probe:
            yield probe
    finally:
        os.close(handle)


@given(name=NAMES)
def test_a_usual_filesystem_holds_whatever_bytes_a_name_has(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    directory = tmp_path_factory.getbasetemp()
    with probe_of(directory) as probe:
        assert probe.holds(name) == (name not in {".", ".."})
    assert not [left for left in os.listdir(directory) if left.startswith(".flyx")]


def test_what_no_filesystem_has_for_a_name_is_held_by_none(tmp_path: Path) -> None:
    with probe_of(tmp_path) as probe:
        for name in ("", ".", "..", "a/b", "a\0b", "\ud800", "x" * 256, "\u00e9" * 128):
            assert not probe.holds(name)


def test_a_usual_filesystem_tells_case_and_forms_apart(tmp_path: Path) -> None:
    with probe_of(tmp_path) as probe:
        assert probe.distinguishes_case
        assert probe.distinguishes_forms


def test_common_names_are_not_tried() -> None:
    with NameProbe(-1) as probe:
        assert all(probe.holds(name) for name in ("README.md", ".profile", "a b (1).tar.gz", "x" * 100))


def test_each_oddity_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with probe_of(tmp_path) as probe:
        names = [*ODD, "x" * 200]
        assert all(map(probe.holds, names))
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", None)
            assert all(map(probe.holds, names))
            # Others that are odd in the same ways, and shorter ones.
            assert all(map(probe.holds, ["con.txt", "::", "tab\t", "\udcff", "\u00e8" * 99, "\u6f23\u6f24."]))


def test_nothing_stays_and_what_was_found_out_can_still_be_asked(tmp_path: Path) -> None:
    with probe_of(tmp_path) as probe:
        assert all(map(probe.holds, ODD))
        (made,) = tmp_path.iterdir()
        assert made.stat().st_mode & 0o777 == 0o700
        assert list(made.iterdir()) == []
    assert list(tmp_path.iterdir()) == []
    assert all(map(probe.holds, ODD))
    probe.close()


# Filesystems that fail.


@pytest.mark.parametrize("options", ["ro", "size=1m,nr_inodes=1", "size=1m,nr_inodes=2"])
def test_where_nothing_can_be_tried_the_answers_are_those_of_a_usual_filesystem(
    tmp_path: Path, options: str
) -> None:
    with mounted(tmp_path / "disk", options):
        with probe_of(tmp_path / "disk") as probe:
            assert all(map(probe.holds, [*ODD, "x" * 255]))
            assert not probe.holds("x" * 256)
            assert probe.distinguishes_case
            assert probe.distinguishes_forms
        assert list((tmp_path / "disk").iterdir()) == []


def test_a_disk_that_fails_in_the_middle_refuses_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with probe_of(tmp_path) as probe:
        assert probe.holds("a:b")

        def fail(*args: Any, **kwargs: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", fail)
            assert probe.holds("a|b")
            assert probe.holds("x" * 255)
            assert not probe.holds("x" * 256)
            assert probe.distinguishes_case
    assert list(tmp_path.iterdir()) == []


def test_another_directory_in_place_of_the_one_to_try_names_in_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_bytes(b"mine")
    make = os.mkdir

    def mkdir(name: str, mode: int, *, dir_fd: int) -> None:
        make(name, mode, dir_fd=dir_fd)
        (tmp_path / name).rmdir()
        mine.rename(tmp_path / name)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with probe_of(tmp_path) as probe:
        assert probe.holds("a:b")
    (there,) = tmp_path.iterdir()
    assert os.listdir(there) == ["file"]


# Filesystems with ideas of their own, played.


class Opinionated:
    """Has another name for some, and refuses those for which it has none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name_for: Callable[[str], str | None]) -> None:
        self._name_for = name_for
        for call in ("open", "stat", "unlink"):
            monkeypatch.setattr(os, call, self._renaming(getattr(os, call)))

    def _renaming(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def renaming(name: Any, *args: Any, **kwargs: Any) -> Any:
            if name != "." and kwargs.get("dir_fd") is not None:
                there = self._name_for(name)
                if there is None:
                    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
                name = there
            return call(name, *args, **kwargs)

        return renaming


def unless(refused: str) -> Callable[[str], str | None]:
    return lambda name: None if set(refused) & set(name) else name


@pytest.mark.parametrize(
    ("name_for", "refused"),
    [
        (unless(':|?*<>"\\'), ["a:b", "a|b?", "what?.txt"]),
        (lambda name: name.rstrip(". "), ["R.E.M.", "blank ", "x."]),
        (lambda name: unicodedata.normalize("NFD", name), ["h\u00e9", "\u00e9", "\ud55c"]),
        (lambda name: name.replace("\r", "?"), ["Icon\r"]),
        (
            lambda name: None if name.lower().startswith("aux") else name,
            ["aux", "aux.c", "NUL", "com1.tar.gz"],
        ),
        (lambda name: name if name.isprintable() else None, ["\udce9t\udce9", "Icon\r", "caf\udce9"]),
        (lambda name: name if len(os.fsencode(name)) <= 143 else None, ["x" * 144, "\u00e9" * 72]),
    ],
    ids=["NTFS", "vfat", "HFS+", "a server", "CIFS", "UTF-8 only", "eCryptfs"],
)
def test_names_that_a_filesystem_refuses_or_changes_are_not_held_and_others_are(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name_for: Callable[[str], str | None],
    refused: list[str],
) -> None:
    Opinionated(monkeypatch, name_for)
    with probe_of(tmp_path) as probe:
        assert not any(map(probe.holds, refused))
        others = [name for name in [*ODD, "x" * 143] if name_for(name) == name]
        assert len(others) > 3
        assert all(map(probe.holds, others))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_filesystem_that_folds_case_or_forms_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Literal["NFC", "NFD"]
) -> None:
    with monkeypatch.context() as patch:
        Opinionated(patch, str.lower)
        with probe_of(tmp_path) as probe:
            assert (probe.distinguishes_case, probe.distinguishes_forms) == (False, True)
    Opinionated(monkeypatch, lambda name: unicodedata.normalize(form, name))
    with probe_of(tmp_path) as probe:
        assert (probe.distinguishes_case, probe.distinguishes_forms) == (True, False)
    assert list(tmp_path.iterdir()) == []


@given(st.text(st.sampled_from("aZ0._-~ conauxlptCOM1:K\u212aé\n"), max_size=8) | st.text(max_size=8))
def test_a_name_that_is_taken_for_plain_has_no_oddity(name: str) -> None:
    if probe._PLAIN.fullmatch(name):
        assert name not in {"", ".", ".."}
        assert name.isascii()
        assert "/" not in name
        assert not list(probe._oddities(name))
