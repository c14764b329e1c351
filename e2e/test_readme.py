"""The terminals of README and the codes of their document run as they stand, outputs compared by lines."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from e2e.documents import Shell, blocks_of
from e2e.processes import Flyx, sha256, write_random
from flyx.client.codes import format_code, parse_code
from flyx.errors import EXIT_DONE
from flyx.pairing.words import password_of, resolve_words

CODES = Path(__file__).parents[1] / "flyx" / "docs" / "codes.md"

# What differs from run to run: the code, ports and directories, times and rates.
VARYING = [
    (re.compile(r"(?<=flyx receive )\S+|(?<=^Joined )\w+"), "CODE"),
    (re.compile(r"ws://\S+"), "URL"),
    (re.compile(r"(?<=Save into )\S+(?=\?)|(?<= into )\S+(?= in )"), "DIRECTORY"),
    (re.compile(r"\(\w+ to \w+, "), "(PATH, "),
    (re.compile(r"[\d.]+ (?=ms|s,|s$|[kMG]?B/s|bytes/s)"), "N "),
    (re.compile(r"[kM]?B/s"), "MB/s"),
]


def examples() -> list[tuple[str, list[str]]]:
    """Command and expected output of each console block, in order."""
    blocks = [block.removeprefix("$ ").splitlines() for block in blocks_of("README.md", "console")]
    return [(command, output) for command, *output in blocks]


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


def test_the_terminals_show_what_the_readme_shows(flyx: Flyx) -> None:
    (send, offered), (receive, received), (serve, ready) = examples()
    source = write_random(flyx.directory / "file.bin", 1_000_000)
    target = flyx.directory / "target"
    target.mkdir()
    server = flyx.start(*serve.split()[1:], FLYX_HOST="127.0.0.1", FLYX_PORT="0", FLYX_STUN="none")

    # With nothing configured, and no server but the sender itself.
    sender = flyx.start(*send.split()[1:])
    code = sender.code()
    command = receive.replace("K7M2QX-lemon-otter", code).split()[1:]
    receiver = flyx.terminal(*command, FLYX_OUTPUT=str(target)).says("[y/N] ")
    receiver.type("y\r")
    receiver.ends(EXIT_DONE)
    sender.ends(EXIT_DONE)

    assert sha256(target / "file.bin") == sha256(source)
    server.prints(r"ws://\S+(?=\n)")
    assert generalised(server.out.splitlines()) == generalised(ready)
    shown_by_sender = sender.err.splitlines()
    assert generalised(shown_by_sender[:3]) == generalised([*offered[:2], *offered[3:]])
    assert generalised(sender.out.splitlines()) == generalised(offered[2:3])
    shown = [line for line in screen_lines(receiver.err) if line != str(target / "file.bin")]
    expected = [line for line in generalised(received) if line != "file.bin"]
    assert generalised(shown) == expected


def test_the_codes_of_the_document_are_made_and_understood_as_it_says(flyx: Flyx) -> None:
    section = CODES.read_text().split("\n## ")[0]
    write_random(flyx.directory / "file.bin", 1000)
    commands = [shlex.split(command) for command in re.findall(r"`(flyx send [^`]+)`", section)]
    (pipeline,) = blocks_of("flyx/docs/codes.md", "sh")
    codes = [r"\w{6}(-[a-z]+){4}", r"\w{6}-nobody-guesses-this", r"\w{6}"]
    shell = Shell(flyx)
    for n, (command, code) in enumerate(zip(commands, codes, strict=True)):
        sender = flyx.start(*command[1:])
        assert re.fullmatch(code, sender.code())
        trust = " --open" if "--open" in command else ""
        done = shell.run(pipeline.rstrip() + trust, CODE=sender.code(), FLYX_OUTPUT=f"in-{n}")
        assert done.returncode == EXIT_DONE, done
        sender.ends(EXIT_DONE)
    (typed,) = re.findall(r'`flyx receive "([^"]+)"`', section)
    room_id, words = parse_code(typed)
    assert format_code(room_id, password_of(resolve_words(words, 2))) == "K7M2QX-lemon-otter"
