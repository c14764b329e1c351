"""Several processes that do the same, and this one, which looks after them.

A worker that ends is started again, after a pause that grows while it keeps ending. SIGTERM, SIGINT and
SIGHUP are passed on; after the first two none is started again. A worker sees the end of its channel when
this process is gone, however that came about.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType

from flyx.errors import InputError
from flyx.server.logs import get_logger

log = get_logger("flyx.server.transport.workers")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
"""Seconds before a worker that has ended is started again: the first pause, and the longest."""

_HEALTHY = 30.0
"""Seconds after which a worker that ends counts as one that had worked."""

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

READY = "ready"
"""What a worker sends through its channel when it works. Instead, it may send an InputError and end."""

Target = Callable[[Connection], None]


@dataclass(slots=True)
class _Worker:
    """One place for a worker, and who holds it.

    Attributes:
        process: None between two of them.
        channel: our end.
        ready: the process works.
        started_at: monotonic seconds.
        pause: before the next start, should it end now.
        due_at: when to start the next one.
    """

    number: int
    target: Target
    process: SpawnProcess | None = None
    channel: Connection | None = None
    ready: bool = False
    started_at: float = 0.0
    pause: float = _FIRST_PAUSE
    due_at: float = 0.0


class Supervisor:
    """Keeps a number of workers running."""

    def __init__(self, targets: Sequence[Target]) -> None:
        """Args:
        targets: what each worker runs, given its end of a channel; they have to be picklable. They end soon
            after SIGTERM or SIGINT, and when the channel does.
        """
        self._context = multiprocessing.get_context("spawn")
        self._workers = [_Worker(number, target) for number, target in enumerate(targets, 1)]
        self._stopping = False
        # All workers have been ready at once.
        self._announced = False
        # From a worker that could not begin.
        self._failure: InputError | None = None
        # Signals that came, to be passed on.
        self._signals: list[int] = []

    def run(self, on_ready: Callable[[], None]) -> None:
        """Run until a signal ends it, and all workers with it.

        Args:
            on_ready: called once, when all workers are ready.

        Raises:
            InputError: A worker could not begin because of what a person has chosen.
        """
        with _wakeable(self._signals) as wakeup:
            try:
                while not self._stopping or any(worker.process for worker in self._workers):
                    self._start_those_due()
                    self._act_on(wait([*self._handles(), wakeup], self._time_to_next_start()), wakeup)
                    self._pass_signals_on()
                    if not self._announced and all(worker.ready for worker in self._workers):
                        self._announced = True
                        on_ready()
            finally:
                for worker in self._workers:
                    if worker.process is not None:
                        worker.process.kill()
        if self._failure is not None:
            raise self._failure

    def _start_those_due(self) -> None:
        for worker in self._workers:
            if worker.process is None and not self._stopping and worker.due_at <= time.monotonic():
                ours, theirs = self._context.Pipe()
                name = f"worker {worker.number}"
                worker.process = self._context.Process(target=worker.target, args=(theirs,), name=name)
                worker.channel = ours
                worker.started_at = time.monotonic()
                worker.process.start()
                # Only the worker holds this end, so that we see it close.
                theirs.close()

    def _handles(self) -> list[Connection | int]:
        handles: list[Connection | int] = []
        for worker in self._workers:
            if worker.process is not None:
                handles.append(worker.process.sentinel)
            if worker.channel is not None:
                handles.append(worker.channel)
        return handles

    def _time_to_next_start(self) -> float | None:
        starts = [worker.due_at for worker in self._workers if worker.process is None]
        return None if self._stopping or not starts else max(0.0, min(starts) - time.monotonic())

    def _act_on(self, news: Sequence[object], wakeup: socket.socket) -> None:
        if wakeup in news:
            with contextlib.suppress(BlockingIOError):
                wakeup.recv(4096)
        for worker in self._workers:
            if worker.channel is not None and worker.channel in news:
                self._receive(worker, worker.channel)
            if worker.process is not None and worker.process.sentinel in news:
                self._ended(worker, worker.process)

    def _receive(self, worker: _Worker, channel: Connection) -> None:
        try:
            word = channel.recv()
        except (EOFError, OSError):
            channel.close()
            worker.channel = None
            return
        if isinstance(word, InputError):
            self._failure = self._failure or word
            self._stopping = True
            self._signal(signal.SIGTERM)
        elif word == READY:
            worker.ready = True

    def _ended(self, worker: _Worker, process: SpawnProcess) -> None:
        process.join()
        lasted = time.monotonic() - worker.started_at
        if not self._stopping:
            worker.pause = _FIRST_PAUSE if lasted > _HEALTHY else worker.pause
            log.error("a worker ended", worker=worker.number, status=process.exitcode, pause=worker.pause)
            worker.due_at = time.monotonic() + worker.pause
            worker.pause = min(2 * worker.pause, _LONGEST_PAUSE)
        process.close()
        worker.process, worker.ready = None, False

    def _pass_signals_on(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            self._stopping = self._stopping or number in (signal.SIGINT, signal.SIGTERM)
            self._signal(number)

    def _signal(self, number: int) -> None:
        for worker in self._workers:
            # One that has ended but is not joined yet still has its id.
            if worker.process is not None and worker.process.pid is not None:
                os.kill(worker.process.pid, number)


@contextlib.contextmanager
def _wakeable(signals: list[int]) -> Iterator[socket.socket]:
    """Collect signals, and give a socket that is readable after each."""

    def collect(number: int, frame: FrameType | None) -> None:
        signals.append(number)

    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    before = {number: signal.signal(number, collect) for number in _PASSED_ON}
    fd_before = signal.set_wakeup_fd(theirs.fileno())
    try:
        yield ours
    finally:
        signal.set_wakeup_fd(fd_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        ours.close()
        theirs.close()
