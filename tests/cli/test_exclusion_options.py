"""Options about what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyx.cli.exclusion_options import exclusions_of
from flyx.errors import InputError
from flyx.transfer.patterns import MAX_PATTERNS_SIZE


def test_without_options_nothing_is_excluded() -> None:
    assert not exclusions_of(None, None, False)
    assert not exclusions_of([], None, False)
    assert exclusions_of(None, None, True)
    assert exclusions_of(["x"], None, False)


def test_patterns_on_the_command_line_win_over_those_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "patterns"
    file.write_text("# what is made\n*.o\n\n")
    made = exclusions_of(["!keep.o"], file, False)
    assert made.patterns.verdict("a/b.o", is_directory=False) is True
    assert made.patterns.verdict("a/keep.o", is_directory=False) is False


@pytest.mark.parametrize("pattern", ["", " ", "#draft", "[1.jpg", "/", "!"])
def test_a_pattern_that_can_match_nothing_is_the_persons_error(pattern: str) -> None:
    with pytest.raises(InputError, match="can match nothing") as refused:
        exclusions_of(["*.tmp", pattern], None, False)
    assert refused.value.hint is not None


def test_a_file_of_patterns_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read --exclude-from .*missing: No such file"):
        exclusions_of(None, tmp_path / "missing", False)
    with pytest.raises(InputError, match="Is a directory"):
        exclusions_of(None, tmp_path, False)
    (tmp_path / "large").write_bytes(b"x" * (MAX_PATTERNS_SIZE + 1))
    with pytest.raises(InputError, match="too large"):
        exclusions_of(None, tmp_path / "large", False)
