"""Trees as people have them: all that a receiver can have arrives as it is, and what it cannot is named."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

from e2e.mounts import mounted
from e2e.processes import Flyx, FlyxProcess, need, write_sparse
from flyx.errors import EXIT_DONE, EXIT_FAILED

MB = 1_000_000

# What Linux has and Windows, or a filesystem that folds case, has not; the kernel's sources have some of it.
NAMES = [
    b"drivers/gpu/drm/nouveau/nvkm/subdev/i2c/aux.c",
    b"include/soc/aux.h",
    b"net/netfilter/xt_TCPMSS.c",
    b"net/netfilter/xt_tcpmss.c",
    b"music/R.E.M./a:b?.mp3",
    b"back\\slash",
    b"trailing ",
    b"latin-1 \xe9",
    "nfc \u00e9".encode(),
    "nfc e\u0301".encode(),
    b"con",
    b"-rf",
    b"n" * 255,
]
STEERING = [b"Icon\r", "photo\u202egpj.exe".encode()]


# Of the kernel's sources: files that differ in case alone, by directory, and links.
KERNEL = {
    "include/uapi/linux/netfilter": ["CONNMARK.h", "DSCP.h", "MARK.h", "RATEEST.h", "TCPMSS.h"],
    "include/uapi/linux/netfilter_ipv4": ["ECN.h", "TTL.h"],
    "include/uapi/linux/netfilter_ipv6": ["HL.h"],
    "net/netfilter": ["DSCP.c", "HL.c", "RATEEST.c"],
}
KERNEL_LINKS = {
    "Documentation/Changes": "process/changes.rst",
    "scripts/dtc/include-prefixes/arm64": "../../../arch/arm64/boot/dts",
    "tools/testing/selftests/powerpc/asm": "../../../../arch/powerpc/asm",
}
KERNEL_FILES = 1_500


def make_kernel(tree: Path) -> None:
    """A tree of the shape of the kernel's sources."""
    for directory, names in KERNEL.items():
        (tree / directory).mkdir(parents=True, exist_ok=True)
        for name in names:
            stem, _, ending = name.partition(".")
            for twin in (stem, stem.lower()):
                (tree / directory / f"xt_{twin}.{ending}").write_text(twin)
    for path, target in KERNEL_LINKS.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).symlink_to(target)
    for n in range(KERNEL_FILES):
        place = tree / "drivers" / f"{n % 60:02}" / f"{n % 7}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"file{n}.c").write_bytes(bytes(n % 300))


def make_tree(tree: Path) -> None:
    for name in NAMES + STEERING:
        path = os.fsencode(tree) + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(name)
    (tree / "empty").mkdir()
    (tree / "link").symlink_to("include/soc/aux.h")
    (tree / "net" / "dangling").symlink_to("nowhere")
    (tree / "include" / "up").symlink_to("../net/netfilter")
    (tree / "hard").hardlink_to(tree / "con")
    with (tree / "sparse").open("wb") as file:
        file.truncate(300 * MB)
    os.utime(tree / "con", ns=(0, -(10**18)))
    (tree / "closed").mkdir()
    (tree / "closed" / "file").write_bytes(b"x")
    (tree / "closed").chmod(0o500)
    os.mkfifo(tree / "fifo")
    (tree / "outside").symlink_to("/etc/passwd")


def shape(directory: Path) -> dict[str, object]:
    """What is below a directory: of each path, what it is, and its content, mode and time."""
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content: object = None
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode) and status.st_size < MB:
            content = path.read_bytes()
        found[str(path.relative_to(directory))] = (
            oct(status.st_mode & ~0o022),
            content,
            status.st_size if stat.S_ISREG(status.st_mode) else 0,
            status.st_mtime_ns // 1000,
            status.st_nlink if stat.S_ISREG(status.st_mode) else 0,
        )
    return found


def left_out(process: FlyxProcess) -> dict[str, str]:
    return {event["path"]: event["error"] for event in process.named("file") if "error" in event}


def test_a_tree_arrives_byte_for_byte_but_for_what_steers_a_terminal(flyx: Flyx, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    make_kernel(tmp_path / "tree")
    sender = flyx.send("-n", "2", tmp_path / "tree")
    code = sender.code()
    everything = flyx.receive(code, tmp_path / "all", "--names", "keep").ends(EXIT_DONE)
    usual = flyx.receive(code, tmp_path / "usual").ends(EXIT_FAILED)
    sender.ends(EXIT_FAILED)

    wanted = shape(tmp_path / "tree")
    # What is no file is not sent, and is no failure.
    for name in ("fifo", "outside"):
        del wanted[name]
        assert any(name in event["message"] for event in everything.named("notice")), everything
    assert shape(tmp_path / "all" / "tree") == wanted
    assert (tmp_path / "all" / "tree" / "sparse").stat().st_blocks == 0
    steering = {os.fsdecode(name) for name in STEERING}
    for name in steering:
        del wanted[name]
    assert shape(tmp_path / "usual" / "tree") == wanted
    assert left_out(usual) == left_out(sender)
    assert set(left_out(usual)) == {f"tree/{name}" for name in steering}
    assert usual.event("done")["missing"] == len(steering)
    assert usual.event("error")["code"] == "files_failed"
    assert usual.event("done")["digest"] == sender.event("done", peer=2)["digest"]


def test_what_is_excluded_is_not_sent_and_is_no_failure(flyx: Flyx, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    (tmp_path / "tree" / ".gitignore").write_text("/net\n*.h\n")
    (tmp_path / "tree" / "drivers" / ".gitignore").write_text("!*.h\n/gpu/drm/\n")
    (tmp_path / "tree" / "drivers" / "kept.h").touch()
    (tmp_path / "patterns").write_text("# what steers a terminal\nIcon*\nphoto*\n!kept\n")
    patterns = ["--exclude", "sparse", "--exclude", "/include", "--exclude", "fifo", "--exclude", "outside"]
    options = ["--gitignore", "--exclude-from", str(tmp_path / "patterns"), *patterns]
    sender = flyx.send(tmp_path / "tree", *options)
    receiver = flyx.receive(sender.code(), tmp_path / "in").ends(EXIT_DONE)
    sender.ends(EXIT_DONE)
    # net, include, drm, sparse, fifo, outside, and two that steer a terminal
    (notice,) = sender.named("notice")
    assert notice["message"] == "8 files and directories are excluded"
    wanted = {
        path: thing
        for path, thing in shape(tmp_path / "tree").items()
        if not path.startswith(
            ("net", "include", "drivers/gpu/drm", "sparse", "fifo", "outside", "Icon", "photo")
        )
    }
    assert "drivers/kept.h" in wanted
    assert shape(tmp_path / "in" / "tree") == wanted
    assert receiver.event("done")["missing"] == 0
    assert sender.event("manifest")["files"] == receiver.event("manifest")["files"]


def test_what_a_filesystem_cannot_have_is_left_out_or_saved_under_another_name(
    flyx: Flyx, tmp_path: Path
) -> None:
    need("mkfs.exfat, of exfatprogs and exfat-fuse", shutil.which("mkfs.exfat") is not None)
    disk, image = tmp_path / "disk", write_sparse(tmp_path / "image", 200 * MB)
    subprocess.run(["mkfs.exfat", image], check=True, capture_output=True)
    make_tree(tmp_path / "tree")
    # It is large where there are no holes.
    (tmp_path / "tree" / "sparse").unlink()
    sender = flyx.send("-n", "2", tmp_path / "tree")
    code = sender.code()
    with mounted(["-t", "exfat-fuse", "-o", "loop", image], disk):
        usual = flyx.receive(code, disk / "usual").ends(EXIT_FAILED)
        safe = flyx.receive(code, disk / "safe", "--names", "safe").ends(EXIT_FAILED)
        sender.ends(EXIT_FAILED)

        tree = disk / "usual" / "tree"
        assert (tree / "net/netfilter/xt_TCPMSS.c").read_bytes() == b"net/netfilter/xt_TCPMSS.c"
        assert (tree / "hard").read_bytes() == b"con" or "tree/hard" in left_out(usual)
        missing = left_out(usual)
        assert "cannot tell its name" in missing["tree/net/netfilter/xt_tcpmss.c"]
        assert "cannot have its name" in missing["tree/back\\slash"]
        assert "no symbolic links" in missing["tree/link"]
        assert missing == left_out(sender) | missing

        # No other name makes a link of what can be none.
        assert all("symbolic" in reason for reason in left_out(safe).values()), safe
        tree = disk / "safe" / "tree"
        assert (tree / "net/netfilter/xt_tcpmss (1).c").read_bytes() == b"net/netfilter/xt_tcpmss.c"
        assert (tree / "back_slash").read_bytes() == b"back\\slash"
        assert [song.read_bytes() for song in tree.glob("music/R.E.M*/a_b_.mp3")] == [
            b"music/R.E.M./a:b?.mp3"
        ]
        assert (tree / "Icon_").read_bytes() == b"Icon\r"
        assert (tree / "latin-1 _").read_bytes() == b"latin-1 \xe9"
        assert not list(disk.glob("**/.flyx*"))
