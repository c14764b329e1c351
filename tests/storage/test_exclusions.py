"""What a person excludes of what is sent, held against what git leaves out of the same trees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flyx.errors import InputError
from flyx.storage.exclusions import Exclusions
from flyx.storage.links import Links
from flyx.storage.scan import Scan, scan
from flyx.transfer.left_out import NOTHING
from flyx.transfer.manifest import EntryKind
from flyx.transfer.patterns import MAX_PATTERNS_SIZE, Patterns, pattern_lines
from tests.git import make_repository, needs_git, run_git


def excluding(*patterns: str, gitignore: bool = False) -> Exclusions:
    return Exclusions(Patterns(patterns), gitignore)


def scan_with(exclusions: Exclusions, *paths: Path, links: Links = Links.KEEP) -> Scan:
    return scan(paths, links, exclusions=exclusions)


def paths_of(found: Scan) -> list[str]:
    return [entry.path for entry in found.manifest.entries]


def files_of(found: Scan) -> set[str]:
    return {
        entry.path.partition("/")[2]
        for entry in found.manifest.entries
        if entry.kind is not EntryKind.DIRECTORY
    }


def test_what_is_excluded_is_as_if_it_were_not_there(tree: Path) -> None:
    os.mkfifo(tree / "sub" / "fifo")
    found = scan_with(excluding("sub/", "b.*"), tree)
    assert paths_of(found) == ["tree", "tree/a.txt", "tree/empty"]
    assert found.manifest.total_bytes == 2
    # Not even what could not have been sent.
    assert found.manifest.left_out == NOTHING
    assert list(found.left_out_texts()) == []
    # A directory is one, whatever is in it.
    assert found.excluded == 2


def test_what_is_excluded_is_the_same_manifest_as_what_is_not_there(tree: Path) -> None:
    found = scan_with(excluding("zero", "b.*"), tree)
    times = {path: path.stat().st_mtime_ns for path in [tree, tree / "sub" / "deep"]}
    (tree / "b.txt").unlink()
    (tree / "sub" / "deep" / "zero").unlink()
    for path, time in times.items():
        os.utime(path, ns=(0, time))
    assert scan([tree]).manifest.id == found.manifest.id


def test_what_cannot_be_sent_can_be_excluded(tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    (tree / "link").symlink_to("/outside")
    (tree / ".flyx").mkdir()
    found = scan_with(excluding("fifo", "link", ".flyx"), tree)
    assert found.manifest.left_out == NOTHING
    assert found.excluded == 3


def test_a_pattern_is_judged_against_the_path_below_each_directory_that_is_named(tree: Path) -> None:
    other = tree.parent / "other"
    (other / "sub").mkdir(parents=True)
    (other / "a.txt").touch()
    found = scan_with(excluding("/a.txt", "sub/deep", "tree/b.txt"), tree, other)
    assert paths_of(found) == ["tree", "tree/b.txt", "tree/empty", "tree/sub", "other", "other/sub"]


def test_a_pattern_without_a_slash_excludes_what_is_named_as_well(tree: Path) -> None:
    named = [tree / "a.txt", tree / "b.txt", tree / "sub", tree / "empty"]
    found = scan_with(excluding("b.*", "empty/", "/sub"), *named)
    assert paths_of(found) == ["a.txt", "sub", "sub/deep", "sub/deep/zero"]
    assert found.excluded == 2


def test_a_link_to_what_is_named_and_excluded_leads_outside(tree: Path) -> None:
    (tree / "sub" / "link").symlink_to("../empty")
    assert "sub/link" in paths_of(scan([tree / "sub", tree / "empty"]))
    assert "sub/link" not in paths_of(scan_with(excluding("empty"), tree / "sub", tree / "empty"))


def test_if_all_is_excluded_that_is_the_persons_error(tree: Path) -> None:
    with pytest.raises(InputError, match="all that was named is excluded") as refused:
        scan_with(excluding("*"), tree)
    assert refused.value.hint is not None
    assert "*" in refused.value.hint


@pytest.mark.parametrize(("links", "is_sent"), [(Links.KEEP, True), (Links.FOLLOW, False)])
def test_a_link_to_a_directory_is_one_only_where_links_are_followed(
    tree: Path, links: Links, is_sent: bool
) -> None:
    (tree / "link").symlink_to("sub")
    found = scan_with(excluding("link/"), tree, links=links)
    assert ("tree/link" in paths_of(found)) is is_sent


@pytest.fixture
def ignoring(tree: Path) -> Path:
    """A tree with .gitignore files."""
    (tree / ".git").mkdir()
    (tree / ".git" / "config").touch()
    (tree / ".gitignore").write_bytes(b"\xef\xbb\xbf*.txt\r\n!keep.txt\nbuild/\n")
    (tree / "sub" / ".gitignore").write_bytes(b"!a.txt\n/local\n")
    for name in [
        "keep.txt",
        "sub/a.txt",
        "sub/b.txt",
        "sub/local",
        "sub/deep/local",
        "build/x",
        "sub/build/x",
    ]:
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).touch()
    return tree


def test_gitignore_files_are_heeded_where_they_are(ignoring: Path) -> None:
    found = scan_with(excluding(gitignore=True), ignoring)
    assert files_of(found) == {
        ".gitignore",
        "keep.txt",
        "sub/.gitignore",
        "sub/a.txt",
        "sub/deep/local",
        "sub/deep/zero",
    }
    # .git, a.txt, b.txt, build, sub/b.txt, sub/build, sub/local
    assert found.excluded == 7


def test_patterns_win_over_gitignore_files(ignoring: Path) -> None:
    found = scan_with(excluding("!b.txt", "keep.txt", gitignore=True), ignoring)
    assert {"b.txt", "sub/b.txt"} <= files_of(found)
    assert "keep.txt" not in files_of(found)


def test_without_gitignore_such_files_are_as_any_others(ignoring: Path) -> None:
    assert len(files_of(scan([ignoring]))) == 13
    assert scan([ignoring]).excluded == 0


def test_no_pattern_brings_git_s_own_files_back(ignoring: Path) -> None:
    (ignoring / ".gitignore").write_text("!.git\n")
    assert ".git/config" not in files_of(scan_with(excluding("!*/", gitignore=True), ignoring))


def test_an_excluded_directory_is_not_entered(ignoring: Path) -> None:
    (ignoring / "build" / ".gitignore").write_bytes(b"#" * (MAX_PATTERNS_SIZE + 1))
    assert not any("build" in path for path in files_of(scan_with(excluding(gitignore=True), ignoring)))


def test_a_gitignore_file_that_cannot_be_heeded_ends_the_scan(ignoring: Path) -> None:
    (ignoring / "sub" / ".gitignore").write_bytes(b"#" * (MAX_PATTERNS_SIZE + 1))
    with pytest.raises(InputError, match=r"sub/\.gitignore is too large") as refused:
        scan_with(excluding(gitignore=True), ignoring)
    assert refused.value.hint is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_gitignore_file_that_may_not_be_read_ends_the_scan(ignoring: Path) -> None:
    (ignoring / "sub" / ".gitignore").chmod(0)
    with pytest.raises(InputError, match=r"cannot heed .*sub/\.gitignore: Permission denied"):
        scan_with(excluding(gitignore=True), ignoring)


@pytest.mark.parametrize("kind", ["link", "directory", "FIFO", "dangling link"])
def test_only_a_file_is_a_gitignore_file(tree: Path, kind: str) -> None:
    (tree.parent / "patterns").write_text("*\n")
    match kind:
        case "link":
            (tree / ".gitignore").symlink_to("../patterns")
        case "dangling link":
            (tree / ".gitignore").symlink_to("nowhere")
        case "directory":
            (tree / ".gitignore").mkdir()
        case "FIFO":
            os.mkfifo(tree / ".gitignore")
    assert {"a.txt", "b.txt"} <= files_of(scan_with(excluding(gitignore=True), tree))


# Every file of three levels, of which few names let patterns meet.
DIRECTORIES = ["", "a", "b", "a/a", "a/b", "b/a", "b/b", "a/a/b", "b/b/a"]
FILES = sorted(f"{above}/{name}".lstrip("/") for above in DIRECTORIES for name in ["x", "x.b", "ab", "keep"])

_LINES = st.sampled_from(
    "a b x ab keep *.b a* ? * a/ b/ */ /a /b/ /x /* a/b a/* b/** **/b a/**/x /a/*/x [ab] x.[!a] #x".split()
)
_LISTS = st.lists(st.builds(str.__add__, st.sampled_from(["", "", "!"]), _LINES), max_size=4)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("git") / "tree"
    make_repository(repository, FILES)
    return repository


@needs_git
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(_LISTS, st.dictionaries(st.sampled_from(DIRECTORIES), _LISTS, max_size=4))
@example([], {"": ["*.b", "keep"], "a": ["!b/"], "a/b": ["!keep"]})
@example(["!x"], {"": ["*"], "b": ["!*"]})
@example(["a/b"], {"a": ["!b"], "b": ["/a", "!x"]})
def test_what_git_would_track_is_sent(
    repository: Path, patterns: list[str], files: dict[str, list[str]]
) -> None:
    # What is named is not part of a repository for git: patterns for it alone are another test's.
    written = [repository / directory / ".gitignore" for directory in files]
    for file, lines in zip(written, files.values(), strict=True):
        file.write_text("\n".join(lines))
    own = [f"--exclude={pattern}" for pattern in patterns]
    tracked = run_git(repository, "ls-files", "--others", "-z", *own, "--exclude-per-directory=.gitignore")
    exclusions = excluding(*patterns, gitignore=True)
    try:
        if exclusions.patterns.name_verdict("tree", is_directory=True):
            with pytest.raises(InputError):
                scan_with(exclusions, repository)
        else:
            assert files_of(scan_with(exclusions, repository)) == tracked
    finally:
        for file in written:
            file.unlink()


def test_a_file_of_patterns_has_lines_of_any_system() -> None:
    assert pattern_lines(b"\xef\xbb\xbfa\r\nb\n\xff") == ["a", "b", "\udcff"]
