"""A release is the same bytes, whoever builds it and when, and what is installed of it is whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.processes import Terminal
from flyx import __version__

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", ".gitignore", ".build", "flyx")


def built(place: Path, mtime: int, umask: int, variables: dict[str, str]) -> dict[str, str]:
    """Build sdist and wheel from a copy whose files have this time and were made under this umask."""
    source = place / "source"
    source.mkdir(parents=True)
    for name in SOURCES:
        origin = ROOT / name
        if origin.is_dir():
            shutil.copytree(origin, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin, source / name)
    for path in (source, *source.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
        os.utime(path, (mtime, mtime))
    environment = {k: v for k, v in os.environ.items() if k != "SOURCE_DATE_EPOCH"} | variables
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place / "dist"), str(source)]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (place / "dist").iterdir()}


CAN_COMPILE = shutil.which("cc") and Path(sysconfig.get_path("include"), "Python.h").exists()


COMPILED = pytest.param(
    {},
    f"cp{sys.version_info.major}{sys.version_info.minor}",
    "compiled",
    marks=[
        # Two minutes of both processors: what is compiled is tried in place besides (.ci/run).
        pytest.mark.soak,
        pytest.mark.timeout(300),
        pytest.mark.skipif(not CAN_COMPILE, reason="needs a C compiler and Python's headers"),
    ],
    id="compiled",
)


@pytest.mark.parametrize(
    ("variables", "tag", "build"),
    [COMPILED, pytest.param({"FLYX_PURE": "1"}, "py3", "pure Python", id="pure")],
)
def test_two_builds_of_a_release_are_the_same_bytes(
    variables: dict[str, str], tag: str, build: str, tmp_path: Path
) -> None:
    first = built(tmp_path / "one", 1_700_000_000, 0o022, variables)
    second = built(tmp_path / "two" / "deeper", 1_800_000_000, 0o077, variables)
    assert first == second
    assert len(first) == 2
    (wheel,) = (tmp_path / "one" / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"flyx/py.typed", "flyx/docs/events.schema.json"} <= set(names)
    release, python, *_ = wheel.name.rsplit("-", 3)
    own = {"flyx", f"{release}.dist-info", f"{release}.data"}
    assert {name.split("/")[0] for name in names} == own
    assert python == tag
    assert version_in(install(wheel, tmp_path)) == f"flyx {__version__} ({build})\n"


NOTHING_TO_COMPILE_WITH = {
    "it is not wanted": {"FLYX_PURE": "1"},
    "no compiler": {"CC": "/nowhere/cc"},
    "a compiler that compiles nothing": {"CC": "false"},
}


@pytest.mark.parametrize("variables", NOTHING_TO_COMPILE_WITH.values(), ids=NOTHING_TO_COMPILE_WITH)
def test_what_cannot_be_compiled_is_installed_as_it_is_without_a_word(
    variables: dict[str, str], tmp_path: Path
) -> None:
    environment = os.environ | variables
    wheel = built_wheel(tmp_path, environment)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]
    assert version_in(install(wheel, tmp_path)) == f"flyx {__version__} (pure Python)\n"


def built_wheel(place: Path, environment: dict[str, str]) -> Path:
    """Build a wheel as pip does, which must say nothing; return it."""
    pip = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    said = subprocess.run(
        [*pip, "--wheel-dir", place / "dist", ROOT], check=True, capture_output=True, env=environment
    )
    assert (said.stdout, said.stderr) == (b"", b"")
    (wheel,) = (place / "dist").glob("*.whl")
    return wheel


def version_in(installed: Path) -> str:
    """Return what the flyx of an environment says of itself."""
    command = [installed / "bin" / "flyx", "--version"]
    return subprocess.run(
        command, env=environment_of(installed, installed), capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with a wheel of flyx; it has the libraries of this one."""
    place = tmp_path_factory.mktemp("installed")
    return install(built_wheel(place, os.environ | {"FLYX_PURE": "1"}), place)


def install(wheel: Path, place: Path) -> Path:
    """Make an environment with a wheel, and the libraries of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True)
    (libraries,) = (place / "venv" / "lib").glob("python3*/site-packages")
    # What is named in a file is searched, but its own such files are not: none leads to the checkout.
    places = [path for path in sys.path if Path(path).name == "site-packages"]
    (libraries / "libraries.pth").write_text("\n".join(places))
    python = place / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python"]
    subprocess.run(
        [*pip, python, "install", "--no-deps", "--no-index", wheel], check=True, capture_output=True
    )
    return place / "venv"


def environment_of(installed: Path, home: Path) -> dict[str, str]:
    """That of somebody who has the environment's programs in PATH, and nothing of their own."""
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ}
    return {**kept, "PATH": f"{installed / 'bin'}:/usr/bin:/bin", "HOME": str(home), "TERM": "xterm"}


@pytest.mark.skipif(shutil.which("man") is None, reason="needs man-db")
def test_man_finds_the_page_of_what_is_installed(installed: Path, tmp_path: Path) -> None:
    environment = environment_of(installed, tmp_path) | {"MANWIDTH": "100"}
    found = subprocess.run(
        ["man", "-w", "flyx"], env=environment, capture_output=True, text=True, check=False
    )
    assert found.stdout == f"{installed}/share/man/man1/flyx.1\n", found.stderr
    shown = subprocess.run(["man", "flyx"], env=environment, capture_output=True, text=True, check=False)
    assert "flyx config show [OPTIONS] [COMMAND]" in shown.stdout
    assert (shown.returncode, shown.stderr) == (0, "")


TOPICS = {
    "receive": "Directory to save into",
    "security": "Threat model",
    "scripting": "Without a person",
    "events-schema": "https://json-schema.org/draft/2020-12/schema",
}
"""What there is to read, and a part of each."""


def test_what_is_installed_shows_its_documents(installed: Path, tmp_path: Path) -> None:
    for topic, told in TOPICS.items():
        shown = subprocess.run(
            [installed / "bin" / "flyx", "help", topic],
            env=environment_of(installed, tmp_path),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (shown.returncode, shown.stderr) == (0, "")
        assert told in shown.stdout


class Shell(Terminal):
    """A shell on a terminal, in the place of flyx."""

    def _start(
        self, command: list[str], environment: dict[str, str], directory: Path
    ) -> subprocess.Popen[bytes]:
        return super()._start(command[command.index("flyx") + 1 :], environment, directory)


PROFILES = {
    "bash": (".bashrc", "PS1='READY> '\n"),
    "zsh": (".zshrc", "PS1='READY> '\n"),
    "fish": (".config/fish/config.fish", "function fish_prompt; echo -n 'READY> '; end\n"),
}


@pytest.fixture(params=PROFILES)
def shell(request: pytest.FixtureRequest, installed: Path, tmp_path: Path) -> Iterator[Shell]:
    """A shell that `flyx --install-completion` has taught, ready to be typed into."""
    name: str = request.param
    if (program := shutil.which(name)) is None:
        pytest.skip(f"needs {name}")
    home, (profile, prompt) = tmp_path / "home", PROFILES[name]
    (home / profile).parent.mkdir(parents=True)
    (home / profile).write_text(prompt)
    environment = environment_of(installed, home)
    command = [str(installed / "bin" / "flyx"), "--install-completion", name]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    started = Shell([program, "-i"], environment, home, pipe_stdout=False)
    try:
        yield started.says("READY> ")
    finally:
        started.kill()


def test_a_shell_completes_what_is_typed_after_it_was_taught(shell: Shell) -> None:
    # Only what was completed to `flyx config path` prints it.
    shell.type("flyx conf\tpa\t\r").says(".config/flyx/config.toml")
