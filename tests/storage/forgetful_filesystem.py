"""A filesystem that does not keep all that is said of a file: owners, modes, inode numbers."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any

import pytest


class ForgetfulFilesystem:
    """Changes what stat() and fstat() say.

    Attributes:
        owner: who owns what is ours; None: the owner is kept.
        mode: the permissions of everything; None: they are kept.
        keeps_inodes: whether a file has the same inode number after remount().
        time_unit: nanoseconds in what a time is counted in after remount(); 0: none is kept that was given,
            and what it is instead is another after each remount().
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        owner: int | None = None,
        mode: int | None = None,
        *,
        keeps_inodes: bool = True,
        time_unit: int = 1,
    ) -> None:
        self.owner = owner
        self.mode = mode
        self.keeps_inodes = keeps_inodes
        self.time_unit = time_unit
        self._mounts = 0
        for name in ("stat", "fstat"):
            monkeypatch.setattr(os, name, self._forgetting(getattr(os, name)))

    def remount(self) -> None:
        """Forget the inode numbers, and what is too fine of the times."""
        self._mounts += 1

    def _forgetting(self, call: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def forgetting(*args: Any, **kwargs: Any) -> os.stat_result:
            status = call(*args, **kwargs)
            # Its constructor takes the ten fields of old by their place, and those since by their name.
            fields = list(status)
            if self.mode is not None:
                fields[stat.ST_MODE] = stat.S_IFMT(status.st_mode) | self.mode
            if self.owner is not None and status.st_uid == os.geteuid():
                fields[stat.ST_UID] = self.owner
            if not self.keeps_inodes:
                fields[stat.ST_INO] += self._mounts * 1000
            named = {name: getattr(status, name) for name in ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")}
            if self.time_unit == 0:
                named["st_mtime_ns"] = (1 + self._mounts) * 10**18
            elif self._mounts:
                named["st_mtime_ns"] = named["st_mtime_ns"] // self.time_unit * self.time_unit
            return os.stat_result(fields, named)

        return forgetting
