"""A disk whose syncs fail once and then succeed, though what was to be written is lost: as Linux has it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from flyx.storage import durability


class FailingDisk:
    """Knows what of the files below a directory is on the disk, beside what the page cache shows of them.

    Writes and changes of names are dirty until they are synced. A sync that fails makes them clean, and they
    are lost; the cache still has them. Reads past the cache get what the disk has, zeros elsewhere.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Which syncs from now on fail, counted from 0, and how many there were.
        self.failing: Collection[int] = ()
        self.syncs = 0
        # By inode: what the cache shows, what the disk has, and the ranges written since the last sync.
        self._cached: dict[int, bytearray] = defaultdict(bytearray)
        self._content: dict[int, bytearray] = {}
        self._dirty: dict[int, list[tuple[int, int]]] = defaultdict(list)
        # By inode of a directory: the inodes of its names, and the names changed since the last sync.
        self._names: dict[int, dict[str, int]] = defaultdict(dict)
        self._changed: dict[int, dict[str, int | None]] = defaultdict(dict)
        for name in ("open", "pwrite", "preadv", "ftruncate", "mkdir", "unlink", "link", "rename", "replace"):
            monkeypatch.setattr(os, name, getattr(self, f"_{name}_of")(getattr(os, name)))
        monkeypatch.setattr(os, "fsync", self._fsync)
        monkeypatch.setattr(durability, "_syncfs", lambda handle: self._sync(None))

    # What is on the disk.

    def lost(self, out: Path, contents: dict[str, bytes | None]) -> list[str]:
        """Of these paths below a directory, those whose name or content is not on the disk."""
        lost = []
        for path, content in contents.items():
            found = out / path
            inode = found.stat().st_ino
            named = self._names[found.parent.stat().st_ino].get(found.name) == inode
            if not named or (content is not None and self._stored(inode, len(content)) != content):
                lost.append(path)
        return lost

    def forget_cache(self, out: Path) -> None:
        """The kernel needs the memory: what is not on the disk reads as the zeros it has there."""
        for path in out.rglob("*"):
            status = path.lstat()
            if path.is_file() and not self._dirty[status.st_ino]:
                stored = self._stored(status.st_ino, status.st_size)
                self._cached[status.st_ino] = bytearray(stored)
                with path.open("r+b") as file:
                    file.write(stored)
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _stored(self, inode: int, size: int) -> bytes:
        return bytes(self._content.get(inode, b"")[:size].ljust(size, b"\0"))

    # Syncs.

    def _fsync(self, handle: int) -> None:
        self._sync(os.fstat(handle).st_ino)

    def _sync(self, inode: int | None) -> None:
        """Sync a file or directory, or, with syncfs, everything."""
        self.syncs += 1
        fails = self.syncs - 1 in self.failing
        for one in [inode] if inode is not None else [*self._dirty, *self._changed]:
            dirty, changed = self._dirty.pop(one, []), self._changed.pop(one, {})
            if fails:
                continue
            if dirty:
                cached = self._cached[one]
                stored = self._content.setdefault(one, bytearray())
                stored.extend(bytes(max(0, len(cached) - len(stored))))
                for begin, end in dirty:
                    stored[begin:end] = cached[begin:end]
            for name, now in changed.items():
                if now is None:
                    self._names[one].pop(name, None)
                else:
                    self._names[one][name] = now
        if fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    # What is written, and what is called how.

    def _rename(self, directory: int, name: str, inode: int | None) -> None:
        self._changed[os.fstat(directory).st_ino][name] = inode

    def _open_of(self, call: Callable[..., int]) -> Callable[..., int]:
        def open_file(name: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            handle = call(name, flags, mode, dir_fd=dir_fd)
            if dir_fd is not None and flags & (os.O_EXCL | os.O_TRUNC):
                inode = os.fstat(handle).st_ino
                # Numbers of removed files are used again.
                self._cached[inode] = bytearray()
                self._content.pop(inode, None)
                self._dirty.pop(inode, None)
                self._rename(dir_fd, name, inode)
            return handle

        return open_file

    def _pwrite_of(self, call: Callable[..., int]) -> Callable[..., int]:
        def pwrite(handle: int, data: memoryview, offset: int) -> int:
            done = call(handle, data, offset)
            inode = os.fstat(handle).st_ino
            cached = self._cached[inode]
            cached.extend(bytes(max(0, offset - len(cached))))
            cached[offset : offset + done] = data[:done]
            self._dirty[inode].append((offset, offset + done))
            return done

        return pwrite

    def _preadv_of(self, call: Callable[..., int]) -> Callable[..., int]:
        def preadv(handle: int, buffers: list[memoryview], offset: int) -> int:
            done = call(handle, buffers, offset)
            if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT:
                inode = os.fstat(handle).st_ino
                dirty = [begin for begin, end in self._dirty[inode] if begin < offset + done and offset < end]
                assert not dirty, "the kernel would write these first"
                buffers[0][:done] = self._stored(inode, offset + done)[offset:]
            return done

        return preadv

    def _ftruncate_of(self, call: Callable[..., None]) -> Callable[..., None]:
        def ftruncate(handle: int, size: int) -> None:
            call(handle, size)
            inode = os.fstat(handle).st_ino
            for content in (self._cached[inode], self._content.get(inode, bytearray())):
                del content[size:]

        return ftruncate

    def _mkdir_of(self, call: Callable[..., None]) -> Callable[..., None]:
        def mkdir(name: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
            call(name, mode, dir_fd=dir_fd)
            if dir_fd is not None:
                self._rename(dir_fd, name, os.stat(name, dir_fd=dir_fd).st_ino)

        return mkdir

    def _unlink_of(self, call: Callable[..., None]) -> Callable[..., None]:
        def unlink(name: str, *, dir_fd: int) -> None:
            call(name, dir_fd=dir_fd)
            self._rename(dir_fd, name, None)

        return unlink

    def _link_of(self, call: Callable[..., None]) -> Callable[..., None]:
        def link(
            name: str, new: str, *, src_dir_fd: int, dst_dir_fd: int, follow_symlinks: bool = True
        ) -> None:
            call(name, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)
            self._rename(dst_dir_fd, new, os.stat(new, dir_fd=dst_dir_fd).st_ino)

        return link

    def _rename_of(self, call: Callable[..., None]) -> Callable[..., None]:
        def rename(name: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
            call(name, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            self._rename(src_dir_fd, name, None)
            self._rename(dst_dir_fd, new, os.stat(new, dir_fd=dst_dir_fd).st_ino)

        return rename

    _replace_of = _rename_of
