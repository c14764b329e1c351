"""Each exit status of scripting.md, by each end that can have it, and the `code` of the last event with it.

What takes long, or somebody who lies, is shown elsewhere: ELSEWHERE says where, so that no code is without a
test.
"""

from __future__ import annotations

import inspect
import json
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.documents import ROOT, Shell
from e2e.processes import Flyx, FlyxProcess, write_random, write_thin
from flyx import errors
from flyx.errors import (
    EXIT_CTRL_C,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NO_PATH,
    EXIT_PAIRING,
    EXIT_REFUSED,
    EXIT_SERVER,
    EXIT_USAGE,
    FlyxError,
)
from tests.papers import exit_statuses

NOBODY = "ws://127.0.0.1:9"
"""Nothing listens at port 9, which is discard's (RFC 863)."""

SENDING_ALONE = [
    (["--no-such-option", "file"], EXIT_USAGE, "bad_input"),
    (["missing"], EXIT_USAGE, "bad_input"),
    (["--server", "ftp://example.org", "file"], EXIT_USAGE, "bad_input"),
    (["--code", "@missing", "file"], EXIT_USAGE, "bad_input"),
    (["--server", NOBODY, "file"], EXIT_SERVER, "server_unreachable"),
    (["--wait", "0.1", "file"], EXIT_NO_PATH, "nobody_came"),
    (["--relay-only", "file"], EXIT_NO_PATH, "no_relay"),
]

RECEIVING_ALONE = [
    (["--no-such-option", "--yes", "000000"], EXIT_USAGE, "bad_input"),
    (["--yes"], EXIT_USAGE, "bad_input"),
    (["--yes", "0"], EXIT_USAGE, "bad_input"),
    (["--yes", "--overwrite", "--rename", "000000"], EXIT_USAGE, "bad_input"),
    (["--yes", "--server", NOBODY, "000000"], EXIT_SERVER, "server_unreachable"),
    (["--yes", "000000"], EXIT_SERVER, "no_such_room"),
    (["000000"], EXIT_REFUSED, "consent_needed"),
]


def _without_words(code: str) -> str:
    return code.partition("-")[0]


def _other_words(code: str) -> str:
    return f"{_without_words(code)}-nobody-guesses-this"


def _as_it_is(code: str) -> str:
    return code


# Options of the sender, what the receiver makes of its code, and options of the receiver.
RECEIVING = [
    ([], _as_it_is, ["-o", "file/in"], EXIT_FAILED, "storage_error"),
    ([], _without_words, [], EXIT_USAGE, "bad_input"),
    ([], _as_it_is, ["--relay-only"], EXIT_NO_PATH, "no_relay"),
    (["--code", "nobody-guessed-this"], _other_words, [], EXIT_PAIRING, "wrong_words"),
    (["--open"], _other_words, [], EXIT_PAIRING, "no_words_asked"),
    (["--open"], _as_it_is, [], EXIT_REFUSED, "unverified_sender"),
    ([], _as_it_is, ["-o", "."], EXIT_REFUSED, "destination_exists"),
    ([], _as_it_is, ["--only", "*.jpg"], EXIT_REFUSED, "nothing_wanted"),
]

ELSEWHERE = {
    # By an end-to-end test, which brings about what it takes.
    "connection_lost": "e2e/test_repair.py",
    "connection_mismatch": "e2e/test_pairing.py",
    "corrupt_data": "e2e/test_hostile.py",
    "no_space": "e2e/test_failures.py",
    "other_version": "e2e/test_hostile.py",
    "pairing_timed_out": "e2e/test_hostile.py",
    "peer_unreachable": "e2e/test_doctor.py",
    "protocol_error": "e2e/test_hostile.py",
    "room_lost": "e2e/test_failures.py",
    "not_one_file": "e2e/test_streams.py",
    "room_not_found": "e2e/test_local.py",
    "room_taken": "e2e/test_waiting.py",
    "stream_begun": "e2e/test_streams.py",
    "sender_left": "e2e/test_reconnection.py",
    "server_refused": "e2e/test_operations.py",
    "too_many_tries": "e2e/test_pairing.py",
    "too_many_unfinished": "e2e/test_hostile.py",
    "unsafe_name": "e2e/test_hostile.py",
    # By a unit test: flyx against flyx does not come to it, or has a name for each kind of it.
    "bug": "tests/client/test_outcomes.py",
    "failed": "tests/test_errors.py",
    "missing_feature": "tests/pairing/test_exchange.py",
    "nothing_to_send": "tests/client/test_lists_of_receivers.py",
    "pairing_failed": "tests/client/test_pairing.py",
    "refused": "tests/transfer/test_session.py",
    "room_full": "tests/client/test_signaling.py",
    "sender_gone": "tests/client/test_local.py",
    "server_closed": "tests/client/test_signaling.py",
    "server_error": "tests/client/test_signaling.py",
    "server_protocol_error": "tests/client/test_hostile_server.py",
}

HERE = {
    *(case[-1] for case in (*SENDING_ALONE, *RECEIVING_ALONE, *RECEIVING)),
    *("files_failed", "system_failure", "declined", "interrupted"),
}


@pytest.fixture(autouse=True)
def file(flyx: Flyx) -> Path:
    """What is sent; the server is named in the environment."""
    flyx.environment["FLYX_SERVER"] = flyx.server
    return write_random(flyx.directory / "file", 1000)


def start(flyx: Flyx, command: str, *arguments: str) -> FlyxProcess:
    """Run a command with --json."""
    return flyx.start(command, "--json", *arguments)


def test_every_status_of_the_readme_and_every_code_is_shown_here_or_elsewhere() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, FlyxError)]
    assert HERE | set(ELSEWHERE) == {kind.code for kind in kinds}
    assert not HERE & set(ELSEWHERE)
    for kind in kinds:
        if (place := ELSEWHERE.get(kind.code)) is not None:
            text = (ROOT / place).read_text()
            assert re.search(rf'"{kind.code}"|\b{kind.__name__}\b', text), kind.code
    shown = {kind.exit_status for kind in kinds if kind.code in HERE} | {EXIT_DONE, EXIT_CTRL_C}
    assert shown == {int(status) for status, _ in exit_statuses()}


@pytest.mark.parametrize(("arguments", "status", "code"), SENDING_ALONE)
def test_a_sender_that_comes_to_nothing(flyx: Flyx, arguments: list[str], status: int, code: str) -> None:
    start(flyx, "send", *arguments).fails(status, code)


@pytest.mark.parametrize(("arguments", "status", "code"), RECEIVING_ALONE)
def test_a_receiver_that_comes_to_nothing(flyx: Flyx, arguments: list[str], status: int, code: str) -> None:
    start(flyx, "receive", *arguments).fails(status, code)


@pytest.mark.parametrize(("offer", "typed", "options", "status", "code"), RECEIVING)
def test_a_receiver_that_fails_at_a_sender_that_stays(
    flyx: Flyx, offer: list[str], typed: Callable[[str], str], options: list[str], status: int, code: str
) -> None:
    sender = start(flyx, "send", *offer, "file")
    options = options if "-o" in options else ["-o", "in", *options]
    start(flyx, "receive", "--yes", *options, typed(sender.code())).fails(status, code)
    assert sender.process.poll() is None


def test_both_ends_of_a_transfer_are_done(flyx: Flyx) -> None:
    sender = start(flyx, "send", "file")
    receiver = start(flyx, "receive", "--yes", "-o", "in", sender.code()).ends(EXIT_DONE)
    sender.ends(EXIT_DONE)
    for end in (sender, receiver):
        assert end.event("done")["missing"] == 0
        assert end.named("error") == []


def test_both_ends_fail_where_something_was_left_out_and_the_rest_is_done(flyx: Flyx) -> None:
    sender = start(flyx, "send", "file", "missing")
    receiver = start(flyx, "receive", "--yes", "-o", "in", sender.code())
    for end in (receiver, sender):
        end.fails(EXIT_FAILED, "files_failed")
        assert end.event("done")["missing"] == 1


@pytest.mark.parametrize("command", ["send file", "receive --yes 000000"])
def test_either_fails_on_a_computer_that_has_too_little(flyx: Flyx, command: str) -> None:
    done = Shell(flyx).run(f"ulimit -n 8; exec {sys.executable} -m flyx {command} --json")
    assert done.returncode == EXIT_FAILED, done
    assert json.loads(done.stdout.splitlines()[-1])["code"] == "system_failure"


def test_a_receiver_whose_person_declines(flyx: Flyx) -> None:
    sender = start(flyx, "send", "file")
    receiver = flyx.terminal("receive", "--json", "-o", "in", sender.code(), pipe_stdout=True)
    receiver.says("[y/N] ").type("n\r")
    receiver.ends(EXIT_REFUSED)
    assert receiver.events[-1]["code"] == "declined"
    assert sender.event("peer", state="failed")["code"] == "declined"


def test_a_receiver_whose_sender_stops_in_the_middle(flyx: Flyx) -> None:
    write_thin(flyx.directory / "large", 6 * 10**9)
    sender = start(flyx, "send", "large")
    receiver = start(flyx, "receive", "--yes", "-o", "in", sender.code()).mid_transfer()
    sender.send_signal(signal.SIGTERM).ends(EXIT_CTRL_C)
    receiver.fails(EXIT_INTERRUPTED, "interrupted")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_either_that_is_interrupted_has_no_error_to_tell(flyx: Flyx, number: signal.Signals) -> None:
    sender = start(flyx, "send", "file")
    # While it is stopped, nobody connects to the receiver.
    code = sender.code()
    sender.stop()
    receiver = start(flyx, "receive", "--yes", "-o", "in", code)
    receiver.event("peer", state="joined")
    receiver.send_signal(number).ends(EXIT_CTRL_C)
    sender.resume().send_signal(number).ends(EXIT_CTRL_C)
    for end in (receiver, sender):
        assert end.named("error") == []
        assert end.err == "interrupted\n"
