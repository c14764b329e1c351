"""What the person is shown before the question."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.cli.offer import FEW, LISTED, MAX_POINTED_OUT, all_lines, pages, summarize
from flyx.transfer.manifest import Content, Entry, EntryKind, Manifest

BEFORE = [Entry(f"a{n:02}", EntryKind.FILE, 1, 0o644, 0) for n in range(LISTED)]
"""What fills the list that is always shown."""


def file(path: str, mode: int = 0o644) -> Entry:
    return Entry(path, EntryKind.FILE, 10, mode, 0)


def directory(path: str) -> Entry:
    return Entry(path, EntryKind.DIRECTORY, 0, 0o755, 0)


def after_the_list(*entries: Entry) -> list[str]:
    """The lines for these, behind more than is always shown."""
    lines = list(summarize(Manifest([*BEFORE, *entries])).lines)
    assert lines[LISTED + 1] == f"  and {len(entries):,} more; type a to see all"
    return lines[LISTED + 2 :]


def test_a_stream_has_no_size_and_a_text_no_name() -> None:
    entry = file("a\x1bb")
    stream = Manifest([Entry("a\x1bb", EntryKind.FILE, 0, 0o644, 0)], content=Content.STREAM)
    assert summarize(stream).lines == [
        "The sender offers a stream, of a size that is known at its end:",
        r"  a\x1bb",
    ]
    assert list(all_lines(stream)) == [r"  a\x1bb"]
    text = Manifest([entry], content=Content.TEXT)
    assert summarize(text).lines == ["The sender offers a text, 10 bytes:"]
    assert list(all_lines(text)) == []


def test_what_begins_with_a_dot_is_shown_wherever_it_is() -> None:
    assert after_the_list(
        directory("d"),
        file("d/plain"),
        file("d/.bashrc"),
        directory("d/.ssh"),
        file("d/.ssh/authorized_keys"),
        file("d/.ssh/deep/er"),
    ) == [
        "Among these begin with a dot, or can be run:",
        "  d/.bashrc  (10 bytes)",
        "  d/.ssh/",
        "  d/.ssh/authorized_keys  (10 bytes)",
        "  d/.ssh/deep/er  (10 bytes)",
    ]


def test_what_can_be_run_is_shown_wherever_it_is() -> None:
    assert after_the_list(directory("d"), file("d/run", 0o755), file("d/for-the-group", 0o610))[1:] == [
        "  d/run  (10 bytes)",
        "  d/for-the-group  (10 bytes)",
    ]


def test_what_is_harmless_is_counted_alone() -> None:
    assert after_the_list(directory("d"), file("d/a.b"), file("d/a..b")) == []


def test_large_directories_take_a_line_each_and_hide_no_name_with_a_dot() -> None:
    objects = [file(f"d/.git/objects/{n}") for n in range(1000)]
    programs = [file(f"bin/{n}", 0o755) for n in range(FEW + 1)]
    at_the_top = [file(f"run{n}", 0o755) for n in range(FEW + 1)]
    assert after_the_list(*objects, file("d/.git/.hidden"), *programs, *at_the_top)[1:] == [
        "  ./  (6 files, 60 bytes, can be run)",
        "  d/.git/  (1,000 files, 10.0 kB)",
        "  bin/  (6 files, 60 bytes, can be run)",
        "  d/.git/.hidden  (10 bytes)",
    ]


def test_a_flood_of_such_names_is_bounded_and_counted() -> None:
    lines = after_the_list(*[file(f".{n}") for n in range(5000)])
    assert len(lines) == MAX_POINTED_OUT + 1
    assert lines[-1] == f"  and {5000 - MAX_POINTED_OUT + 1:,} more of these"


WELL_KNOWN = [
    "d/z/.ssh/authorized_keys",
    ".bashrc",
    "home/.PROFILE",
    "home/.config/autostart/start.desktop",
    "home/.config/systemd/user/start.service",
    "a/b/c/d/.git/hooks/post-checkout",
    "a/b/c/d/.git/config",
    ".github/workflows/ci.yml",
]


@pytest.mark.parametrize("path", WELL_KNOWN)
def test_no_flood_hides_what_programs_are_known_to_act_on(path: str) -> None:
    nearer_the_top = [file(f".{n:03}") for n in range(500)]
    beside = [file(f"home/.config/{n}") for n in range(100)]
    beside += [file(f"a/b/c/d/.git/objects/{n}") for n in range(100)]
    beside += [file(f".github/{n}") for n in range(50)]
    after = [file(f"d/e/.{n}") for n in range(500)]
    assert f"  {path}  (10 bytes)" in after_the_list(*nearer_the_top, *beside, file(path), *after)


@pytest.mark.parametrize("path", ["d/.hidden", "d/run"])
def test_what_is_near_the_top_is_shown_first(path: str) -> None:
    deeper = [file(f"d/e/f{n}/.x") for n in range(1500)]
    assert f"  {path}  (10 bytes)" in after_the_list(*deeper, file(path, 0o755))


def test_a_flood_between_files_of_one_directory_does_not_change_their_number() -> None:
    ssh = [file(f"d/.ssh/{n}") for n in range(20)]
    flood = [file(f".{n}") for n in range(3000)]
    lines = after_the_list(*ssh[:7], *flood[:1500], *ssh[7:], *flood[1500:])
    assert lines[1] == "  d/.ssh/  (20 files, 200 bytes)"
    assert lines[-1] == f"  and {3000 - MAX_POINTED_OUT + 2:,} more of these"


def test_a_flood_of_such_names_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        manifest = Manifest(file(f".{n}") for n in range(20_000))
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        summary = summarize(manifest)
        assert summary.left_out == 20_000 - LISTED - MAX_POINTED_OUT + 1
        assert tracemalloc.get_traced_memory()[1] - before < 1_000_000
    finally:
        tracemalloc.stop()


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 10))
def test_what_could_matter_and_is_not_shown_is_counted(hidden: int, programs: int, harmless: int) -> None:
    entries = [*BEFORE, *[file(f"{n}/.x") for n in range(hidden)]]
    entries += [file(f"{n}/p", 0o755) for n in range(programs)] + [file(f"x{n}") for n in range(harmless)]
    summary = summarize(Manifest(entries))
    shown = [line for line in summary.lines if line.endswith(("/.x  (10 bytes)", "/p  (10 bytes)"))]
    assert len(shown) + summary.left_out == hidden + programs
    assert bool(summary.left_out) == (hidden + programs > MAX_POINTED_OUT - 1)
    assert summary.is_cut == (len(entries) > LISTED)


PATHS = st.lists(
    st.lists(st.sampled_from([".x", "y", "z.z", ".", "é", "w" * 30]), min_size=1, max_size=4).map("/".join),
    max_size=60,
    unique=True,
)


@given(PATHS, st.sampled_from([0o644, 0o755]))
def test_no_name_that_begins_with_a_dot_goes_unmentioned(paths: list[str], mode: int) -> None:
    manifest = Manifest([file(path, mode) for path in paths])
    summary = summarize(manifest)
    assert summary.is_cut == (len(paths) > LISTED)
    assert not summary.left_out
    shown = [line[2:].partition("  (")[0].rstrip("/") for line in summary.lines]
    for path in paths:
        parts = path.split("/")
        for n, part in enumerate(parts):
            if part.startswith("."):
                name = "/".join(parts[: n + 1])
                assert any(line == name or line.startswith(f"{name}/") for line in shown), (name, summary)
    assert [line[2:].partition("  (")[0] for line in all_lines(manifest)] == paths


@given(st.lists(st.text("aé世", max_size=50), max_size=50), st.integers(1, 10), st.integers(1, 30))
def test_pages_fill_the_screen_and_lose_no_line(lines: list[str], rows: int, columns: int) -> None:
    shown = list(pages(lines, rows, columns))
    assert [line for page in shown for line in page] == lines
    assert all(shown)
    for page in shown:
        # A wide character takes two columns.
        taken = sum(max(1, -(-sum(1 + (c == "世") for c in line) // columns)) for line in page)
        assert taken <= rows or len(page) == 1
