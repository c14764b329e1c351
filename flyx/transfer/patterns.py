"""Patterns that choose among paths, in the language of gitignore(5), of which they keep every rule.

A tree from elsewhere brings patterns of its own, so matching takes no more time than the lengths of pattern
and path multiplied, whatever the pattern: a star that is followed by another one is never tried a second
time. That is why they are translated here: as regular expressions of one star after the other, which
libraries make, `*a*a*a*a*a*a*b` keeps the matcher busy for minutes.

Characters are those of names, where git has bytes: `?` is one letter, also one beyond ASCII. Letters that
differ in case are different ones.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from flyx.transfer.manifest import path_of_bytes

MAX_PATTERNS_SIZE = 1 << 20
"""Bytes of a file of patterns; a larger one is none."""

_SPECIAL = frozenset("*?[\\")

_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r" \t\n\v\f\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
"""As in regular expressions, between brackets; git knows them in ASCII alone."""

_IN_SEGMENT = "[^/]"
_DIRECTORIES = "(?:[^/]+/)*"


def pattern_lines(content: bytes) -> list[str]:
    """Return the lines of a file of patterns, for Patterns: a mark of UTF-8 and CRLF are heeded as by git."""
    lines = path_of_bytes(content.removeprefix(codecs.BOM_UTF8)).split("\n")
    return [line.removesuffix("\r") for line in lines]


class Patterns:
    """A list of patterns: of those that match, the last one decides."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        """Args:
        lines: as in a .gitignore file, without the ends of lines; empty lines, comments and what can match
            nothing count for nothing.
        """
        rules = [rule for line in lines if (rule := _rule_of(line))]
        self._runs = _runs(rules)

    def __bool__(self) -> bool:
        """Whether anything can match."""
        return bool(self._runs)

    def verdict(self, path: str, *, is_directory: bool) -> bool | None:
        """Return what the last pattern that matches a path says, whatever holds for the directories above.

        Args:
            path: relative to the directory that the patterns are for; its parts are joined by slashes.
            is_directory: whether that is what is there.

        Returns:
            True: it is chosen; False: it is not, by a pattern with `!`; None: no pattern matches.
        """
        name = path.rpartition("/")[2]
        for run in self._runs:
            if run.matches(path, name, is_directory):
                return run.chooses
        return None

    def name_verdict(self, name: str, *, is_directory: bool) -> bool | None:
        """Return the same of the directory that the patterns are for, or of a file that stands for one.

        It has a name, and no path: patterns with a slash in front or in the middle do not speak of it.
        """
        for run in self._runs:
            if run.matches(None, name, is_directory):
                return run.chooses
        return None


class _Rule(Struct, frozen=True):
    """One pattern.

    Attributes:
        chooses: whether it chooses what it matches; False after `!`.
        directories: it matches nothing else.
        of_name: it matches the last part of a path; else the whole.
        text: what it matches, if that is one text only.
        regex: a regular expression for all of what it matches.
    """

    chooses: bool
    directories: bool
    of_name: bool
    text: str | None
    regex: str


class _Matcher:
    """Matches a text by any of some rules."""

    def __init__(self, rules: Sequence[_Rule]) -> None:
        self._texts = frozenset(rule.text for rule in rules if rule.text is not None)
        regexes = [rule.regex for rule in rules if rule.text is None]
        self._regex = re.compile("|".join(regexes), re.DOTALL) if regexes else None

    def matches(self, text: str) -> bool:
        return text in self._texts or bool(self._regex and self._regex.fullmatch(text))


class _Run:
    """Rules in a row that all choose, or all do not: which of them matches is all the same."""

    def __init__(self, rules: Sequence[_Rule]) -> None:
        self.chooses = rules[0].chooses
        # By what it is matched against, and whether it is of directories alone; most are empty.
        self._matchers = [
            (of_name, directories, _Matcher(some))
            for of_name in (True, False)
            for directories in (False, True)
            if (some := [r for r in rules if (r.of_name, r.directories) == (of_name, directories)])
        ]

    def matches(self, path: str | None, name: str, is_directory: bool) -> bool:
        for of_name, directories, matcher in self._matchers:
            text = name if of_name else path
            if text is not None and (is_directory or not directories) and matcher.matches(text):
                return True
        return False


def _runs(rules: Sequence[_Rule]) -> list[_Run]:
    """Return the runs of rules, the last first."""
    runs: list[list[_Rule]] = []
    for rule in reversed(rules):
        if runs and runs[-1][0].chooses is rule.chooses:
            runs[-1].append(rule)
        else:
            runs.append([rule])
    return [_Run(run) for run in runs]


def _rule_of(line: str) -> _Rule | None:
    """Return the rule that a line of a .gitignore file stands for, if it is one that can match."""
    if line.startswith("#"):
        return None
    pattern = _without_trailing_spaces(line)
    chooses = not pattern.startswith("!")
    pattern = pattern if chooses else pattern[1:]
    directories = pattern.endswith("/")
    pattern = pattern.removesuffix("/")
    of_name = "/" not in pattern
    pattern = pattern.removeprefix("/")
    if not pattern:
        return None
    if not _SPECIAL.intersection(pattern):
        return _Rule(chooses, directories, of_name, pattern, "")
    regex = _regex_of(pattern)
    return None if regex is None else _Rule(chooses, directories, of_name, None, regex)


def _without_trailing_spaces(line: str) -> str:
    """Return a line without the spaces at its end, but one that a backslash keeps."""
    stripped = line.rstrip(" ")
    backslashes = len(stripped) - len(stripped.rstrip("\\"))
    return stripped + " " if backslashes % 2 and len(stripped) < len(line) else stripped


def _regex_of(pattern: str) -> str | None:
    """Return the regular expression of a pattern; None if it can match nothing."""
    made = _Regex()
    at = 0
    while at < len(pattern):
        match pattern[at]:
            case "*":
                begin = at
                while at < len(pattern) and pattern[at] == "*":
                    at += 1
                is_part = begin == 0 or pattern[begin - 1] == "/"
                if at - begin == 1 or not is_part or pattern[at : at + 1] not in ("", "/"):
                    made.star()
                elif at == len(pattern):
                    # It has to be below the directory before it.
                    made.fixed(".+")
                else:
                    made.directories()
                    at += 1
            case "?":
                made.fixed(_IN_SEGMENT)
                at += 1
            case "[":
                found = _brackets(pattern, at + 1)
                if found is None:
                    return None
                regex, at = found
                made.fixed(regex)
            case "\\":
                if at + 1 == len(pattern):
                    return None
                made.fixed(re.escape(pattern[at + 1]))
                at += 2
            case character:
                made.fixed(re.escape(character))
                at += 1
    return made.value()


class _Regex:
    """Joins a regular expression so that stars cost little.

    What stands between two stars is best found where it comes first, as the second star takes whatever is
    left; so nothing but what comes after the last one is ever tried at several places.
    """

    def __init__(self) -> None:
        # What is complete; what began with the last `**/`, and what began with the last star after that.
        self._done = ""
        self._after_directories: str | None = None
        self._after_star: str | None = None

    def fixed(self, regex: str) -> None:
        """Add what matches one character."""
        if self._after_star is not None:
            self._after_star += regex
        elif self._after_directories is not None:
            self._after_directories += regex
        else:
            self._done += regex

    def star(self) -> None:
        """Add any characters within a part of a path."""
        self._end_star(is_last=False)
        self._after_star = ""

    def directories(self) -> None:
        """Add any directories, or none."""
        self._end_star(is_last=False)
        self._end_directories(is_last=False)
        self._after_directories = ""

    def value(self) -> str:
        """Return all of it."""
        self._end_star(is_last=True)
        self._end_directories(is_last=True)
        return self._done

    def _end_star(self, *, is_last: bool) -> None:
        if (rest := self._after_star) is not None:
            self._after_star = None
            self.fixed(f"{_IN_SEGMENT}*{rest}" if is_last else f"(?>{_IN_SEGMENT}*?{rest})")

    def _end_directories(self, *, is_last: bool) -> None:
        if (rest := self._after_directories) is not None:
            self._after_directories = None
            self.fixed(f"{_DIRECTORIES}{rest}" if is_last else f"(?>{_DIRECTORIES}?{rest})")


def _brackets(pattern: str, at: int) -> tuple[str, int] | None:
    """Translate what is in brackets, from the character after the first on.

    Returns:
        The regular expression of one character, and what comes after the brackets; None if they are not
        closed, or have a class that there is not.
    """
    negated = pattern[at : at + 1] in ("!", "^") and at < len(pattern)
    at += negated
    begin = at
    members = ""
    # The last character, if a range may begin with it.
    last: str | None = None
    while at < len(pattern) and (at == begin or pattern[at] != "]"):
        character = pattern[at]
        if character == "[" and pattern[at + 1 : at + 2] == ":":
            end = pattern.find("]", at + 2)
            if end < 0:
                return None
            if pattern[end - 1] == ":" and end - 1 >= at + 2:
                known = _CLASSES.get(pattern[at + 2 : end - 1])
                if known is None:
                    return None
                members, last, at = members + known, None, end + 1
                continue
        elif character == "-" and last is not None and pattern[at + 1 : at + 2] not in ("", "]"):
            end = at + 1 + (pattern[at + 1] == "\\")
            if end == len(pattern):
                return None
            if last <= pattern[end]:
                members += f"{re.escape(last)}-{re.escape(pattern[end])}"
            last, at = None, end + 1
            continue
        elif character == "\\":
            at += 1
            if at == len(pattern):
                return None
            character = pattern[at]
        members += re.escape(character)
        last = character
        at += 1
    if at == len(pattern):
        return None
    if negated:
        return f"[^/{members}]", at + 1
    return (f"(?!/)[{members}]" if members else "(?!)"), at + 1


NO_PATTERNS = Patterns()
