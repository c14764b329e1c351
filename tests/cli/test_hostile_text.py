"""Whatever a server or a peer writes, every output stays readable: one line a line, and nothing steers.

Every text field of every event, and every field of every error, with hostile text, in every way of rendering.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, get_args, get_type_hints

import pytest

from flyx import errors
from flyx.cli import output
from flyx.cli.offer import all_lines, summarize
from flyx.cli.output import JsonReporter, QuietReporter, Reporter, log_to_stderr, report_error
from flyx.cli.progress import HumanReporter
from flyx.client import events
from flyx.client.limits import Limit
from flyx.errors import FlyxError, printable, without_controls
from flyx.pairing import messages as pairing
from flyx.rtc.attempts import Attempts, PairAttempt, PairState, ServerAttempt
from flyx.rtc.path import CandidatePair
from flyx.signaling import messages as signaling
from flyx.transfer import messages as transfer
from flyx.transfer.left_out import LeftOut
from flyx.transfer.manifest import Entry, EntryKind, Manifest
from tests.cli.screen import on_terminal
from tests.hostile_text import HOSTILE, assert_tame, changed, example, text_places


def every_error() -> list[type[FlyxError]]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FlyxError)]
    assert len(kinds) > 30
    return kinds


def hostile_error(kind: type[FlyxError], text: str) -> FlyxError:
    """An error with this text in each field of its message that is no number."""
    fields = string.Formatter().parse(kind.__doc__ or "")
    filled = {name: 1.0 if form else text for _, name, form, _ in fields if name}
    return kind(hint=text, **filled)


def hostile_manifest(text: str) -> Manifest:
    # No path has a NUL: tests/transfer/test_messages.py.
    text = text.replace("\0", "")
    entries = [Entry(f"{text}/{n}", EntryKind.FILE, 10, 0o755, 0) for n in range(3)]
    link = Entry(f"{text}/link", EntryKind.SYMBOLIC_LINK, 0, 0, 0, target=text)
    absent = LeftOut(((text, "special_file"), (text, "file_unreadable")), 1, 1)
    return Manifest([Entry(text, EntryKind.DIRECTORY, 0, 0o777, 0), link, *entries], left_out=absent)


def values_of(kind: Any, text: str) -> list[Any]:
    """What a field of this type may hold."""
    if kind is str or kind == str | None:
        return [text]
    if kind is FlyxError or kind == FlyxError | None:
        return [hostile_error(errors.TransferRefused, text), hostile_error(errors.ConnectionLost, text)]
    if kind is Manifest:
        # Where there is no such path, no manifest has it: the grammar takes Unicode alone.
        return [hostile_manifest(text)] if is_unicode(text) else [hostile_manifest("a")]
    if kind is bool:
        return [False, True]
    if kind is Attempts:
        pair = PairAttempt(text, text, 4, PairState.FAILED, text, text)
        return [Attempts((pair,), (ServerAttempt(f"turn:{text}", "turn", text),), 1)]
    if kind is CandidatePair:
        return [CandidatePair(text, text), CandidatePair("relay", text, relay=text)]
    if kind == Limit | None:
        return [None, Limit.NETWORK]
    if kind == int | None:
        return [30, None]
    if kind == float | None:
        return [None, 0.02]
    assert kind in (int, float), f"a field of {kind}: say here what it may hold"
    return [1]


def is_unicode(text: str) -> bool:
    return not any(0xD800 <= ord(c) < 0xE000 for c in text)


def hostile_events(text: str) -> Iterator[events.Event]:
    for kind in get_args(events.Event):
        hints = get_type_hints(kind)
        many = {field.name: values_of(hints[field.name], text) for field in dataclasses.fields(kind)}
        for n in range(max(map(len, many.values()))):
            yield kind(**{name: values[n % len(values)] for name, values in many.items()})


REPORTERS: dict[str, Callable[[], Reporter]] = {
    "human": lambda: HumanReporter(sending=True, bars=True),
    "human that receives": lambda: HumanReporter(sending=False, bars=True),
    "no bars": lambda: HumanReporter(sending=False, bars=False),
    "quiet": QuietReporter,
    "json": JsonReporter,
}


@contextmanager
def errors_as(json_errors: bool) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "_json_errors", json_errors)
        yield


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("reporter", REPORTERS)
def test_no_event_steers_a_pipe_or_a_file(
    reporter: str, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for event in hostile_events(HOSTILE[kind]):
        if isinstance(event, events.TextReceived) and reporter != "json":
            # What the person wants to have: for programs it is exact (tests/cli/test_output.py).
            continue
        if isinstance(event, events.FileFinished):
            # A path that this side has made (tests/transfer/test_names.py): for programs it is exact.
            event = dataclasses.replace(event, saved_as="made here")
        with errors_as(json_errors=False), REPORTERS[reporter]() as report:
            report(event)
        out, err = capfd.readouterr()
        assert_tame(out)
        # Each of these is one line at most, but for the sender's introduction of its code, and the sum of a
        # transfer that has left something out.
        most = {events.RoomOpened: 2, events.FileLost: 3, events.TransferDone: 2}.get(type(event), 1)
        assert_tame(err, lines=min(most, err.count("\n")))
        if reporter == "json":
            for line in out.splitlines():
                assert json.loads(line)["event"]
            assert out.isascii()
        else:
            assert out.count("\n") <= 1


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("reporter", REPORTERS)
def test_no_event_steers_a_terminal(reporter: str, kind: str) -> None:
    """Neither before the bars nor above them, nor in them."""
    for event in hostile_events(HOSTILE[kind]):
        with errors_as(json_errors=False), on_terminal() as screen:
            with REPORTERS[reporter]() as report:
                if not isinstance(event, events.ManifestKnown):
                    report(events.ManifestKnown(hostile_manifest("a")))
                report(events.Progress(1, 5, 30))
                report(event)
                report(events.Progress(1, 6, 30))
                if isinstance(report, HumanReporter):
                    report.draw()
        assert_tame(screen.text)


def test_what_a_terminal_is_shown_of_names_is_their_text_as_it_is() -> None:
    with on_terminal() as screen, REPORTERS["human that receives"]() as report:
        report(events.Progress(1, 5, 30))
        report(events.FileLost(1, "a:smiley:/[bold]b[/bold]/http://c 127.0.0.1", "it vanished"))
        report(events.FileFinished(1, "x", "in/:warning: [red]x", None))
    assert "  a:smiley:/[bold]b[/bold]/http://c 127.0.0.1: it vanished\n" in screen.text
    assert "in/:warning: [red]x\n" in screen.text


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("as_json", [True, False])
def test_no_error_steers_anything(
    as_json: bool, terminal: bool, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    text = HOSTILE[kind]
    for error in [hostile_error(each, text) for each in every_error()]:
        with errors_as(json_errors=as_json), on_terminal() if terminal else nullcontext() as screen:
            report_error(error)
        shown = "".join(capfd.readouterr()) if screen is None else screen.text
        assert_tame(shown, lines=1 if as_json else 2)
        if as_json:
            assert json.loads(shown)["code"] == error.code
        else:
            assert [line.partition(": ")[0] for line in shown.splitlines()] == ["error", "hint"]


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_question_is_steered_by_what_is_offered(kind: str) -> None:
    text = HOSTILE[kind]
    if is_unicode(text):
        offered = hostile_manifest(text)
        assert_tame("".join(f"{line}\n" for line in summarize(offered).lines), lines=6)
        assert_tame("".join(f"{line}\n" for line in all_lines(offered)), lines=5)
        behind = Manifest([*list(hostile_manifest("a").entries) * 4, *hostile_manifest(f".{text}").entries])
        assert_tame("".join(f"{line}\n" for line in summarize(behind).lines), lines=28)


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_log_line_is_steered(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither what is logged, nor the tracebacks of --debug, with their causes."""
    text = HOSTILE[kind]
    root = logging.getLogger()
    kept = root.handlers[:], root.level
    for handler in kept[0]:
        root.removeHandler(handler)
    try:
        log_to_stderr()
        logging.getLogger("flyx.rtc").debug("bad %s", text, exc_info=_raised(text))
        logging.getLogger("websockets").warning(text.replace("%", "%%"))
        output.report_traceback(_raised(text))
    finally:
        for handler in root.handlers[:]:
            root.removeHandler(handler)
        for handler in kept[0]:
            root.addHandler(handler)
        root.setLevel(kept[1])
        logging.getLogger("flyx").setLevel(logging.NOTSET)
        logging.getLogger("asyncio").setLevel(logging.NOTSET)
    out, err = capfd.readouterr()
    assert not out
    assert_tame(err)
    begins = {line.partition(":")[0] if line[0] != "|" else "|" for line in err.splitlines()}
    assert begins == {"DEBUG", "WARNING", "|"}


def _raised(text: str) -> Exception:
    try:
        try:
            raise ValueError(text)
        except ValueError as cause:
            raise errors.InputError(reason=text) from cause
    except errors.InputError as error:
        return error


def test_debug_shows_where_an_error_comes_from_and_keeps_its_status() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "flyx", "--debug", "receive", "--yes", "K7M2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == errors.EXIT_USAGE
    lines = run.stderr.splitlines()
    assert lines[0] == "| Traceback (most recent call last):"
    assert lines[-2].startswith("error: the room code has 4 characters")
    assert lines[-1].startswith("hint: ")


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_safe_to_show_is_safe_once_and_for_all(kind: str) -> None:
    text = HOSTILE[kind]
    assert without_controls(printable(text)) == printable(text)
    assert without_controls(without_controls(text)) == without_controls(text)
    assert_tame(printable(text), lines=0)
    assert_tame(without_controls(text), lines=0)


GRAMMARS: dict[Any, Callable[[str], object]] = {
    signaling.Message: signaling.parse_untrusted,
    pairing.PairingMessage: pairing.parse_untrusted,
    transfer.ControlMessage: transfer.parse_control_untrusted,
}

FREE_TEXT = {
    # Checked where they arrive: tests/client/test_hostile_server.py.
    *("Joined", "RefreshIceServers", "Join.client_id", "Join.resume_token", "Offer.client_id"),
    *("Answer.client_id", "IceCandidate.client_id", "Disconnect.client_id"),
    # Of no output: only a client that comes back, or speaks to or of one receiver, says these.
    *("Offer.target_id", "IceCandidate.target_id", "Paired.target_id"),
    # For aiortc: tests/rtc/test_description.py; the type of a candidate is a field of PeerConnected above.
    *("Offer.sdp", "Answer.sdp", "IceCandidate.candidate"),
    # Never shown by flyx; Error.message is the reason of a SignalingError above.
    *("Disconnect.reason", "Error.code", "Error.message"),
    # Not shown, before the two have paired or after.
    "Hello.agent",
    # Fields of errors and events above, and e2e/test_hostile_text.py.
    *("Cancel.message", "Roots.names", "ManifestPiece.entries", "ManifestPiece.targets", "Absent.entries"),
}
"""Text whose form a grammar leaves to the other side, and where it is tried. What is new has to come here."""


ONE_SIDE_OR_THE_OTHER: dict[type[Any], tuple[str, ...]] = {
    signaling.Join: ("resume_token", "role"),
    pairing.Hello: ("session", "code"),
}
"""Fields that are not of the same speaker."""


@pytest.mark.parametrize(
    ("grammar", "model"),
    [
        pytest.param(grammar, model, id=f"{model.__module__.split('.')[1]} {model.__name__}")
        for grammar in GRAMMARS
        for model in get_args(grammar)
    ],
)
def test_every_field_of_every_message_refuses_hostile_text_or_is_tried_as_free(
    grammar: Any, model: type[Any]
) -> None:
    for without in ONE_SIDE_OR_THE_OTHER.get(model, ("",)):
        message = example(model, frozenset({without}))
        GRAMMARS[grammar](json.dumps(message))
        for place in text_places(message):
            for text in HOSTILE.values():
                try:
                    GRAMMARS[grammar](json.dumps(changed(message, place, text)))
                except errors.RemoteProtocolError as error:
                    assert_tame(str(error), lines=0)
                else:
                    names = [str(key) for key in place if key != "data" and isinstance(key, str)]
                    assert {model.__name__, ".".join([model.__name__, *names[:1]])} & FREE_TEXT, place
