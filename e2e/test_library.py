"""flyx as a library: real transfers between tasks of one process, and with the command line."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop

import flyx
from e2e.documents import blocks_of
from e2e.processes import DEADLINE, LONG, Flyx, clean_environment, sha256, snapshot, write_random, write_thin
from flyx.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_PAIRING, EXIT_REFUSED

ROOT = Path(__file__).parents[1]

Run = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs on event loops as programs have them; whatever a transfer leaves behind there is a failure."""

    async def leaves_nothing(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
        before = sockets()
        async with asyncio.timeout(DEADLINE):
            await scenario()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith("flyx")] == []
        assert sockets() == before

    def on_loop(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(leaves_nothing(scenario))

    return on_loop


def sockets() -> set[object]:
    """Those of this process, but for what is over and waits in the kernel."""
    return {(each.fd, each.laddr) for each in psutil.Process().net_connections() if each.fd != -1}


def server() -> flyx.Server:
    return flyx.Server(stun=())


async def code_of(sending: flyx.Transfer) -> str:
    """Wait until a sender has a room."""
    async for event in sending:
        if isinstance(event, flyx.RoomOpened):
            return event.code
    raise AssertionError("it ended without a code")


async def all_of(transfer: flyx.Transfer) -> list[flyx.Event]:
    async with transfer:
        return [event async for event in transfer]


async def until(transfer: flyx.Transfer, kind: type[Any], **fields: object) -> Any:
    """Return the next event of this kind with these fields."""
    async for event in transfer:
        if isinstance(event, kind) and all(getattr(event, name) == fields[name] for name in fields):
            return event
    raise AssertionError(f"it ended without {kind.__name__}")


async def mid_transfer(transfer: flyx.Transfer) -> None:
    async for event in transfer:
        if isinstance(event, flyx.Progress) and event.bytes:
            assert event.bytes < event.total
            return


def python(
    code: str, directory: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in a directory of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=directory,
        env=clean_environment(directory) | environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def test_a_tree_goes_from_one_task_to_another(run: Run, tmp_path: Path) -> None:
    source, there = tmp_path / "photos", tmp_path / "there"
    write_random(source / "a.jpg", 3_000_000)
    write_random(source / "b" / "c.jpg", 1)
    (source / "empty").mkdir()

    async def scenario() -> None:
        async with server() as running:
            sending = flyx.send(source, server=running.url)
            code = await code_of(sending)
            received, sent = await asyncio.gather(
                all_of(flyx.receive(code, there, server=running.url)), all_of(sending)
            )
        assert snapshot(there / "photos") == snapshot(source)
        saved = {event.path: event.saved_as for event in received if isinstance(event, flyx.FileFinished)}
        assert saved == {f"photos/{name}": str(there / "photos" / name) for name in ("a.jpg", "b/c.jpg")}
        (done,) = [event for event in received if isinstance(event, flyx.TransferDone)]
        assert (done.files, done.bytes, done.missing) == (2, 3_000_001, 0)
        (confirmed,) = [event for event in sent if isinstance(event, flyx.TransferDone)]
        assert confirmed.digest == done.digest
        assert sent[-1] == flyx.PeerEnded(1, None)

    run(scenario)


def test_a_stream_goes_from_a_pipe_into_an_open_file(run: Run, tmp_path: Path) -> None:
    content = write_random(tmp_path / "content", 3_000_000).read_bytes()
    there = tmp_path / "there"

    async def scenario() -> None:
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as source, there.open("wb") as file:
            async with server() as running:
                sending = flyx.send(stream=source, server=running.url, room="K7M2QX")
                writes = asyncio.to_thread(write_all, writing, content)
                code = await code_of(sending)
                receiving = flyx.receive(code, stream=file, server=running.url, wait=True, limit=10**9)
                received, _, _ = await asyncio.gather(all_of(receiving), all_of(sending), writes)
        assert next(e.total for e in received if isinstance(e, flyx.Progress)) is None
        (finished,) = (event for event in received if isinstance(event, flyx.FileFinished))
        assert finished.saved_as is None

    run(scenario)
    assert there.read_bytes() == content


def write_all(descriptor: int, content: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def test_a_text_is_an_event(run: Run) -> None:
    async def scenario() -> None:
        async with server() as running:
            sending = flyx.send(text="two\nlines", server=running.url)
            code = await code_of(sending)
            received, _ = await asyncio.gather(
                all_of(flyx.receive(code, server=running.url)), all_of(sending)
            )
        assert [event.text for event in received if isinstance(event, flyx.TextReceived)] == ["two\nlines"]
        (known,) = (event.manifest for event in received if isinstance(event, flyx.ManifestKnown))
        assert known.content is flyx.Content.TEXT

    run(scenario)


def test_a_program_that_reads_no_events_receives_all_the_same(run: Run, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file.bin", 20_000_000)

    async def scenario() -> None:
        async with server() as running, flyx.send(source, server=running.url) as sending:
            code = await code_of(sending)
            async with flyx.receive(code, tmp_path / "there", server=running.url) as receiving:
                await until(sending, flyx.PeerEnded, error=None)
                assert sha256(tmp_path / "there" / "file.bin") == sha256(source)
                kinds = [type(event) for event in await all_of(receiving)]
        assert kinds.count(flyx.Progress) == 1
        assert kinds[-1] is flyx.TransferDone

    run(scenario)


def test_two_transfers_run_side_by_side(run: Run, tmp_path: Path) -> None:
    async def transfer(url: str, name: str) -> None:
        source = write_random(tmp_path / name, 10_000_000)
        async with flyx.send(source, server=url) as sending:
            code = await code_of(sending)
            await all_of(flyx.receive(code, tmp_path / "there", server=url))
            await all_of(sending)
        assert sha256(tmp_path / "there" / name) == sha256(source)

    async def scenario() -> None:
        async with server() as running:
            await asyncio.gather(transfer(running.url, "one"), transfer(running.url, "two"))

    run(scenario)


def test_without_any_server_the_local_network_is_enough(run: Run, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file.bin", 1_000_000)

    async def scenario() -> None:
        async with flyx.send(source, local=True) as sending:
            code = await code_of(sending)
            await all_of(flyx.receive(code, tmp_path / "there", local=True))
            await all_of(sending)
        assert sha256(tmp_path / "there" / "file.bin") == sha256(source)

    run(scenario)


# The end before the end.


def test_a_receiver_that_leaves_its_block_tells_the_sender_and_goes_on_the_next_time(
    run: Run, tmp_path: Path
) -> None:
    source = write_random(tmp_path / "file.bin", 300_000_000)

    async def scenario() -> None:
        async with server() as running, flyx.send(source, server=running.url) as sending:
            code = await code_of(sending)
            async with flyx.receive(code, tmp_path / "there", server=running.url) as receiving:
                await mid_transfer(receiving)
            ended = await until(sending, flyx.PeerEnded)
            assert ended.error.exit_status == EXIT_INTERRUPTED
            assert ended.code_is_good
            again = await all_of(flyx.receive(code, tmp_path / "there", server=running.url))
            assert [event.bytes > 0 for event in again if isinstance(event, flyx.Resuming)] == [True]
        assert sha256(tmp_path / "there" / "file.bin") == sha256(source)

    run(scenario)


def test_a_sender_that_leaves_its_block_tells_the_receiver(run: Run, tmp_path: Path) -> None:
    source = write_thin(tmp_path / "large.bin", LONG)

    async def scenario() -> None:
        async with server() as running:
            async with flyx.send(source, server=running.url) as sending:
                code = await code_of(sending)
                receiving = flyx.receive(code, tmp_path / "there", server=running.url)
                await mid_transfer(receiving)
            with pytest.raises(flyx.FlyxError) as caught:
                await all_of(receiving)
            assert caught.value.exit_status == EXIT_INTERRUPTED

    run(scenario)


def test_a_loop_without_a_block_that_is_left_ends_the_transfer_too(run: Run, tmp_path: Path) -> None:
    source = write_thin(tmp_path / "large.bin", LONG)

    async def scenario() -> None:
        async with server() as running, flyx.send(source, server=running.url) as sending:
            code = await code_of(sending)
            async for event in flyx.receive(code, tmp_path / "there", server=running.url):
                if isinstance(event, flyx.Progress) and event.bytes:
                    break
            assert (await until(sending, flyx.PeerEnded)).error.exit_status == EXIT_INTERRUPTED
        # What ends in the background is over soon.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    run(scenario)


def test_a_task_that_is_cancelled_ends_its_transfer_and_tells_the_other_side(
    run: Run, tmp_path: Path
) -> None:
    source = write_thin(tmp_path / "large.bin", LONG)

    async def scenario() -> None:
        begun = asyncio.Event()

        async def receive(code: str, url: str) -> None:
            async with flyx.receive(code, tmp_path / "there", server=url) as receiving:
                await mid_transfer(receiving)
                begun.set()
                await all_of(receiving)

        async with server() as running, flyx.send(source, server=running.url) as sending:
            task = asyncio.create_task(receive(await code_of(sending), running.url))
            await begun.wait()
            task.cancel()
            assert (await until(sending, flyx.PeerEnded)).error.exit_status == EXIT_INTERRUPTED
            with pytest.raises(asyncio.CancelledError):
                await task

    run(scenario)


LEAVES = """
import asyncio, sys, flyx

held = []

async def main(code, url, hold):
    transfer = flyx.receive(code, "there", server=url)
    if hold:
        held.append(transfer)
    async for event in transfer:
        if isinstance(event, flyx.Progress) and event.bytes:
            break

asyncio.run(main(*sys.argv[1:3], len(sys.argv) > 3))
"""


@pytest.mark.parametrize("hold", [[], ["held"]], ids=["dropped", "held"])
def test_the_end_of_a_program_ends_what_it_has_left_and_tells_the_other_side(
    hold: list[str], run: Run, tmp_path: Path
) -> None:
    source = write_thin(tmp_path / "large.bin", LONG)

    async def scenario() -> None:
        async with server() as running, flyx.send(source, server=running.url) as sending:
            code = await code_of(sending)
            ended = asyncio.create_task(until(sending, flyx.PeerEnded))
            done = await asyncio.to_thread(python, LEAVES, tmp_path, code, running.url, *hold)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
            assert (await ended).error.exit_status == EXIT_INTERRUPTED

    run(scenario)


# What goes wrong.


def test_wrong_words_are_told_on_both_sides(run: Run, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file.bin", 1000)

    async def scenario() -> None:
        async with (
            server() as running,
            flyx.send(source, server=running.url, code="nobody guesses") as sending,
        ):
            room_id = (await code_of(sending)).partition("-")[0]
            for peer, code in ((1, "wrong_words"), (2, "wrong_words"), (3, "too_many_tries")):
                with pytest.raises(flyx.FlyxError) as caught:
                    await all_of(flyx.receive(f"{room_id}-somebody-did", tmp_path, server=running.url))
                assert (caught.value.code, caught.value.exit_status) == (code, EXIT_PAIRING)
                assert (await until(sending, flyx.PeerEnded, peer=peer)).error.code == code
            with pytest.raises(flyx.FlyxError) as caught:
                await all_of(sending)
            assert caught.value.code == "too_many_tries"

    run(scenario)


def test_an_offer_is_declined_by_the_program(run: Run, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file.bin", 1000)

    async def too_large(offer: flyx.Manifest) -> bool:
        assert [entry.path for entry in offer.entries] == ["file.bin"]
        return offer.total_bytes < 1000

    def mistaken(offer: flyx.Manifest) -> bool:
        raise ZeroDivisionError

    async def scenario() -> None:
        async with server() as running, flyx.send(source, server=running.url) as sending:
            code = await code_of(sending)
            for accept, cause in ((too_large, type(None)), (mistaken, ZeroDivisionError)):
                with pytest.raises(flyx.FlyxError) as caught:
                    await all_of(flyx.receive(code, tmp_path / "there", accept=accept, server=running.url))
                assert (caught.value.code, caught.value.exit_status) == ("declined", EXIT_REFUSED)
                assert isinstance(caught.value.__cause__, cause)
                assert (await until(sending, flyx.PeerEnded)).error.code == "declined"
            # What was declined has left no trace, and the code is good.
            assert not (tmp_path / "there").exists()
            await all_of(
                flyx.receive(code, tmp_path / "there", accept=lambda offer: True, server=running.url)
            )

    run(scenario)


def test_a_path_that_is_not_there_is_an_error_of_input(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(flyx.InputError):
            await all_of(flyx.send(tmp_path / "nothing", local=True))

    run(scenario)


# With the command line.


@pytest.fixture
def command_line(flyx: Flyx) -> Flyx:
    """What other tests call flyx."""
    return flyx


def test_a_program_sends_to_the_command_line(run: Run, command_line: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file.bin", 5_000_000)

    async def scenario() -> None:
        async with flyx.send(source, server=command_line.server) as sending:
            receiver = command_line.receive(await code_of(sending), tmp_path / "there")
            await all_of(sending)
        await asyncio.to_thread(receiver.ends, EXIT_DONE)
        assert sha256(tmp_path / "there" / "file.bin") == sha256(source)

    run(scenario)


def test_a_program_receives_from_the_command_line(run: Run, command_line: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file.bin", 5_000_000)
    sender = command_line.start("send", "--server", command_line.server, source)
    line = f"flyx receive --server {command_line.server} {sender.code()}"

    async def scenario() -> None:
        await all_of(flyx.receive(line, tmp_path / "there"))
        assert sha256(tmp_path / "there" / "file.bin") == sha256(source)

    run(scenario)
    sender.ends(EXIT_DONE)


# The process, and the papers.


STATE = """
import asyncio, gc, logging, os, resource, signal, sys, threading, warnings
from pathlib import Path

def state():
    root = logging.getLogger()
    return {
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "loggers": [(each.level, each.handlers) for each in (root, logging.getLogger("flyx"))],
        "collector": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count(), gc.callbacks),
        "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
        "streams": (sys.stdin, sys.stdout, sys.stderr, sys.excepthook, threading.excepthook),
        "environment": dict(os.environ),
        "policy": asyncio.get_event_loop_policy(),
        "filters": list(warnings.filters),
    }

async def transfer():
    Path("file.bin").write_bytes(bytes(1000))
    async with flyx.Server(stun=()) as server, flyx.send("file.bin", server=server.url) as sending:
        async for event in sending:
            if isinstance(event, flyx.RoomOpened):
                async for _ in flyx.receive(event.code, "there", server=server.url):
                    during = state()
    return during

asyncio.get_event_loop_policy()
before = state()
import flyx
during = asyncio.run(transfer())
after = state()
for name in before:
    assert before[name] == after[name], (name, before[name], after[name])
assert before["loggers"] == during["loggers"]
assert before["collector"][:3] == during["collector"][:3]
"""


def test_the_process_is_left_as_it_was(tmp_path: Path) -> None:
    done = python(STATE, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


WHOLE, *PARTS = blocks_of("flyx/docs/library.md", "python")
"""A program, and functions."""


def test_the_whole_program_of_the_document_does_what_it_says(tmp_path: Path) -> None:
    write_random(tmp_path / "photos" / "a.jpg", 1_000_000)
    write_random(tmp_path / "photos" / "b.jpg", 2_000_000)
    # Variables of flyx are the command line's.
    done = python(WHOLE, tmp_path, FLYX_SERVER="ws://127.0.0.1:1", FLYX_OUTPUT="elsewhere")
    assert (done.returncode, done.stderr) == (0, "")
    assert snapshot(tmp_path / "Downloads" / "photos") == snapshot(tmp_path / "photos")
    lines = done.stdout.splitlines()
    saved = [line for line in lines if line.startswith("saved ")]
    assert sorted(saved) == [f"saved Downloads/photos/{name}.jpg" for name in "ab"]
    assert "3,000,000 of 3,000,000 bytes" in lines
    assert re.search(r"^2 files in \d+\.\d s$", done.stdout, re.MULTILINE)


def test_the_functions_of_the_document_do_what_they_say(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.txt"):
        write_random(tmp_path / "from" / name, 1000)

    async def scenario() -> None:
        printed: asyncio.Queue[str] = asyncio.Queue()
        functions: dict[str, Any] = {"print": printed.put_nowait}
        for program in PARTS:
            exec(program.replace("port=8000", "port=0"), functions)  # noqa: S102 - it is ours
        serving = asyncio.create_task(functions["main"]())
        url = (await printed.get()).removeprefix("rooms at ")
        sending = asyncio.create_task(functions["send"]("from", url))
        assert await functions["fetch"](await printed.get()) == ["photos/from/a.jpg"]
        assert await sending is True
        assert await functions["send"]("nothing", url) is False
        assert (await printed.get()).startswith("bad_input: ")
        serving.cancel()
        await asyncio.wait({serving})

    run(scenario)


def test_the_programs_of_the_document_are_typed(tmp_path: Path) -> None:
    for number, program in enumerate((WHOLE, *PARTS)):
        (tmp_path / f"example_{number}.py").write_text(program)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", ROOT / ".mypy_cache", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
