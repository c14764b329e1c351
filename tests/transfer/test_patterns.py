"""Patterns, held against git itself."""

from __future__ import annotations

import time
from itertools import product
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flyx.transfer.patterns import NO_PATTERNS, Patterns
from tests.git import ignored, make_repository, needs_git

# Names that patterns of the same letters are likely to match; every file and directory of three levels.
_NAMES = ["a", "b", "ab", "a.b", "[a]", "a b ", "!a", "#a", "a-"]
DIRECTORIES = ["a", "b", "ab", "a/a", "a/b", "b/a", "b/ab", "a/a/b", "a/b/a", "b/ab/b", "a.b", "[a]"]
FILES = sorted(
    {f"{above}{name}" for above, name in product(["", *(f"{d}/" for d in DIRECTORIES)], _NAMES)}
    - set(DIRECTORIES)
)
PATHS = [*DIRECTORIES, *FILES]


def is_chosen(patterns: Patterns, path: str) -> bool:
    """Whether a path or a directory above is chosen: what is in a chosen directory is not looked at."""
    parts = path.split("/")
    above = ("/".join(parts[:n]) for n in range(1, len(parts)))
    return any(patterns.verdict(each, is_directory=True) for each in above) or bool(
        patterns.verdict(path, is_directory=path in DIRECTORIES)
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("git") / "tree"
    make_repository(tree, FILES, DIRECTORIES)
    return tree


_BRACKETS = ["[ab]", "[!a]", "[^b]", "[a-z]", "[z-a]", "[]a]", "[!]a]", "[a-]", "[[:alpha:]]", "[[:punct:]]"]
_BRACKETS += ["[[:none:]]", "[\\]a]", "[a-\\b]", "[[]", "[", "[a", "[!", "[:a:]", "[--0]", "[[:alpha:]-z]"]
_PIECES = st.sampled_from(
    ["a", "b", "ab", ".", "-", "*", "?", "\\a", "\\*", "\\[a]", "!", "#", " ", *_BRACKETS]
)
# `**` stands between slashes: what git makes of it elsewhere depends on where its memory is.
_SEGMENTS = st.one_of(st.just("**"), st.lists(_PIECES, min_size=1, max_size=3).map("".join)).filter(
    lambda segment: segment == "**" or "**" not in segment
)
PATTERNS = st.builds(
    lambda negated, slash, segments, end: f"{negated}{slash}{'/'.join(segments)}{end}",
    st.sampled_from(["", "", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(_SEGMENTS, min_size=1, max_size=3),
    st.sampled_from(["", "", "", "/", " ", "\\ ", "  ", "\\", "\t", "//", "\\\\ "]),
)


@needs_git
@given(st.lists(PATTERNS, min_size=1, max_size=4))
@example(["*.b", "!a/"])
@example(["a/**", "!a/b"])
@example(["/*", "!/a", "a/*"])
@example(["*", "!*/", "!b"])
@example(["**/a/**/b", "!**"])
@example(["", " ", "!", "/", "!/", "//", "#a", "\\#a", "\\!a", "!!a"])
def test_patterns_choose_what_git_ignores(repository: Path, lines: list[str]) -> None:
    patterns = Patterns(lines)
    chosen = {path for path in PATHS if is_chosen(patterns, path)}
    assert chosen == ignored(repository, PATHS, {"": "\n".join(lines).encode()})


@pytest.mark.parametrize(
    ("line", "path", "is_directory", "expected"),
    [
        ("*.jpg", "2024/1.jpg", False, True),
        ("*.jpg", "2024/1.JPG", False, None),
        ("!*.jpg", "2024/1.jpg", False, False),
        ("/raw", "raw", True, True),
        ("/raw", "2024/raw", True, None),
        ("raw/", "2024/raw", False, None),
        ("2024/raw", "2024/raw/1.jpg", False, None),
        ("?.jpg", "é.jpg", False, True),
        ("[à-ü].jpg", "é.jpg", False, True),
        ("a*", "a\nb", False, True),
        ("\udcff*", "\udcff.jpg", False, True),
        ("a**b", "axxb", False, True),
    ],
)
def test_a_pattern_has_a_verdict_on_a_path(
    line: str, path: str, is_directory: bool, expected: bool | None
) -> None:
    assert Patterns([line]).verdict(path, is_directory=is_directory) is expected


def test_what_is_named_is_judged_by_patterns_without_a_slash_alone() -> None:
    patterns = Patterns(["/a", "**/a", "a/b", "b", "c/"])
    assert patterns.name_verdict("a", is_directory=True) is None
    assert patterns.name_verdict("b", is_directory=False) is True
    assert patterns.name_verdict("c", is_directory=True) is True
    assert patterns.name_verdict("c", is_directory=False) is None


def test_lists_that_can_match_nothing_are_empty() -> None:
    assert not NO_PATTERNS
    assert not Patterns(["", "# a", "[", "a\\", "[[:none:]]", "/"])
    assert Patterns(["a"])


@pytest.mark.parametrize(
    "line",
    ["*a" * 60 + "b", "/" + "**/*a/" * 40 + "b", "**/" * 60 + "b", "[a-z]*" * 60 + "!", "?*" * 100 + "/b"],
)
def test_no_pattern_takes_long(line: str) -> None:
    patterns = Patterns([line])
    begun = time.monotonic()
    for path in ["a" * 255, "a/" * 128 + "a", "/".join(["a" * 20] * 128)]:
        assert patterns.verdict(path, is_directory=True) is None
    # Some milliseconds, where matching that tried all would outlive the sun.
    assert time.monotonic() - begun < 5


def test_many_patterns_are_matched_at_once() -> None:
    patterns = Patterns([f"*.{n}" for n in range(1000)] + [f"name {n}" for n in range(10_000)])
    assert patterns.verdict("a/b/c.999", is_directory=False)
    assert patterns.verdict("a/b/name 9999", is_directory=False)
    assert patterns.verdict("a/b/name", is_directory=False) is None
