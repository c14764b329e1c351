"""What only an ordinary user meets: permissions that bind."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.effort import some

REPOSITORY = Path(__file__).parents[2]
NOBODY = 65534


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that an ordinary user owns, outside of those that belong to root alone."""
    with TemporaryDirectory() as name:
        if os.geteuid() == 0:
            os.chown(name, NOBODY, NOBODY)
        yield Path(name)


# Imports everything first: an ordinary user may be unable to read root's Python.
PREAMBLE = f"""
import os
from itertools import product
from pathlib import Path

from flyx.errors import InputError, StorageError
from flyx.storage import partial
from flyx.storage.scan import scan
from flyx.storage.writer import Destination
from flyx.transfer.disk import FinishFile, FinishTree, Held, PlanEntries, PlanTree
from flyx.transfer.manifest import BLOCK_SIZE
from tests.effort import some
from tests.storage.support import Offer, directory_entry, failure, file_entry, saved_in, succeed

if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
os.umask(0o022)
"""


def run(home: Path, program: str) -> list[str]:
    """Run a program as an ordinary user in its home, and return the lines that it prints."""
    ran = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(program)],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert ran.stderr == ""
    return ran.stdout.splitlines()


def test_directories_that_forbid_everything_are_still_completed(home: Path) -> None:
    printed = run(
        home,
        """
        modes = {"a": 0o500, "a/b": 0o000, "a/b/c": 0o300}
        entries = [directory_entry(path, mode=mode) for path, mode in modes.items()]
        entries.append(file_entry("a/b/c/f", mode=0o000))
        with Destination(Path("out")) as destination:
            succeed(destination, [PlanTree(("a",), 0), PlanEntries(0, entries), FinishFile(3), FinishTree()])
        """,
    )
    assert printed == []
    at, modes = home / "out", []
    for part in "abc":
        at /= part
        modes.append(at.stat().st_mode & 0o777)
        at.chmod(0o700)  # for an ordinary user, the way to the next
    assert modes == [0o500, 0o000, 0o300]
    assert (at / "f").stat().st_mode & 0o777 == 0


def test_what_may_not_be_read_is_left_out_before_anything_is_offered(home: Path) -> None:
    printed = run(
        home,
        """
        os.makedirs("tree/closed")
        os.mkdir("tree/names-only")
        for name in ("tree/secret", "tree/names-only/below", "tree/open"):
            open(name, "w").close()
        os.chmod("tree/secret", 0)
        os.chmod("tree/closed", 0)
        os.chmod("tree/names-only", 0o444)
        found = scan(["tree", "tree/secret"])
        print(*(entry.path for entry in found.manifest.entries))
        print(found.manifest.left_out)
        for path in ("tree/secret", "tree/closed", "tree/closed/below"):
            try:
                scan([path])
            except InputError as error:
                print(error)
        os.chmod("tree/closed", 0o700)
        os.chmod("tree/names-only", 0o700)
        """,
    )
    assert printed == [
        "tree tree/names-only tree/open",
        "LeftOut(named=(('tree/closed', 'file_unreadable'), ('tree/names-only/below', 'file_unreadable'), "
        "('tree/secret', 'file_unreadable'), ('secret', 'file_unreadable')), failures=4, others=0)",
        "tree/secret cannot be sent: it could not be read",
        "tree/closed cannot be sent: it could not be read",
        "Cannot read tree/closed/below: Permission denied",
    ]


def test_a_directory_that_may_not_be_written_is_found_before_anything_is_received(home: Path) -> None:
    printed = run(
        home,
        """
        os.mkdir("closed", 0o555)
        for path in ("closed", "closed/new"):
            print(failure(Destination(Path(path)).apply([PlanTree(("f",), 0)])))
        """,
    )
    assert printed == ["Cannot write to closed: permission denied"] * 2


def test_a_directory_that_becomes_closed_meanwhile_does_not_stop_the_others(home: Path) -> None:
    printed = run(
        home,
        """
        offer = Offer({"d": None, "d/f": b"x", "d/g": b"y"})
        with Destination(Path("out")) as destination:
            succeed(destination, [*offer.plan(), *offer.writes("d/f"), offer.finish("d/f")])
            os.chmod("out/d", 0o555)
            print(destination.apply([*offer.writes("d/g"), offer.finish("d/g")])[-1])
        os.chmod("out/d", 0o755)
        print(sorted(saved_in(Path("out"))))
        """,
    )
    assert printed == ["FileRefused(file=2, code='not_written')", "['d', 'd/f']"]


def test_a_saved_file_that_its_owner_may_not_read_is_known_again(home: Path) -> None:
    said = run(
        home,
        """
        offer = Offer({"f": b"f", "g": b"g"}, mode=0o200)
        with Destination(Path(".")) as destination:
            succeed(destination, [*offer.plan(), *offer.writes("f"), offer.finish("f")])
        with Destination(Path(".")) as destination:
            found = succeed(destination, offer.plan())[-1].found
            print([type(one).__name__ for one in found])
        """,
    )
    assert said == ["['Kept']"]


@pytest.mark.parametrize("mode", some([0o444, 0o000, 0o200, 0o555, 0o664, 0o666, 0o777]), ids=oct)
def test_a_run_killed_at_any_call_of_a_save_is_gone_on_with_whatever_the_mode_of_the_file(
    home: Path, mode: int
) -> None:
    """A file has its final mode before it has its final name."""
    said = run(
        home,
        f"""
        CALLS = ("open", "pwrite", "fchmod", "utime", "fsync", "link", "unlink", "rename", "chmod", "rmdir")
        os.umask(0)
        offer = Offer({{"f": os.urandom(3 * BLOCK_SIZE)}}, mode={mode})
        partial.CHECKPOINT_INTERVAL = 0.0

        def receive(out):
            with Destination(out) as destination:
                found = succeed(destination, offer.plan())[-1].found
                blocks = sum(len(one.digests) // 32 if isinstance(one, Held) else 9 for one in found)
                rest = [*offer.writes("f")[blocks:], offer.finish("f")] if blocks < 9 else []
                succeed(destination, [*rest, FinishTree()])
                return blocks

        def killed_at(call, out):
            pid = os.fork()
            if pid == 0:
                left = call

                def counted(function):
                    def count(*args, **kwargs):
                        nonlocal left
                        left -= 1
                        if left == 0:
                            os._exit(9)
                        return function(*args, **kwargs)
                    return count

                for name in CALLS:
                    setattr(os, name, counted(getattr(os, name)))
                try:
                    receive(out)
                    os._exit(0)
                finally:
                    os._exit(1)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        for call, times in product(some(range(1, 1000)), (1, 2)):
            out = Path(f"{{call}}, {{times}}")
            out.mkdir()
            if killed_at(call, out) == 0:
                break
            modes = [path.stat().st_mode & 0o777 for path in out.glob(".flyx/*/*.part")]
            if times == 2:
                killed_at(call, out)
            saved = (out / "f").exists()
            if saved and not any(out.glob(".flyx/*/journal")):
                continue  # It was about to end.
            blocks = receive(out)
            if saved or modes == [{mode}]:
                assert blocks >= 2, (call, modes, blocks)
            assert (out / "f").stat().st_mode & 0o777 == {mode}
            (out / "f").chmod(0o600)
            assert (out / "f").read_bytes() == offer.contents["f"]
            assert os.listdir(out) == ["f"]
        assert call > 30
        """,
    )
    assert said == []
