"""The README's three terminals: its commands run as they stand there, its outputs compared line by line."""

from __future__ import annotations

import re
from pathlib import Path

from e2e.processes import Flyx, sha256, write_random
from flyx.errors import EXIT_DONE

README = Path(__file__).parents[1] / "README.md"

# What differs from run to run: the code, ports and directories, times and rates.
VARYING = [
    (re.compile(r"(?<=flyx receive )\S+|(?<=^Joined )\w+"), "CODE"),
    (re.compile(r"ws://\S+"), "URL"),
    (re.compile(r"(?<=Save into )\S+(?=\?)"), "DIRECTORY"),
    (re.compile(r"\(\w+ to \w+, "), "(PATH, "),
    (re.compile(r"[\d.]+ (?=ms|s,|s$|[kMG]?B/s|bytes/s)"), "N "),
    (re.compile(r"[kM]?B/s"), "MB/s"),
]


def examples() -> list[tuple[str, list[str]]]:
    """Command and expected output of each console block, in order."""
    blocks = re.findall(r"```console\n\$ (.*?)\n(.*?)```", README.read_text(), re.DOTALL)
    return [(command, output.splitlines()) for command, output in blocks]


def generalised(lines: list[str]) -> list[str]:
    """Lines without what differs from run to run."""
    general = []
    for line in lines:
        for pattern, word in VARYING:
            line = pattern.sub(word, line)
        general.append(line)
    return general


def screen_lines(screen: str) -> list[str]:
    """What stays on a terminal when bars have come and gone."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen)
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    return [line for line in lines if line and "━" not in line]


def test_the_three_terminals_show_what_the_readme_shows(flyx: Flyx) -> None:
    (serve, ready), (send, offered), (receive, received) = examples()
    source = write_random(flyx.directory / "file.bin", 1_000_000)
    target = flyx.directory / "target"
    target.mkdir()
    loopback = {"FLYX_HOST": "127.0.0.1", "FLYX_PORT": "0", "FLYX_STUN": "none"}

    server = flyx.start(*serve.split()[1:], **loopback)
    flyx.environment = flyx.environment | {"FLYX_SERVER": server.prints(r"ws://\S+(?=\n)")[0]}
    sender = flyx.start(*send.split()[1:])
    code = sender.code()
    command = receive.replace("K7M2QX-lemon-otter", code).split()[1:]
    receiver = flyx.terminal(*command, FLYX_OUTPUT=str(target)).says("[y/N] ")
    receiver.type("y\r")
    receiver.ends(EXIT_DONE)
    sender.ends(EXIT_DONE)

    assert sha256(target / "file.bin") == sha256(source)
    assert generalised(server.out.splitlines()) == generalised(ready)
    shown_by_sender = sender.err.splitlines()
    assert generalised(shown_by_sender[:2]) == generalised(offered[:2])
    assert generalised(sender.out.splitlines()) == generalised(offered[2:])
    shown = [line for line in screen_lines(receiver.err) if line != str(target / "file.bin")]
    expected = [line for line in generalised(received) if line != "file.bin"]
    assert generalised(shown) == expected
