"""A directory that several users may write to, such as /tmp: none of them gets in the way of another."""

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
from tests.thoroughness import share

REPOSITORY = Path(__file__).parents[2]
VICTIM, OTHER = 64001, 64002

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A sticky directory, outside of those that belong to root alone."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o1777)
        yield Path(name)


# Imports everything first: an ordinary user may be unable to read root's Python.
PREAMBLE = """
import os, sys
from contextlib import suppress
from pathlib import Path

from flyx.errors import StorageError
from flyx.storage.writer import Destination
from flyx.transfer.disk import EntriesPlanned, FinishTree, BlocksKept
from flyx.transfer.manifest import BLOCK_SIZE
from tests.storage.support import Offer, failure, succeed

os.setgroups([])
os.setresgid(USER, USER, USER)
os.setresuid(USER, USER, USER)
os.umask(0o022)

def offer(name):
    return Offer({name: name.encode() * BLOCK_SIZE * 2})

def held(name):
    with Destination(Path(".")) as destination:
        found = succeed(destination, offer(name).plan())[-1].found
        return [len(one.digests) // 32 for one in found]

def begin(name):
    with Destination(Path(".")) as destination:
        succeed(destination, [*offer(name).plan(), *offer(name).writes(name)[:1]])

def complete(name):
    with Destination(Path(".")) as destination:
        found = succeed(destination, offer(name).plan())[-1].found
        rest = offer(name).writes(name)[len(found):]
        succeed(destination, [*rest, offer(name).finish(name), FinishTree()])
"""


def start(user: int, directory: Path, program: str) -> subprocess.Popen[str]:
    """Start a program as a user in a directory."""
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE.replace("USER", str(user)) + textwrap.dedent(program)],
        cwd=directory,
        env={**ENVIRONMENT_OF_OTHERS, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(user: int, directory: Path, program: str) -> list[str]:
    """Run a program as a user in a directory, and return the lines that it prints."""
    said, complaint = start(user, directory, program).communicate(timeout=60)
    assert complaint == ""
    return said.splitlines()


def test_two_users_each_leave_and_complete_a_transfer_in_one_directory(shared: Path) -> None:
    run(OTHER, shared, "begin('a')")
    run(VICTIM, shared, "begin('b')")
    assert sorted(os.listdir(shared)) == [".flyx", f".flyx-{VICTIM}"]
    # Each finds its own, and only that.
    assert run(VICTIM, shared, "print(held('a'), held('b'))") == ["[] [1]"]
    assert run(OTHER, shared, "print(held('a'), held('b'))") == ["[1] []"]
    run(OTHER, shared, "complete('a')")
    # The usual name is free again; what is under the other one is found all the same.
    run(VICTIM, shared, "begin('c')")
    assert run(VICTIM, shared, "print(held('b'), held('c'))") == ["[1] [1]"]
    run(VICTIM, shared, "complete('b'); complete('c')")
    assert sorted(os.listdir(shared)) == ["a", "b", "c"]


def test_two_users_receive_into_one_directory_at_the_same_time(shared: Path) -> None:
    names = {VICTIM: "v", OTHER: "o"}
    receivers = [
        start(
            user,
            shared,
            f"""
            print("ready", flush=True)
            sys.stdin.readline()
            for number in range(50):
                complete(f"{name}{{number}}")
            """,
        )
        for user, name in names.items()
    ]
    for receiver in receivers:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "ready\n"
    for receiver in receivers:
        assert receiver.communicate("go\n", timeout=60) == ("", "")
    assert sorted(os.listdir(shared)) == sorted(f"{name}{n}" for name in names.values() for n in range(50))
    for user, name in names.items():
        for number in range(50):
            path = shared / f"{name}{number}"
            assert path.stat().st_uid == user
            assert path.read_bytes() == f"{name}{number}".encode() * (1 << 21)


@pytest.mark.parametrize("mode", [0o700, 0o777])
def test_what_another_user_has_made_is_not_used_and_it_is_said_whose_it_is(shared: Path, mode: int) -> None:
    for name in (".flyx", f".flyx-{VICTIM}"):
        (shared / name).mkdir()
        (shared / name).chmod(mode)
        os.chown(shared / name, OTHER, OTHER)
    said = run(
        VICTIM,
        shared,
        """
        try:
            begin("a")
        except StorageError as error:
            print(error)
        """,
    )
    assert said == [f"Cannot use .flyx-{VICTIM}: it belongs to the user {OTHER}, not to you"]
    assert os.listdir(shared / ".flyx") == []


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_another_user_has_put_in_place_of_a_directory_is_left_alone(shared: Path, kind: str) -> None:
    elsewhere = shared / "elsewhere"
    elsewhere.mkdir(mode=0o777)
    if kind == "link":
        (shared / ".flyx").symlink_to(elsewhere)
    else:
        (shared / ".flyx").touch()
    os.chown(shared / ".flyx", OTHER, OTHER, follow_symlinks=False)
    run(VICTIM, shared, "begin('a')")
    assert os.listdir(elsewhere) == []
    assert run(VICTIM, shared, "print(held('a'))") == ["[1]"]


def test_a_state_directory_that_others_may_write_to_is_not_used(shared: Path) -> None:
    run(VICTIM, shared, "begin('a')")
    (shared / ".flyx").chmod(0o777)
    assert run(VICTIM, shared, "print(held('a')); begin('a'); print(held('a'))") == ["[]", "[1]"]
    assert sorted(os.listdir(shared)) == [".flyx", f".flyx-{VICTIM}"]


@pytest.mark.parametrize("name", ["journal", "0.part"])
def test_a_file_of_another_user_among_ours_is_not_believed(shared: Path, name: str) -> None:
    run(VICTIM, shared, "begin('a')")
    (path,) = shared.glob(f".flyx/*/{name}")
    os.chown(path, OTHER, OTHER)
    assert run(VICTIM, shared, "print(held('a'))") == ["[]"]


# Takes the state directory first, and in it whatever the other user makes there.
ATTACK = """
print("ready", flush=True)
state = Path(".flyx")
while not Path("enough").exists():
    with suppress(OSError):
        state.mkdir()
        state.chmod(0o777)
    with suppress(OSError):
        for own in os.listdir(state):
            if own.startswith("taken"):
                continue
            with suppress(OSError):
                if os.stat(state / own).st_uid != USER:
                    os.rename(state / own, state / f"taken-{own}")
                    os.mkdir(state / own)
                    os.chmod(state / own, 0o777)
            with suppress(OSError):
                for part in os.listdir(state / own):
                    if part.endswith(".part") and os.stat(state / own / part).st_uid != USER:
                        Path(state / own / "planted").write_bytes(b"b" * BLOCK_SIZE * 2)
                        os.rename(state / own / "planted", state / own / part)
"""


def test_no_race_has_the_bytes_of_another_user_delivered(shared: Path) -> None:
    attacker = start(OTHER, shared, ATTACK.replace("USER", str(OTHER)))
    assert attacker.stdout is not None
    assert attacker.stdout.readline() == "ready\n"
    said = run(
        VICTIM,
        shared,
        f"""
        for turn in range({share(200)}):
            complete("a")
            if os.stat("a").st_uid != {VICTIM} or Path("a").read_bytes() != b"a" * BLOCK_SIZE * 2:
                print("turn", turn, "delivered what another user has planted")
            os.unlink("a")
        Path("enough").touch()
        """,
    )
    attacker.communicate(timeout=60)
    assert said == []
