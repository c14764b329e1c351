"""What can be installed beside flyx holds what it is for."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import deque
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]


def imported_by(module: Path) -> set[str]:
    """The dotted names of all that a module of e2e or tests may import."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
    return names


def libraries_of(modules: list[Path]) -> set[str]:
    """The top-level names of the libraries that modules import, by way of others of the checkout too."""
    seen, left, libraries = set(modules), deque(modules), set[str]()
    while left:
        for name in imported_by(left.popleft()):
            top = name.partition(".")[0]
            if top not in ("e2e", "tests"):
                libraries.add(top)
                continue
            module = ROOT.joinpath(*name.split(".")).with_suffix(".py")
            if module.exists() and module not in seen:
                seen.add(module)
                left.append(module)
    return libraries - set(sys.stdlib_module_names) - {"flyx"}


def named(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def brought_by(requirements: list[str]) -> set[str]:
    """The distributions that come with these, as far as they are installed here."""
    found: set[str] = set()
    left = deque(map(named, requirements))
    while left:
        name = left.popleft()
        if name in found:
            continue
        found.add(name)
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        left.extend(named(each) for each in needed if "extra ==" not in each)
    return found


def test_the_extra_of_the_benches_brings_all_that_they_import() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    there = brought_by([*project["dependencies"], *project["optional-dependencies"]["bench"]])
    by_import = metadata.packages_distributions()
    libraries = libraries_of(sorted((ROOT / "e2e" / "bench").glob("*.py")))
    assert {"pytest", "webrtc"} <= libraries
    for library in libraries:
        # What is not installed here goes by its own name.
        distributions = {named(each) for each in by_import.get(library, [library])}
        assert distributions & there, library
