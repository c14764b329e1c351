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

from tests.storage.support import ENVIRONMENT_OF_OTHERS
from tests.thoroughness import some

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
import shutil
from itertools import product
from pathlib import Path

from flyx.errors import InputError, StorageError
from flyx.storage import partial
from flyx.storage.scan import scan
from flyx.storage.writer import Destination, ExistingPolicy
from flyx.transfer.disk import FinishFile, FinishTree, BlocksKept, PlanEntries, PlanTree
from flyx.transfer.manifest import BLOCK_SIZE, Manifest
from tests.thoroughness import some
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
        env={**ENVIRONMENT_OF_OTHERS, "PYTHONPATH": str(REPOSITORY)},
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


def test_a_directory_that_becomes_closed_meanwhile_is_written_to_and_closed_again(home: Path) -> None:
    printed = run(
        home,
        """
        offer = Offer({"d": None, "d/f": b"x", "d/g": b"y"})
        with Destination(Path("out")) as destination:
            succeed(destination, [*offer.plan(), *offer.writes("d/f"), offer.finish("d/f")])
            os.chmod("out/d", 0o555)
            succeed(destination, [*offer.writes("d/g"), offer.finish("d/g")])
        print(oct(os.stat("out/d").st_mode & 0o777), sorted(saved_in(Path("out"))))
        """,
    )
    assert printed == ["0o555 ['d', 'd/f', 'd/g']"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")
def test_a_directory_of_another_user_does_not_stop_the_others(home: Path) -> None:
    (home / "d").mkdir(mode=0o755)
    printed = run(
        home,
        """
        offer = Offer({"d": None, "d/f": b"x"})
        with Destination(Path(".")) as destination:
            print(destination.apply(offer.everything())[-2])
        """,
    )
    assert printed == ["FileRefused(file=1, code='not_written')"]
    assert list((home / "d").iterdir()) == []


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
                blocks = sum(len(one.digests) // 32 if isinstance(one, BlocksKept) else 9 for one in found)
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


READ_ONLY = """
modes = {"t": 0o555, "t/a": 0o500, "t/a/b": 0o000, "t/a/b/c": 0o555, "t/c": 0o600, "t/d": 0o300}

def offer(content):
    contents = {path: None for path in modes} | {f"{path}/f": content for path in modes}
    offer = Offer(contents, mode=0o444)
    for index, (path, mode) in enumerate(modes.items()):
        offer.entries[index] = directory_entry(path, mode=mode)
    offer.manifest = Manifest(offer.entries)
    return offer

def receive(content, stop=None):
    with Destination(Path("out"), ExistingPolicy.OVERWRITE) as destination:
        succeed(destination, [*offer(content).plan(), *offer(content).files(), FinishTree()][:stop])

def modes_now():
    found = {}
    def look(path):
        mode = os.stat(path).st_mode & 0o777
        if os.path.isdir(path):
            os.chmod(path, 0o700)
            found[path[4:]] = mode
            for name in sorted(os.listdir(path)):
                look(f"{path}/{name}")
            os.chmod(path, mode)
    look("out/t")
    return found
"""


def test_a_tree_of_closed_directories_arrives_again_and_they_are_closed_again(home: Path) -> None:
    printed = run(
        home,
        READ_ONLY
        + """
receive(b"1")
assert modes_now() == modes, modes_now()
receive(b"2")
assert modes_now() == modes, modes_now()
os.system("chmod -R u+rwx out")
print({path.read_bytes() for path in Path("out").rglob("f")}, len(list(Path("out").rglob("f"))))
""",
    )
    assert printed == ["{b'2'} 6"]


def test_directories_that_were_opened_up_are_closed_again_however_the_transfer_ends(home: Path) -> None:
    printed = run(
        home,
        READ_ONLY
        + """
receive(b"1")
for stop in range(2, 15):
    receive(b"2", stop)
    # Only the directories go on.
    shutil.rmtree("out/.flyx", ignore_errors=True)
    assert modes_now() == modes, (stop, modes_now())
def fail():
    with Destination(Path("out"), ExistingPolicy.OVERWRITE) as destination:
        succeed(destination, [*offer(b"3").plan(), *offer(b"3").files()])
        raise KeyboardInterrupt
try:
    fail()
except KeyboardInterrupt:
    print("interrupted")
assert modes_now() == modes, modes_now()
""",
    )
    assert printed == ["interrupted"]


def test_after_a_kill_the_next_run_closes_what_was_opened_up(home: Path) -> None:
    printed = run(
        home,
        READ_ONLY
        + """
receive(b"1")
if os.fork() == 0:
    destination = Destination(Path("out"), ExistingPolicy.OVERWRITE)
    succeed(destination, [*offer(b"2").plan(), *offer(b"2").files()[:10]])
    os._exit(0)
os.wait()
print(modes_now() == modes)
receive(b"2")
assert modes_now() == modes, modes_now()
""",
    )
    assert printed == ["False"]


def test_a_directory_that_its_owner_closed_meanwhile_or_that_is_anothers_is_left_as_it_is(home: Path) -> None:
    printed = run(
        home,
        READ_ONLY
        + """
receive(b"1")
with Destination(Path("out"), ExistingPolicy.OVERWRITE) as destination:
    succeed(destination, [*offer(b"2").plan(), *offer(b"2").files()])
    os.chmod("out/t/a", 0o711)
print(oct(os.stat("out/t/a").st_mode & 0o777))
""",
    )
    assert printed == ["0o711"]


def test_after_a_kill_while_modes_are_set_the_next_run_sets_all_of_them(home: Path) -> None:
    printed = run(
        home,
        READ_ONLY
        + """
for left in range(1, 20):
    if os.fork() == 0:
        fchmod = os.fchmod
        def counted(handle, mode):
            global left
            left -= 1
            if left == 0:
                os._exit(9)
            fchmod(handle, mode)
        os.fchmod = counted
        receive(b"1")
        os._exit(0)
    if os.waitstatus_to_exitcode(os.wait()[1]) == 0:
        break
    receive(b"1")
    assert modes_now() == modes, (left, modes_now())
    os.system("chmod -R u+rwx out; rm -r out")
print(left > 8)
""",
    )
    assert printed == ["True"]
