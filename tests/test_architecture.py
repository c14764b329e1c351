"""The direction of imports, and what the cores may not touch.

cli, api -> client, server -> rtc, net, storage -> cores -> errors
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

import flyx

ROOT = Path(flyx.__file__).parent

CORES = {"grammar", "signaling", "transfer", "pairing", "sctp"}
# What each package of flyx may import from flyx, besides itself and errors.
ALLOWED = {
    "errors": set(),
    "grammar": set(),
    "signaling": {"grammar"},
    "transfer": {"grammar"},
    "pairing": {"grammar"},
    "sctp": set(),
    "net": set(),
    "rtc": {"net", "sctp"},
    "storage": {"transfer"},
    "server": {"signaling", "net"},
    "client": {"grammar", "signaling", "transfer", "pairing", "rtc", "net", "storage"},
    "api": {"client", "server", "rtc", "net", "storage", *CORES},
    "cli": {"client", "server", "rtc", "net", "storage", *CORES},
    "__main__": {"cli"},
    # For who checks types; what they are is loaded when it is asked for.
    "__init__": {"api", "client", "transfer"},
}
# The cores are given clocks, randomness and bytes; they fetch none themselves.
BANNED_IN_CORES = {
    *("asyncio", "socket", "ssl", "time", "random", "secrets", "os", "pathlib", "threading", "subprocess"),
    *(
        "aiortc",
        "aioice",
        "websockets",
        "redis",
        "rich",
        "typer",
        "fastapi",
        "starlette",
        "uvicorn",
        "structlog",
    ),
}
CORE_LIBRARIES = {
    "grammar": {"msgspec"},
    "signaling": {"msgspec"},
    "transfer": {"msgspec", "blake3"},
    "pairing": {"msgspec", "cryptography"},
    "sctp": set(),
}


@cache
def nodes(module: Path) -> list[ast.AST]:
    """All of its syntax."""
    return list(ast.walk(ast.parse(module.read_text())))


def modules() -> list[Path]:
    return sorted(p for p in ROOT.rglob("*.py"))


def package_of(module: Path) -> str:
    relative = module.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


@cache
def imports_of(module: Path) -> list[str]:
    """Every dotted name a module imports, wherever in the file the import stands."""
    names: list[str] = []
    for node in nodes(module):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names += (f"{node.module}.{alias.name}" for alias in node.names)
    return names


def relative_name(module: Path) -> str:
    return str(module.relative_to(ROOT))


@pytest.mark.parametrize("module", modules(), ids=relative_name)
def test_flyx_imports_point_one_way(module: Path) -> None:
    package = package_of(module)
    for name in imports_of(module):
        parts = name.split(".")
        if parts[0] != "flyx" or len(parts) == 1:
            continue
        target = parts[1]
        if target == "__version__":
            continue
        assert target in ALLOWED[package] | {package, "errors"}, f"{relative_name(module)} imports {name}"


@pytest.mark.parametrize("module", [m for m in modules() if package_of(m) in CORES], ids=relative_name)
def test_cores_do_no_io(module: Path) -> None:
    for name in imports_of(module):
        top = name.split(".")[0]
        assert top not in BANNED_IN_CORES, f"{relative_name(module)} imports {name}"
        known = top in sys.stdlib_module_names or top == "flyx" or top in CORE_LIBRARIES[package_of(module)]
        assert known, f"{relative_name(module)} imports {name}"


@pytest.mark.parametrize("module", modules(), ids=relative_name)
def test_only_the_seam_reaches_into_aiortc_and_aioice(module: Path) -> None:
    """Private names live in rtc/seam; aioice itself is nobody else's business."""
    if relative_name(module).startswith("rtc/seam/"):
        return
    for name in imports_of(module):
        top, *rest = name.split(".")
        assert top != "aioice", f"{relative_name(module)} imports {name}"
        if top == "aiortc":
            assert package_of(module) == "rtc"
            assert not any(part.startswith("_") for part in rest)


@pytest.mark.parametrize("module", modules(), ids=relative_name)
def test_only_the_seam_of_the_server_reaches_into_uvicorn(module: Path) -> None:
    """It lists what is used of an implementation that may change with any release."""
    if relative_name(module) != "server/transport/seam.py":
        assert not [name for name in imports_of(module) if name.split(".")[0] == "uvicorn"]


@pytest.mark.parametrize("module", [m for m in modules() if package_of(m) == "rtc"], ids=relative_name)
def test_aiortc_is_loaded_by_the_seam(module: Path) -> None:
    """Which leaves out what data channels do not use, if nobody has loaded aiortc before."""
    if relative_name(module).startswith("rtc/seam/"):
        return
    names = [
        statement.module if isinstance(statement, ast.ImportFrom) else statement.names[0].name
        for statement in ast.parse(module.read_text()).body
        if isinstance(statement, ast.Import | ast.ImportFrom)
    ]
    if "aiortc" in names:
        assert "flyx.rtc.seam" in names[: names.index("aiortc")]


@pytest.mark.parametrize(
    "module", [m for m in modules() if package_of(m) in {"client", "api"}], ids=relative_name
)
def test_client_and_api_never_print(module: Path) -> None:
    tops = {name.split(".")[0] for name in imports_of(module)}
    assert not tops & {"rich", "typer"}


@pytest.mark.parametrize("module", [m for m in modules() if package_of(m) == "api"], ids=relative_name)
def test_the_api_leaves_the_process_alone(module: Path) -> None:
    """It is the program's: its signals, its logs, its collector, its arguments and variables."""
    assert not {name.split(".")[0] for name in imports_of(module)} & {"signal", "logging", "gc", "sys"}
    assert not {"os.environ", "os.getenv"} & set(imports_of(module))


@pytest.mark.parametrize("module", [m for m in modules() if package_of(m) == "storage"], ids=relative_name)
def test_only_durability_syncs(module: Path) -> None:
    """It alone knows whether a sync has failed, after which none may be tried."""
    if relative_name(module) == "storage/durability.py":
        return
    for node in nodes(module):
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"fsync", "fdatasync", "syncfs", "O_SYNC", "O_DSYNC"}


def module_of(name: str) -> str | None:
    """The module of flyx that an imported name is, or is in."""
    parts = name.split(".")
    while parts:
        path = ROOT.parent.joinpath(*parts)
        if path.with_suffix(".py").exists() or (path / "__init__.py").exists():
            return ".".join(parts)
        parts.pop()
    return None


@pytest.mark.parametrize("package", sorted({"server", "storage", *CORES}))
def test_no_module_imports_itself_by_way_of_others(package: str) -> None:
    """Nor for its types alone: what knows each other both ways can be neither built nor tested alone."""
    imported: dict[str, set[str]] = {}
    for module in modules():
        if package_of(module) == package:
            name = ".".join(module.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
            found = {module_of(each) for each in imports_of(module) if each.split(".")[0] == "flyx"}
            imported[name] = {each for each in found if each is not None and each != name}
    waiting = dict(imported)
    while free := {name for name, others in waiting.items() if not others & waiting.keys()}:
        waiting = {name: others for name, others in waiting.items() if name not in free}
    assert not waiting, f"in a circle, or above one: {', '.join(sorted(waiting))}"


# Where the wall clock is shown to people, or to another machine, and decides nothing.
SHOW_THE_TIME = {
    "cli/output.py",
    "client/doctor/server.py",
    "rtc/trace.py",
    "storage/partial.py",
    "storage/single.py",
    "storage/whole.py",
}


@pytest.mark.parametrize(
    "module",
    [m for m in modules() if package_of(m) in {"client", "rtc", "net", "storage", "cli", "api"}],
    ids=relative_name,
)
def test_a_clock_that_jumps_disturbs_no_transfer(module: Path) -> None:
    """Deadlines are kept by the monotonic clock alone, which no time server, person or sleep sets."""
    if relative_name(module) in SHOW_THE_TIME:
        return
    for node in nodes(module):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {
                ("time", "time"),
                ("time", "time_ns"),
                ("datetime", "now"),
            }


def test_modules_stay_readable() -> None:
    long = {relative_name(m): n for m in modules() if (n := len(m.read_text().splitlines())) > 600}
    assert not long
