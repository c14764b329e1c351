"""What a process sets for itself."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from flyx.cli.process import raise_file_limit

_FAULTS = """
import gc, platform, resource
from flyx.cli.process import tune_gc, tune_malloc

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        [bytes(1 << 20) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
plain = faults()
tune_malloc()
faults()
tuned = faults()
assert platform.libc_ver()[0] != "glibc" or tuned < plain / 4, (plain, tuned)
gc.disable()
tune_gc()
assert gc.isenabled() and gc.get_freeze_count()
"""


def test_a_tuned_process_gives_no_memory_back_that_it_needs_again_and_collects_what_it_drops() -> None:
    subprocess.run([sys.executable, "-c", _FAULTS], check=True)


@pytest.fixture
def files() -> Iterator[int]:
    """The most files that this process may have open; 100 until it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("this system has no such limit")
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_may_have_as_many_files_open_as_it_needs_and_no_fewer_than_before(files: int) -> None:
    for enough, expected in [(300, 300), (200, 300), (files + 1, files)]:
        raise_file_limit(enough)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (expected, files)


def test_a_process_may_have_as_many_files_open_as_the_system_allows(files: int) -> None:
    raise_file_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (files, files)
