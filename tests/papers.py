"""What of the papers is written by the program: rows of options in commands.md, and the manual page.

    python -m tests.papers

brings both up to date, a row for a new option included, and a test fails while they are not. Of a row, all
up to the first full stop is generated from the command; what comes after it is the document's own, and is in
the manual page as well.
"""

from __future__ import annotations

import datetime
import re
import textwrap
from collections.abc import Iterator
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer.main

import flyx
from flyx.cli.app import app
from flyx.cli.config_template import default_text

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = ROOT / "flyx" / "docs"
COMMANDS_PAPER = DOCUMENTS / "commands.md"
EXIT_CODES_PAPER = DOCUMENTS / "scripting.md"
MANUAL = DOCUMENTS / "flyx.1"

PROGRAM: Any = typer.main.get_command(app)

_ROW = re.compile(r"^\| (?:`-\w`, )?`(--[\w-]+)[^|]*(?:\\\|[^|]*)*\| `FLYX_\w+` \| (.*) \|$", re.MULTILINE)


def commands_of(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that people are told of, those of groups too, by what comes after `flyx`."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, f"{before}{name} ")
        elif not command.hidden:
            yield f"{before}{name}", command


COMMANDS: dict[str, Any] = dict(commands_of(PROGRAM))


def options_of(command: Any) -> dict[str, Any]:
    """The options of a command by their long names."""
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    return {max(each.opts, key=len): each for each in options}


def spellings(option: Any) -> list[str]:
    """How an option may be written, the last with what it takes."""
    names = [*sorted(option.opts, key=len), *option.secondary_opts]
    choices = option.type_descriptor.choices
    value = option.metavar or ("|".join(str(each.value) for each in choices) if choices else "")
    return [*names[:-1], f"{names[-1]} {value}" if value and not option.is_flag else names[-1]]


def meaning(option: Any) -> str:
    """What the help says of an option, what it may be, and what it is by default, as Markdown."""
    said = default_text(option)
    text = option.help.removesuffix(f"[default: {said}]").rstrip()
    parts = [text]
    is_port = option.metavar == "PORT"
    if option.min is not None and option.max is not None and not is_port:
        parts.append(f"{_number(option.min)} to {_number(option.max)}")
    if said:
        parts.append(f"default {said}" if said.isdecimal() else f"default: {said}")
    match option.default.value if isinstance(option.default, Enum) else option.default:
        case None | False:
            pass
        case int() | float() as number:
            parts.append(f"default {number if is_port else _number(number)}")
        case text:
            parts.append(f"default `{text}`")
    # What stands in code already is left as it is.
    pieces = "; ".join(parts).split("`")
    return "`".join(piece if n % 2 else _CODE.sub(r"`\g<0>`", piece) for n, piece in enumerate(pieces))


_CODE = re.compile(
    r"(?<![\w/-])(?:"
    r"--[a-z][a-z-]*|@FILE\b|/[a-z]+(?:/[A-Z]+)?\b|"
    # URLs, and the dash for standard input.
    r"[a-z]+://\S+\w|[a-z]+:\S*\w[:@]\S*\w|(?:(?<=or )|(?<=, ))-(?= ))"
)


def _number(number: float) -> str:
    return f"{number:,.10g}"


def row(option: Any, own: str = "") -> str:
    """The row of an option in commands.md, with what that has to add."""
    written = ", ".join(f"`{each}`" for each in spellings(option)).replace("|", "\\|")
    return f"| {written} | `{option.envvar}` | {meaning(option)}{f'. {own}' if own else ''} |"


def section_of(paper: str, command: str) -> str:
    """What commands.md says of a command, or of the group that it is of."""
    rest = paper.split(f"\n## `flyx {command.split()[0]}", 1)[1]
    return re.split(r"^##+ ", rest, flags=re.MULTILINE)[0]


def own_words(paper: str, command: str) -> dict[str, str]:
    """What commands.md adds of the options in the tables of a command."""
    return {found[1]: found[2].partition(". ")[2] for found in _ROW.finditer(section_of(paper, command))}


def with_fresh_rows(paper: str) -> str:
    """commands.md with rows as the commands are now.

    Which tables there are, and their order, is its own; an option without a row gets one below that of the
    option that the command has before it.
    """
    for name, command in COMMANDS.items():
        options, section = options_of(command), section_of(paper, name)

        def renewed(found: re.Match[str], options: dict[str, Any] = options) -> str:
            option = options.get(found[1])
            return found[0] if option is None else row(option, found[2].partition(". ")[2])

        fresh = _ROW.sub(renewed, section)
        for (before, _), (spelling, option) in pairwise(options.items()):
            above = _row_of(fresh, before)
            if above and f"`{spelling}" not in fresh:
                fresh = fresh.replace(above, f"{above}\n{row(option)}", 1)
        paper = paper.replace(section, fresh)
    return paper


def _row_of(section: str, name: str) -> str | None:
    """The row of an option, if it has one."""
    return next((found[0] for found in _ROW.finditer(section) if found[1] == name), None)


# The manual page.


def roff(text: str) -> str:
    """A piece of Markdown as the language of manual pages: code in bold, links as what they say."""
    text = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", text).replace("\\|", "|").replace("\\", "\\e")
    text = text.replace("-", "\\-").replace("'", "\\(aq").replace("**", "")
    text = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", text).replace("^", "\\(ha").replace("~", "\\(ti")
    return text


def prose(markdown: str) -> str:
    """A paragraph as the language of manual pages, in lines of a good length."""
    text = roff(" ".join(markdown.split()))
    filled = textwrap.fill(text, 78, break_long_words=False, break_on_hyphens=False)
    # A line that begins with a dot would be a command.
    return re.sub(r"^\.", r"\\&.", filled, flags=re.MULTILINE)


def paragraphs(markdown: str) -> Iterator[str]:
    """Paragraphs, lists and blocks of code of a document."""
    for part in re.split(r"\n\n+(?![ `]*```\n)", markdown.strip()):
        if block := re.match(r"```\w*\n(.*?)```", part, re.DOTALL):
            yield ".PP\n.RS 4\n.nf\n" + roff(block[1].rstrip()) + "\n.fi\n.RE"
        elif part.startswith("- "):
            items = re.split(r"^- ", part, flags=re.MULTILINE)[1:]
            yield "\n".join(f".IP \\(bu 2\n{prose(item)}" for item in items)
        elif part:
            yield f".PP\n{prose(part)}"


def manual(commands: str, date: str) -> str:
    """The manual page, of this date, from the text of commands.md."""
    title = f'.TH FLYX 1 "{date}" "flyx {flyx.__version__}" "User Commands"'
    parts = [
        '.\\" Written by `python -m tests.papers` from the commands and the documents.',
        title,
        ".SH NAME",
        prose(f"flyx - {PROGRAM.help[:1].lower()}{PROGRAM.help[1:]}"),
        ".SH SYNOPSIS",
        "\n.br\n".join(f".B {_usage(name, command)}" for name, command in COMMANDS.items()),
        ".SH DESCRIPTION",
        *paragraphs(re.split(r"\n\nInstall", README.read_text().split("# flyx\n", 1)[1], maxsplit=1)[0]),
        ".SH OPTIONS",
        *(_entry(option, "") for option in options_of(PROGRAM).values()),
        ".SH COMMANDS",
        *_commands(commands),
        ".SH CONFIGURATION",
        *paragraphs(re.split(r"\n\n`FLYX_SCTP", commands.split("# Commands\n", 1)[1], maxsplit=1)[0]),
        ".SH ON THE LOCAL NETWORK",
        *paragraphs(re.split(r"\n#+ ", commands.split("\n### On the local network\n", 1)[1], maxsplit=1)[0]),
        ".SH ENVIRONMENT",
        *_variables(),
        ".SH FILES",
        *(f".TP\n.I {roff(path)}\n{prose(what)}" for path, what in _FILES),
        ".SH EXIT STATUS",
        *(f".TP\n.B {status}\n{prose(what)}" for status, what in exit_statuses()),
        ".SH EXAMPLES",
        *(f".TP\n.B {roff(example)}\n{roff(summary)}." for example, summary in _examples()),
        ".SH SEE ALSO",
        ".BR ssh (1),\n.BR rsync (1),\n.BR turnserver (1)",
    ]
    # Sections and tagged paragraphs begin a paragraph of their own.
    return re.sub(r"^(\.S[HS] .*)\n\.PP\n", r"\1\n", "\n".join(parts) + "\n", flags=re.MULTILINE)


_FILES = [
    ("~/.config/flyx/config.toml", "Options of each command; `flyx config path` prints where it is here."),
    ("DIR/.flyx", "What has arrived of transfers that ended too early, in the directory to save into."),
]

_OTHER_VARIABLES = [
    ("FLYX_CONFIG", "Configuration file in the place of the usual one."),
    ("FLYX_SCTP", "`aiortc`: use SCTP of aiortc in the place of our own."),
    (
        "FLYX_TRACE",
        "File or directory for a capture of SCTP packets in the clear, for Wireshark.",
    ),
    ("HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY", "Proxies to the signaling server, and what needs none."),
    ("SSL_CERT_FILE, SSL_CERT_DIR", "Authorities in the place of the system's."),
    ("VISUAL, EDITOR", "Editor of `flyx config edit`."),
]


def _usage(name: str, command: Any) -> str:
    arguments = []
    for each in command.params:
        if each.param_type_name == "argument":
            shown = f"{each.metavar}{'...' if each.nargs != 1 else ''}"
            arguments.append(shown if each.required else f"[{shown}]")
    return roff(" ".join(["flyx", name, "[OPTIONS]", *arguments]))


def _entry(option: Any, own: str) -> str:
    written = ", ".join(f"\\fB{roff(name)}\\fR" for name in spellings(option))
    variable = f" ({option.envvar})" if option.envvar else ""
    said = f"{meaning(option)}{variable}.{f' {own}.' if own else ''}"
    return f".TP\n{written}\n{prose(said)}"


def _commands(commands: str) -> Iterator[str]:
    seen: dict[tuple[str, str], str] = {}
    for name, command in COMMANDS.items():
        yield f'.SS "{_usage(name, command)}"'
        text = re.sub(r"\n *Example: .*", "", command.help).strip()
        summary, _, rest = text.partition("\n")
        yield from paragraphs(f"{summary}.\n\n{rest}")
        elsewhere: dict[str, list[str]] = {}
        own = own_words(commands, name)
        for argument in command.params:
            if argument.param_type_name == "argument":
                variable = f" ({argument.envvar})" if argument.envvar else ""
                yield f".TP\n\\fI{argument.metavar}\\fR\n{prose(f'{argument.help}{variable}.')}"
        for spelling, option in options_of(command).items():
            first = seen.setdefault((spelling, str(option.envvar)), name)
            if first == name:
                yield _entry(option, own.get(spelling, ""))
            else:
                elsewhere.setdefault(first, []).append(f"`{spelling}`")
        for first, spelled in elsewhere.items():
            yield f".PP\n{prose(f'As for flyx {first}: ' + ', '.join(spelled))}."


def _variables() -> Iterator[str]:
    users: dict[tuple[str, str], list[str]] = {}
    for name, command in [("", PROGRAM), *COMMANDS.items()]:
        for each in command.params:
            if each.envvar:
                what = each.metavar if each.param_type_name == "argument" else max(each.opts, key=len)
                users.setdefault((each.envvar, what), []).append(f"flyx {name}".rstrip())
    told = [(name, f"`{what}` of {', '.join(places)}.") for (name, what), places in users.items()]
    for name, what in sorted(told + _OTHER_VARIABLES):
        yield f".TP\n.B {name}\n{prose(what)}"


def exit_statuses() -> list[tuple[str, str]]:
    """The table of exit statuses in scripting.md."""
    table = EXIT_CODES_PAPER.read_text().split("## Exit codes\n\n", 1)[1].split("\n\n", 1)[0]
    return re.findall(r"^\| (\d+) \| (.*?) \|$", table, re.MULTILINE)


def _examples() -> Iterator[tuple[str, str]]:
    for command in COMMANDS.values():
        (example,) = re.findall(r"Example: (.*)", command.help)
        yield example, command.help.splitlines()[0]


def date_of(page: str) -> str:
    """The date of a manual page."""
    found = re.search(r'^\.TH FLYX 1 "([\d-]+)"', page, re.MULTILINE)
    assert found is not None
    return found[1]


def main() -> None:
    """Bring the papers up to date; the manual page has a new date if it says something else."""
    commands = with_fresh_rows(COMMANDS_PAPER.read_text())
    COMMANDS_PAPER.write_text(commands)
    there = MANUAL.read_text() if MANUAL.exists() else ""
    if not there or manual(commands, date_of(there)) != there:
        MANUAL.write_text(manual(commands, datetime.datetime.now(datetime.UTC).date().isoformat()))


if __name__ == "__main__":
    main()
