"""Trees drawn at random, with all that people have: odd names, modes and times, links, holes, FIFOs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import strategies as st

from flyx.transfer.manifest import BLOCK_SIZE


@dataclass(frozen=True)
class Thing:
    """Something in a tree.

    Attributes:
        kind: "file", "sparse", "directory", "symbolic link", "hard link" or "FIFO".
        where: of the directories that are there, the one that it is in; modulo their number.
        name: what it is called, in bytes.
        mode: permission bits.
        mtime_ns: modification time in nanoseconds since the epoch.
        content: of a file; of a sparse one what is at its end.
        hole: bytes before the content of a sparse file, and after it.
        target: of a symbolic link.
        same_as: of the files that are there, the one that a hard link is; modulo their number.
    """

    kind: str
    where: int
    name: bytes
    mode: int
    mtime_ns: int
    content: bytes
    hole: tuple[int, int]
    target: bytes
    same_as: int


@dataclass
class Tree:
    """Things to be put below a directory."""

    things: list[Thing] = field(default_factory=list)

    @contextmanager
    def built(self) -> Iterator[Path]:
        """Make the tree in a temporary directory, so deep in it that no relative link leads out."""
        with TemporaryDirectory() as directory:
            root = Path(directory, *"12345", "tree")
            os.makedirs(root.parent)
            self.build(root)
            yield root
            # An ordinary user cannot remove what is in directories that forbid it.
            for way, directories, _ in os.walk(root):
                for name in directories:
                    if not os.path.islink(f"{way}/{name}"):
                        os.chmod(f"{way}/{name}", 0o700)

    def build(self, root: Path) -> None:
        """Make the tree. What the system or the filesystem cannot have is not made."""
        os.mkdir(root)
        directories, files = [os.fsencode(root)], list[bytes]()
        kept: list[tuple[bytes, Thing]] = []
        for thing in self.things:
            path = directories[thing.where % len(directories)] + b"/" + thing.name
            with suppress(OSError):
                if self._make(thing, path, files):
                    kept.append((path, thing))
                if thing.kind == "directory":
                    directories.append(path)
        # Those of directories when all is in them.
        for path, thing in reversed(kept):
            with suppress(OSError, OverflowError):
                os.utime(path, ns=(0, thing.mtime_ns), follow_symlinks=False)
            if not os.path.islink(path):
                os.chmod(path, thing.mode)

    def _make(self, thing: Thing, path: bytes, files: list[bytes]) -> bool:
        match thing.kind:
            case "directory":
                os.mkdir(path)
            case "symbolic link":
                os.symlink(thing.target, path)
            case "FIFO":
                os.mkfifo(path)
            case "hard link":
                if not files:
                    return False
                os.link(files[thing.same_as % len(files)], path)
            case _:
                before, after = thing.hole if thing.kind == "sparse" else (0, 0)
                with open(path, "xb") as file:
                    file.seek(before)
                    file.write(thing.content)
                    file.truncate(before + len(thing.content) + after)
                files.append(path)
        return True


PARTS = (b"a", b"b", b"sub", b"\xff", "caf\u00e9".encode(), "cafe\u0301".encode())
ODD = (
    b".flyx",
    b".flyx-7",
    b"aux.c",
    b"a:b",
    b"R.E.M.",
    b"back\\slash",
    b" ",
    b"Icon\r",
    b"-rf",
    b"...",
    b"~",
)
NAMES = st.sampled_from(PARTS + ODD) | st.binary(min_size=1, max_size=255).map(
    lambda name: name.replace(b"\0", b"0").replace(b"/", b"|")
).filter(lambda name: name not in {b".", b".."})
TARGETS = st.lists(st.sampled_from((*PARTS, b"..", b".", b"", b"tree")), min_size=1, max_size=5).map(
    b"/".join
)
# From 1677 to 2262, and where those of the filesystems end: before 1902, 2038, 2446 and 2486.
TIMES = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(
    (-1, 0, -(2**31) * 10**9, 2**31 * 10**9, 15_032_385_535 * 10**9, 16_299_260_425 * 10**9)
)
KINDS = ("file", "sparse", "directory", "symbolic link", "hard link", "FIFO")

THINGS = st.builds(
    Thing,
    kind=st.sampled_from(KINDS),
    where=st.integers(0, 5),
    name=NAMES,
    mode=st.integers(0, 0o777),
    mtime_ns=TIMES,
    content=st.binary(max_size=20),
    hole=st.tuples(st.integers(0, 3 * BLOCK_SIZE), st.integers(0, 3 * BLOCK_SIZE)),
    target=TARGETS.filter(lambda target: target != b""),
    same_as=st.integers(0, 5),
)

TREES = st.builds(Tree, st.lists(THINGS, max_size=12))
