"""Signals end a command, also one whose event loop turns no more: real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from flyx.cli.signals import ONE_SIGNAL

# The loop never turns again in the first three, nor does a task end in the last.
STUCK = {
    "a loop of Python": "while True: pass",
    "a system call": "import time; time.sleep(1000)",
    "a lock": "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "a task that takes no cancellation": """
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            pass
""",
}

PROGRAM = """
import asyncio
from flyx.cli.runtime import run

async def work():
    print("stuck", flush=True)
    {stuck}

run(work())
"""


@pytest.mark.parametrize("stuck", STUCK.values(), ids=STUCK)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_whatever_the_loop_is_stuck_in(stuck: str, number: signal.Signals) -> None:
    program = PROGRAM.format(stuck=stuck)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "stuck\n"
            process.send_signal(number)
            # As a person does who sees that nothing happens; signals closer together count as one.
            time.sleep(2 * ONE_SIGNAL)
            process.send_signal(number)
            assert process.wait(timeout=20) == -number
        finally:
            process.kill()


def test_a_signal_that_comes_twice_at_once_is_one() -> None:
    program = PROGRAM.format(
        stuck="""
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        print("told peers", flush=True)
        raise
"""
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "stuck\n"
            for _ in range(5):
                os.kill(process.pid, signal.SIGTERM)
            assert process.stdout.read() == "told peers\n"
        finally:
            process.kill()


def test_a_command_may_have_more_files_open_than_its_shell_allows() -> None:
    program = """
    import resource
    from flyx.cli.runtime import run

    async def work():
        print(resource.getrlimit(resource.RLIMIT_NOFILE))

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    run(work())
    print((65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536), hard))
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert ran.stderr == ""
    has, expected = ran.stdout.splitlines()
    assert has == expected


def test_what_is_loaded_meanwhile_keeps_nothing_waiting() -> None:
    """The loader is held up here until the work has begun, and the work waits for the loader then."""
    program = textwrap.dedent(
        """
        import asyncio, gc, sys, threading
        from flyx.cli.runtime import run

        begun = threading.Event()

        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name == "slow":
                    begun.wait()

        async def work():
            begun.set()
            try:
                import slow
            except ImportError as error:
                return str(error)

        gc.disable()
        sys.meta_path.insert(0, Finder())
        print(run(work(), loading="slow"))
        for thread in threading.enumerate():
            if thread.name == "flyx-load":
                thread.join()
        print(gc.isenabled())
        """
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["No module named 'slow'", "True"]
    assert done.stderr == ""
