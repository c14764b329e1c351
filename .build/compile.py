"""Compiles what handles packets, with mypyc, where that is possible: a build hook of hatchling.

flyx is all Python, and runs as such. Where there are a C compiler and Python's headers, a wheel has in
addition an extension module beside each source of COMPILED, which Python prefers; else, and with FLYX_PURE=1,
it is the pure one, and nothing is said. An editable wheel is never compiled; to compile the checkout itself:

    python .build/compile.py

and to have it pure again, `find flyx -name '*.so' -delete`.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parents[1]

COMPILED = ("flyx/sctp/[!_]*.py", "flyx/rtc/dtls.py")
"""What pays, measured by e2e/bench: the work for each packet. Congestion control is asked once for many, and
is slower compiled: mypyc makes dataclasses that cost more than Python's own."""

MYPY_OPTIONS = (
    # Not the configuration of the checks, whose plugins need not be here.
    "--config-file=",
    f"--cache-dir={os.devnull}",
    "--follow-imports=silent",
    # The same machine code whatever else is installed.
    "--no-site-packages",
    "--ignore-missing-imports",
)

LIBRARY = "flyx.native"
"""All is in this one extension module, with __mypyc behind its name; those beside the sources lead there."""


class CompilingHook(BuildHookInterface):
    """Adds the extension modules to a wheel."""

    def dependencies(self) -> list[str]:
        """Return what the build needs beyond hatchling."""
        # An editable wheel needs none, but this is asked before it is known what is to be built.
        return ["mypy[mypyc]>=2.4"] if can_compile() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the files of the wheel are gathered."""
        if version == "editable" or not can_compile():
            return
        self._directory = tempfile.TemporaryDirectory()
        try:
            modules = compile_into(Path(self._directory.name))
        except (Exception, SystemExit) as error:
            # mypyc is missing, or the compiler is not what it seemed to be. Shown by `pip install -v` only.
            self.app.display_info(f"flyx is not compiled: {error!r}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"] |= {str(path): name for name, path in modules.items()}


def can_compile() -> bool:
    """Whether there seems to be what it takes, and it is wanted."""
    if os.environ.get("FLYX_PURE") or os.name != "posix" or platform.python_implementation() != "CPython":
        return False
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    return bool(shutil.which(compiler)) and Path(sysconfig.get_path("include"), "Python.h").exists()


def compile_into(directory: Path) -> dict[str, Path]:
    """Compile; return the extension modules by their places below ROOT."""
    from mypyc.build import mypycify
    from setuptools import Distribution

    sources = [str(path.relative_to(ROOT)) for pattern in COMPILED for path in sorted(ROOT.glob(pattern))]
    before = Path.cwd()
    # mypyc takes modules' names from their paths, and puts these into tracebacks.
    os.chdir(ROOT)
    try:
        extensions = mypycify(
            [*MYPY_OPTIONS, *sources],
            debug_level="0",
            group_name=LIBRARY,
            target_dir=str(directory / "c"),
        )
        command = Distribution({"ext_modules": extensions}).get_command_obj("build_ext")
        command.build_lib = str(directory / "lib")
        command.build_temp = str(directory / "objects")
        command.parallel = os.cpu_count()
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(before)
    built = directory / "lib"
    return {str(path.relative_to(built)): path for path in sorted(built.rglob("*.*")) if path.is_file()}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        for place, module in compile_into(Path(name)).items():
            shutil.move(module, ROOT / place)
            sys.stdout.write(f"{place}\n")
