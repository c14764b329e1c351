"""Storage that fails to store some of what it is given, once, and says so: a file in a filesystem of our own.

    python -m e2e.failing_storage BACKING MOUNT

serves the file `image` of the directory BACKING as `image` in MOUNT (FUSE). If BACKING has a file `faults`
that holds two numbers, so many writes of marked pages are stored, and then so many are refused with EIO: the
bytes there stay what they were. The numbers are counted down; the file vanishes with the last. Everything
else is stored.
"""

from __future__ import annotations

import errno
import os
import random
import sys
from pathlib import Path

PAGE_SIZE = os.sysconf("SC_PAGESIZE")

MARK = b"a page of a file that is sent: "
"""What every page of a file begins with whose storing is to fail; no metadata has it."""


def write_marked(path: Path, size: int) -> Path:
    """Write a file of so many bytes, random but for the mark at the beginning of each page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size, PAGE_SIZE):
            file.write((MARK + random.randbytes(PAGE_SIZE))[: min(PAGE_SIZE, size - start)])
    return path


def main(backing: Path, mount: Path) -> None:
    # Here, because it fails where there is no libfuse.
    from mfusepy import FUSE, FuseOSError, Operations  # type: ignore[import-untyped]

    class Storage(Operations):  # type: ignore[misc]
        use_ns = True

        def __init__(self) -> None:
            self._image = os.open(backing / "image", os.O_RDWR)
            self._faults = backing / "faults"

        def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
            if path == "/":
                return {"st_mode": 0o40700, "st_nlink": 2}
            if path != "/image":
                raise FuseOSError(errno.ENOENT)
            return {"st_mode": 0o100600, "st_nlink": 1, "st_size": os.fstat(self._image).st_size}

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return os.pread(self._image, size, offset)

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            if MARK in data and self._faults.exists() and self._is_refused():
                raise FuseOSError(errno.EIO)
            return os.pwrite(self._image, data, offset)

        def _is_refused(self) -> bool:
            stored, refused = map(int, self._faults.read_text().split())
            if stored:
                self._faults.write_text(f"{stored - 1} {refused}")
            elif refused > 1:
                self._faults.write_text(f"0 {refused - 1}")
            else:
                self._faults.unlink()
            return stored == 0

        def fsync(self, path: str, datasync: int, fh: int) -> int:
            return 0

    FUSE(Storage(), str(mount), foreground=True, nothreads=True)


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
