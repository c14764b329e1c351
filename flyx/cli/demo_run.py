"""What `flyx demo` does: a server in this process, a sender and a receiver in processes of their own.

The bytes take the way that they always take, over WebRTC; the result is compared by hashing both ends afresh.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from flyx.cli.output import report_line, write_data
from flyx.cli.subprocesses import await_event, flyx_process
from flyx.errors import CorruptData, FlyxError, printable, size_text
from flyx.server.app import Server
from flyx.server.config import ServerConfig

_CHUNK = 1 << 20


async def run_demo(path: Path | None, size: int) -> None:
    """Send path, or size bytes of random data, from one process to another, and compare.

    Raises:
        FlyxError: the transfer failed, or other bytes arrived than were sent.
    """
    with tempfile.TemporaryDirectory(prefix="flyx-demo-") as scratch:
        source = path or Path(scratch, "random.bin")
        if path is None:
            await asyncio.to_thread(_write_random, source, size)
        target = Path(scratch, "received")
        config = ServerConfig(host="127.0.0.1", port=0, stun_urls=(), test_room=False)
        async with Server(config) as server:
            report_line(f"server    {server.url}")
            done = await _transfer(server.url, source, target)
        received = target / source.resolve().name
        ours, theirs = await asyncio.gather(
            asyncio.to_thread(tree_digest, source.resolve()), asyncio.to_thread(tree_digest, received)
        )
    report_line(f"sha-256   {ours} sent")
    report_line(f"          {theirs} received")
    if ours != theirs:
        raise CorruptData(path=source.name)
    speed = done["bytes"] / max(done["seconds"], 1e-9) / 1e6
    write_data(f"{done['bytes']} bytes in {done['seconds']:.2f} s, {speed:.1f} MB/s, identical")


async def _transfer(server: str, source: Path, target: Path) -> dict[str, Any]:
    """Run both ends and return the receiver's `done` event."""
    async with flyx_process("send", "--server", server, "--json", "--", str(source)) as sender:
        room = await await_event(sender, "room")
        report_line(f"sender    process {sender.pid}, code {room['code']}")
        arguments = ["--server", server, "--json", "--yes", "-o", str(target)]
        async with flyx_process("receive", *arguments, FLYX_CODE=room["code"]) as receiver:
            report_line(f"receiver  process {receiver.pid}")
            route = await await_event(receiver, "path")
            report_line(f"path      {route['local']} to {route['remote']}, {route['rtt'] * 1000:.1f} ms")
            done = await await_event(receiver, "done")
            await await_event(sender, "done")
            await await_event(receiver, None)
            statuses = await sender.wait(), await receiver.wait()
    if statuses != (0, 0):
        raise FlyxError(reason=f"the processes ended with {statuses}")
    report_line(f"moved     {size_text(done['bytes'])}")
    return done


def _write_random(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for start in range(0, size, _CHUNK):
            file.write(os.urandom(min(_CHUNK, size - start)))


def tree_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a file, or of a directory's names and contents."""
    digest = hashlib.sha256()
    if path.is_file():
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()
    for child in sorted(path.rglob("*")):
        # Links are kept as links, and all else that is no file or directory is not sent.
        if child.is_symlink() or not (child.is_file() or child.is_dir()):
            continue
        name = str(child.relative_to(path))
        content = tree_digest(child) if child.is_file() else "directory"
        digest.update(f"{printable(name)}\n{content}\n".encode())
    return digest.hexdigest()
