"""Codes, and those who do not have them: guessers, dawdlers, and servers that are in between."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from pathlib import Path

import pytest

from e2e.man_in_the_middle import Attack, End, ManInTheMiddle
from e2e.processes import LONG, Flyx, FlyxProcess, names_in, sha256, write_random
from flyx.client.pairing import PairingGate, begin_receiving
from flyx.errors import FlyxError
from flyx.pairing.exchange import Code
from flyx.pairing.words import completions, corrections

NAME = "very-secret-name.txt"
WRONG = "abacus-abbey"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_random(tmp_path / NAME, 100_000)


def room_of(code: str) -> str:
    return code[:6]


def mistyped(word: str) -> str:
    """Exchange two letters of a word of the list so that it can be no other that was meant."""
    for place in range(len(word) - 1):
        typed = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
        if not completions(typed) and corrections(typed) == [word]:
            return typed
    raise AssertionError(f"any typo of {word} could be another word, too")


# Codes.


def test_a_code_is_a_room_and_two_words_and_is_read_generously(
    flyx: Flyx, tmp_path: Path, source: Path
) -> None:
    sender = flyx.send(source)
    room, one, two = sender.code().split("-")
    assert sender.event("room")["room_id"] == room
    typed = f" {room[:3].lower()} {room[3:]} {one[:4].upper()}  {mistyped(two)}"
    flyx.receive(typed, tmp_path / "in").ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / NAME) == sha256(source)


def test_codes_come_from_the_environment_and_from_standard_input(
    flyx: Flyx, tmp_path: Path, source: Path
) -> None:
    sender = flyx.send("--receivers", "2", "--words", "4", source)
    code = sender.code()
    assert len(code.split("-")) == 5
    common = ["receive", "--server", flyx.server, "--json", "--yes", "-o"]
    receiver = flyx.start(*common, "env", FLYX_CODE=code, FLYX_DEBUG="1").ends(0)
    assert "flyx" in receiver.err
    for separator in ("-", " ", "', '"):
        assert separator.join(code.split("-")[1:]) not in receiver.out + receiver.err
    # Standard input is a terminal here, of which a line is read as well.
    terminal = flyx.terminal(*common, "stdin", "-")
    terminal.type(f"{code}\r").ends(0)
    sender.ends(0)
    for directory in ("env", "stdin"):
        assert sha256(tmp_path / directory / NAME) == sha256(source)


def test_words_of_ones_own_are_the_code(flyx: Flyx, tmp_path: Path, source: Path) -> None:
    sender = flyx.terminal("send", "--server", flyx.server, "--code", "-", source, pipe_stdout=True)
    sender.type("Nobody guesses-THIS\r")
    room = room_of(sender.code())
    assert sender.code() == f"{room}-nobody-guesses-this"
    # No word of them is taken for one of the list.
    flyx.receive(f"{room}-nobody-guess-this", tmp_path / "in").fails(5, "wrong_words")
    flyx.receive(f"{room} nobody guesses this", tmp_path / "in").ends(0)
    sender.ends(0)


def test_weak_words_and_contradictions_are_usage_errors(flyx: Flyx, source: Path) -> None:
    flyx.start("send", "--code", "aaaa", source).complains(
        2, "--code cannot be used: this code would be easy to guess", "take at least"
    )
    flyx.start("send", "--open", "--words", "3", source).complains(2, "--words, --code and --open exclude")
    flyx.start("receive", "--yes", "K7M2").complains(2, "the room code has 4 characters", "a code looks like")


def test_a_terminal_is_asked_for_the_words_until_they_can_be_right(
    flyx: Flyx, tmp_path: Path, source: Path
) -> None:
    sender = flyx.send(source)
    room, one, two = sender.code().split("-")
    receiver = flyx.terminal("receive", "--server", flyx.server, "--yes", "-o", "in", room)
    receiver.says(f"Words of the code after {room} (2): ").type(f"{one}\r")
    receiver.says("the code has 2 words after the room's six characters; 1 was given")
    receiver.type(f"{one[:4]} {two}\r").ends(0)
    sender.ends(0)
    assert sender.named("peer")[1]["state"] == "paired"
    assert sha256(tmp_path / "in" / NAME) == sha256(source)


@pytest.mark.parametrize(("keys", "status"), [("\x03", 130), ("\x04", 2)])
def test_a_receiver_without_words_costs_no_try(
    flyx: Flyx, tmp_path: Path, source: Path, keys: str, status: int
) -> None:
    sender = flyx.send(source)
    room = room_of(sender.code())
    receiver = flyx.terminal("receive", "--server", flyx.server, "--yes", "-o", "in", room)
    receiver.says("(2): ").type(keys).ends(status)
    sender.event("peer", peer=1, state="failed")
    assert sender.named("notice") == []
    assert not (tmp_path / "in").exists()


def test_a_person_who_types_slowly_delays_no_other_receiver_and_is_served(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / NAME, LONG)
    sender = flyx.send(source)
    code = sender.code()
    slow = flyx.terminal("receive", "--server", flyx.server, "--json", "--yes", "-o", "slow", room_of(code))
    slow.says("(2): ")
    # The only place goes to who comes later and has the words at hand.
    quick = flyx.receive(code, tmp_path / "quick").mid_transfer(peer=1).stop()
    slow.type(f"{code}\r")
    sender.event("peer", peer=1, state="paired")
    quick.send_signal(signal.SIGINT).resume().ends(130)
    slow.ends(0)
    sender.ends(0)
    assert [event["peer"] for event in sender.named("done")] == [1]
    assert sha256(tmp_path / "slow" / NAME) == sha256(source)


def test_without_a_terminal_a_code_without_words_is_a_usage_error_that_costs_no_try(
    flyx: Flyx, tmp_path: Path, source: Path
) -> None:
    sender = flyx.send(source)
    code = sender.code()
    for typed in (room_of(code), f"{code}-lemon", f"{room_of(code)}-qqqq-qqqq"):
        flyx.receive(typed, tmp_path / "in").fails(2, "bad_input")
    flyx.receive(code, tmp_path / "in").ends(0)
    sender.ends(0)
    assert len([event for event in sender.named("peer") if event["state"] == "failed"]) == 3
    assert sender.named("notice") == []


def test_an_open_code_is_the_room_alone_and_both_ends_say_who_is_trusted(
    flyx: Flyx, tmp_path: Path, source: Path
) -> None:
    sender = flyx.send("--open", source)
    code = sender.code()
    assert code == sender.event("room")["room_id"]
    assert "the server is trusted" in sender.event("notice")["message"]
    # A code with words is not for an open sender.
    flyx.receive(f"{code}-lemon-otter", tmp_path / "in").fails(5, "no_words_asked")
    told = sender.event("peer", state="failed")["message"]
    assert told == "Pairing failed: the receiver's code has words, and this one has none"
    receiver = flyx.receive(code, tmp_path / "in", "--open").ends(0)
    assert "the server is trusted" in receiver.event("notice")["message"]
    sender.ends(0)


def test_a_sender_that_asks_for_no_words_is_trusted_only_when_the_receiver_says_so(
    flyx: Flyx, tmp_path: Path, source: Path
) -> None:
    """A server or a stranger may pretend that the code has none: --yes alone is not meant for those."""
    sender = flyx.send("--open", source)
    code = sender.code()
    flyx.receive(code, tmp_path / "in").fails(7, "unverified_sender")
    told = sender.event("peer", peer=1, state="failed")
    assert told["code"] == "refused"
    assert "the code has no words" in told["message"]

    for answers in ("\r", "no\r", "\x04"):
        receiver = flyx.terminal("receive", "--server", flyx.server, "--yes", "-o", "in", code)
        receiver.says(f"Trust the server, and save into {tmp_path}/in? [y/N] ").type(answers).ends(7)
        assert "nothing shows who the sender is" in receiver.err
        assert f"guesses {code}, can offer files" in receiver.err
        assert not (tmp_path / "in").exists()
    receiver = flyx.terminal("receive", "--server", flyx.server, "--yes", "-o", "in", code)
    receiver.says("Trust the server, and save into ").type("y\r").ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / NAME) == sha256(source)


def test_a_receiver_that_trusts_the_server_is_still_asked_for_consent_and_for_words(
    flyx: Flyx, tmp_path: Path, source: Path
) -> None:
    common = ("receive", "--server", flyx.server, "--open", "-o", "in")
    sender = flyx.send("--open", source)
    receiver = flyx.terminal(*common, sender.code()).says(f"Save into {tmp_path}/in? [y/N] ")
    assert "the server is trusted" in receiver.err
    receiver.type("y\r").ends(0)
    sender.ends(0)
    sender = flyx.send(source)
    flyx.terminal(*common, room_of(sender.code())).says("(2): ").type("\x04").ends(2)


# Strangers.


def knows_nothing(*processes: FlyxProcess) -> None:
    """None of them has been told a name."""
    for process in processes:
        assert NAME not in process.out + process.err, process
        assert process.named("manifest") == process.named("progress") == []


def test_three_wrong_tries_close_the_room_on_both_sides(flyx: Flyx, tmp_path: Path, source: Path) -> None:
    sender = flyx.send(source)
    room = room_of(sender.code())
    guessers = []
    for n, error in enumerate(("wrong_words", "wrong_words", "too_many_tries")):
        guesser = flyx.receive(f"{room}-{WRONG}", tmp_path / "in").fails(5, error)
        guessers.append(guesser)
        sender.event("peer", peer=n + 1, state="failed", code=error)
    sender.fails(5, "too_many_tries")
    assert "Wrong words were given 3 times: the code has stopped working." in sender.event("error")["message"]
    assert ["After 2 more wrong tries" in sender.named("notice")[0]["message"]] == [True]
    knows_nothing(*guessers)
    assert not (tmp_path / "in").exists()
    flyx.receive(sender.code(), tmp_path / "in").fails(3, "no_such_room")


def test_wrong_words_are_told_in_words_on_both_sides(flyx: Flyx, source: Path) -> None:
    sender = flyx.start("send", "--server", flyx.server, source)
    room = room_of(sender.code())
    receiver = flyx.start("receive", "--server", flyx.server, "--yes", f"{room}-{WRONG}")
    receiver.complains(5, "Pairing failed: the words of the two sides do not match.", "check each word")
    sender.says("Receiver 1: Pairing failed: the words of the two sides do not match. The code is still good")
    sender.says("After 2 more wrong tries the code stops working.")


def test_guessers_do_not_end_what_is_being_sent(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / NAME, LONG // 2)
    sender = flyx.send("--receivers", "2", source)
    code = sender.code()
    served = flyx.receive(code, tmp_path / "in").mid_transfer().stop()
    for _ in range(3):
        guesser = flyx.receive(f"{room_of(code)}-{WRONG}", tmp_path / "guess")
        guesser.ends(5)
    sender.event("notice", lambda e: "What is being sent goes on" in e["message"])
    served.resume().ends(0)
    sender.fails(5, "too_many_tries")
    assert sha256(tmp_path / "in" / NAME) == sha256(source)


def test_waiting_for_somebody_ends_when_somebody_is_served(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / NAME, LONG // 2)
    sender = flyx.send("--wait", "6", source)
    served = flyx.receive(sender.code(), tmp_path / "in").mid_transfer().stop()
    with pytest.raises(subprocess.TimeoutExpired):
        sender.process.wait(7)
    served.resume().ends(0)
    sender.ends(0)


# Servers in between.


class PassingOn(Attack):
    """Connects the two and passes on all that they say, listening."""

    def __init__(self) -> None:
        self.heard: list[bytes | str] = []

    async def run(self, room_id: str, to_sender: End, to_receiver: End) -> None:
        to_sender.pass_on(to_receiver, self._note)
        to_receiver.pass_on(to_sender, self._note)
        await to_sender.closed.wait()
        await to_receiver.closed.wait()

    def _note(self, message: bytes | str) -> bytes | str:
        self.heard.append(message)
        return message


class Guessing(Attack):
    """Pairs with both, on a guess."""

    def __init__(self, code: Code) -> None:
        self._code = code
        self.results: list[FlyxError | str] = []

    async def run(self, room_id: str, to_sender: End, to_receiver: End) -> None:
        as_receiver = begin_receiving(room_id, None, known=lambda _: self._code.password)
        gate = PairingGate(room_id, self._code)
        # First with the sender: it gives up whoever the honest server says has left, as the receiver will.
        for pairing in (
            as_receiver.run(to_sender.connection, to_sender.channels),
            gate.pair(gate.begin(), to_receiver.connection, to_receiver.channels),
        ):
            try:
                await pairing
                self.results.append("paired")
            except FlyxError as error:
                self.results.append(error)


class Replaying(PassingOn):
    """Tells a later receiver what an earlier sender said, and reflects what it cannot know."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded: list[str] = []

    async def run(self, room_id: str, to_sender: End, to_receiver: End) -> None:
        if not self.recorded:
            await super().run(room_id, to_sender, to_receiver)
            self.recorded += [str(message) for message in to_sender.heard]
            return
        said = asyncio.Queue[str]()
        listener = _Queueing(said)
        to_receiver.channels.control.listen(listener)
        # It has the share of the sender.
        (hello,) = (text for text in self.recorded if json.loads(text)["type"] == "hello")
        to_receiver.channels.control.send(hello)
        while (message := json.loads(text := await said.get()))["type"] != "reject":
            if message["type"] == "confirm":
                # The only proof there is.
                to_receiver.channels.control.send(text)


class _Queueing:
    def __init__(self, queue: asyncio.Queue[str]) -> None:
        self._queue = queue

    def message_received(self, message: bytes | str) -> None:
        self._queue.put_nowait(str(message))

    def channel_writable(self) -> None:
        pass

    def channel_closed(self) -> None:
        self._queue.put_nowait('{"type": "reject"}')


@pytest.mark.parametrize("carries", [False, True])
def test_a_server_that_passes_on_what_both_say_is_found_out_by_both(
    carries: bool, flyx: Flyx, tmp_path: Path, source: Path
) -> None:
    attack = PassingOn()
    with ManInTheMiddle(flyx.server, attack, carries=carries) as server:
        flyx.server = server.url
        sender = flyx.send(source)
        receiver = flyx.receive(sender.code(), tmp_path / "in")
        receiver.fails(5, "connection_mismatch")
        sender.fails(5, "connection_mismatch")
    # The room is the only part of the code that it ever saw.
    seen = "".join(server.seen)
    assert "offer" in seen
    assert sender.code().partition("-")[2] not in seen
    for process in (sender, receiver):
        assert "somebody may be in between" in process.event("error")["message"]
        assert "do not trust this signaling server" in process.event("error")["hint"]
    knows_nothing(receiver)
    told = [json.loads(message)["type"] for message in attack.heard]
    assert sorted(told) == (["reject"] if carries else ["confirm", "hello", "hello", "pake", "reject"])
    assert not (tmp_path / "in").exists()


def test_a_server_that_guesses_towards_both_has_one_guess_and_learns_no_name(
    flyx: Flyx, tmp_path: Path, source: Path
) -> None:
    attack = Guessing(Code("words", 2, WRONG))
    with ManInTheMiddle(flyx.server, attack) as server:
        flyx.server = server.url
        sender = flyx.send(source)
        receiver = flyx.receive(sender.code(), tmp_path / "in").fails(5, "wrong_words")
        sender.event("peer", state="failed", code="wrong_words")
    assert "somebody else answered in its place" in receiver.event("error")["hint"]
    assert all(isinstance(result, FlyxError) for result in attack.results)
    knows_nothing(receiver)


def test_a_server_that_claims_the_code_has_no_words_is_refused(
    flyx: Flyx, tmp_path: Path, source: Path
) -> None:
    attack = Guessing(Code("open", 0, ""))
    with ManInTheMiddle(flyx.server, attack) as server:
        flyx.server = server.url
        sender = flyx.send(source)
        receiver = flyx.receive(sender.code(), tmp_path / "in").fails(5, "no_words_asked")
        sender.event("peer", state="failed")
    knows_nothing(receiver)


def test_a_server_that_replays_an_earlier_pairing_is_refused(
    flyx: Flyx, tmp_path: Path, source: Path
) -> None:
    with ManInTheMiddle(flyx.server, Replaying()) as server:
        flyx.server = server.url
        sender = flyx.send("--code", "the same every time", source)
        flyx.receive(sender.code(), tmp_path / "in").fails(5, "connection_mismatch")
        sender.fails(5, "connection_mismatch")
        again = flyx.send("--code", "the same every time", source)
        receiver = flyx.receive(again.code(), tmp_path / "in").fails(5, "wrong_words")
        # It was never spoken to.
        again.event("peer", state="failed")
    knows_nothing(receiver)


def test_an_open_sender_gives_a_server_in_between_everything(
    flyx: Flyx, tmp_path: Path, source: Path
) -> None:
    # The other side of --open: what the output says is no exaggeration, and this attack works.
    attack = PassingOn()
    with ManInTheMiddle(flyx.server, attack) as server:
        flyx.server = server.url
        sender = flyx.send("--open", source)
        flyx.receive(sender.code(), tmp_path / "in", "--open").ends(0)
        sender.ends(0)
    assert any(NAME in str(message) for message in attack.heard)
    assert names_in(tmp_path / "in") == [NAME]
