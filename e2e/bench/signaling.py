"""How much does a signaling server carry, beside others in the same run?

    python -m e2e.bench.signaling [--runs 3] [--clients 15000] [--servers flyx,peer,relay]

One process of clients, one of the server (two cores are enough, and less is not). Each server, one after the
other in each round:

    joins     so many clients enter rooms of two, PARALLEL at a time: TCP, handshake, first message
    idle      resident memory of the server for each of them, once all are in
    relayed   so many pairs play ping-pong with messages of 768 bytes while the others are idle
    p50, p99  the same pairs at half that rate, sent by the clock; from when a message was due to its arrival
    storm     all connections are cut at the same moment and all clients come back at once, STORM_PARALLEL of
              them on their way in at a time; those of flyx resume their sessions

flyx is `flyx serve` with its limits of rates and connections off. `nodes` are two of them on one Redis,
which counts as well, with the two clients of each room on different nodes: --servers nodes,relay --clients
2000. `relay` is e2e/bench/relay.py, `peer` the npm package, of `npm ci --prefix e2e/peers`. Medians (least
to most); CPU is user and system microseconds of the server for each join or relayed message. Every process
needs a descriptor for each client: `ulimit -n` must be above --clients.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator

from e2e.bench.load import Client, ignore
from e2e.bench.signaling_servers import SERVERS, Member, SignalingServer
from flyx.net.loop import new_event_loop

PARALLEL = 64
STORM_PARALLEL = 1000
"""Clients that are on their way in at a time: less than the backlog of a listening socket."""

TICK = 0.001
"""Seconds between two looks at the clock when messages are sent by it."""

DEADLINE = 180.0
"""Seconds for anything at all; a server that fails to answer must not hang the benchmark."""


class Load:
    """All the clients of one server."""

    def __init__(self, server: SignalingServer, clients: int, pairs: int) -> None:
        self._server = server
        self._count = clients
        self._pairs = pairs
        self._members: dict[int, Member] = {}

    async def _connect(self, number: int, path: str, greeting: bytes = b"") -> tuple[Client, bytes]:
        _, client = await asyncio.get_running_loop().create_connection(
            lambda: Client(path, self._server.subprotocol, greeting), *self._server.address(number)
        )
        return client, await client.first

    async def _enter(self, number: int, room: str | None) -> str:
        client, first = await self._connect(number, self._server.path(number, room))
        member = self._members[number] = Member(client, first, self._server.room_of(number, first))
        return member.room

    async def _enter_pair(self, number: int) -> None:
        room = await self._enter(number, None)
        sender = self._members[number].client
        told = asyncio.get_running_loop().create_future()
        if self._server.tells_of_peers:
            # It may come after the peer is in, above all from another node, and is no message of the load.
            sender.hear = _resolve(told)
        else:
            told.set_result(None)
        await self._enter(number + 1, room)
        await told
        sender.hear = ignore

    async def enter_all(self) -> float:
        """Bring all clients in, two to a room; return the seconds that it took."""
        return await _together(self._enter_pair, range(0, self._count, 2), PARALLEL // 2)

    async def storm(self) -> float:
        """Cut all connections at the same moment, have all come back; return the seconds that it took."""
        lost = []
        for member in self._members.values():
            member.client.transport.abort()
            lost.append(member.client.lost)
        await asyncio.gather(*lost)
        return await _together(self._come_back, range(self._count), STORM_PARALLEL)

    async def _come_back(self, number: int) -> None:
        member = self._members[number]
        member.client, member.first = await self._connect(number, *self._server.way_back(number, member))
        # Whoever is not let in is told so instead.
        assert self._server.room_of(number, member.first) == member.room

    def pairs(self) -> Iterator[tuple[Member, Member]]:
        """Return the pairs that talk, with what they say to each other, from all over."""
        step = max(2, self._count // self._pairs // 2 * 2)
        for number in range(0, min(step * self._pairs, self._count), step):
            sender, receiver = self._members[number], self._members[number + 1]
            sender.request, receiver.request = self._server.messages(number, number + 1)
            yield sender, receiver

    async def ping_pong(self, seconds: float) -> int:
        """Let all pairs talk as fast as they can; return how many messages arrived."""
        count = 0

        def reply(member: Member) -> Callable[[bytes], None]:
            write, request = member.client.transport.write, member.request

            def hear(message: bytes) -> None:
                nonlocal count
                count += 1
                write(request)

            return hear

        pairs = list(self.pairs())
        for sender, receiver in pairs:
            sender.client.hear, receiver.client.hear = reply(sender), reply(receiver)
            sender.client.transport.write(sender.request)
        await asyncio.sleep(seconds)
        total = count
        last = [asyncio.get_running_loop().create_future() for _ in pairs]
        for (sender, receiver), end in zip(pairs, last, strict=True):
            # Whichever hears the one message of the pair that is under way does not answer it.
            sender.client.hear = receiver.client.hear = _resolve(end)
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*last)
        return total

    async def paced(self, rate: float, seconds: float) -> list[float]:
        """Send messages at a rate for all pairs together; return the seconds that each was under way."""
        loop = asyncio.get_running_loop()
        delays: list[float] = []
        total = int(rate * seconds)
        done = loop.create_future()

        def note(due: list[float]) -> Callable[[bytes], None]:
            moments = iter(due)

            def hear(message: bytes) -> None:
                # Messages of one client arrive in order.
                delays.append(time.perf_counter() - next(moments))
                if len(delays) == total:
                    done.set_result(None)

            return hear

        members = [member for pair in self.pairs() for member in pair]
        # When what each member says was due; its peer is the other one of its pair.
        dues: list[list[float]] = [[] for _ in members]
        for index, member in enumerate(members):
            member.client.hear = note(dues[index ^ 1])
        started = time.perf_counter()
        sent = 0
        while sent < total:
            wanted = min(total, int((time.perf_counter() - started) * rate))
            while sent < wanted:
                index = sent % len(members)
                dues[index].append(started + sent / rate)
                members[index].client.transport.write(members[index].request)
                sent += 1
            await asyncio.sleep(TICK)
        async with asyncio.timeout(DEADLINE):
            await done
        return delays


async def _together(job: Callable[[int], Awaitable[None]], numbers: range, parallel: int) -> float:
    """Do a job for each number, so many at a time; return the seconds that it took."""
    left = iter(numbers)

    async def some() -> None:
        for number in left:
            await job(number)

    started = time.perf_counter()
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as tasks:
        for _ in range(parallel):
            tasks.create_task(some())
    return time.perf_counter() - started


def _resolve(future: asyncio.Future[None]) -> Callable[[bytes], None]:
    return lambda message: future.set_result(None)


async def measure(name: str, clients: int, pairs: int, seconds: float) -> dict[str, float]:
    """Measure one server once."""
    with SERVERS[name].running(clients) as server:
        load = Load(server, clients, pairs)
        memory, cpu = server.memory(), server.cpu()
        took = await load.enter_all()
        figures = {"joins": clients / took, "join_cpu": (server.cpu() - cpu) / clients * 1e6}
        figures["idle"] = (server.memory() - memory) / clients / 1024
        # Nothing of the load generator's own may show in what follows.
        gc.collect()
        gc.freeze()
        cpu, own = server.cpu(), time.process_time()
        relayed = await load.ping_pong(seconds)
        figures["relayed"] = relayed / seconds
        figures["relay_cpu"] = (server.cpu() - cpu) / relayed * 1e6
        figures["own_cpu"] = (time.process_time() - own) / relayed * 1e6
        delays = sorted(await load.paced(figures["relayed"] / 2, seconds))
        figures["p50"] = delays[len(delays) // 2] * 1e3
        figures["p99"] = delays[len(delays) * 99 // 100] * 1e3
        figures["storm"] = await load.storm()
        return figures


def measure_alone(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Measure with clients in a process of their own, so that no measurement leaves anything to the next."""
    command = [sys.executable, "-m", "e2e.bench.signaling", "--one", name]
    for option in ("clients", "pairs", "seconds"):
        command += [f"--{option}", str(getattr(arguments, option))]
    figures: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return figures


COLUMNS = {
    "joins": "joins/s",
    "join_cpu": "CPU us/join",
    "idle": "KiB/connection",
    "relayed": "relayed/s",
    "relay_cpu": "CPU us/message",
    "p50": "p50 ms",
    "p99": "p99 ms",
    "storm": "storm s",
    "own_cpu": "clients' CPU us/message",
}


def print_table(figures: dict[str, list[dict[str, float]]]) -> None:
    """Print a row for each server and figure, and each figure's ratio to the last server's."""
    base = list(figures.values())[-1]
    for key, unit in COLUMNS.items():
        for name, runs in figures.items():
            values = [run[key] for run in runs]
            ratio = statistics.median(run[key] / other[key] for run, other in zip(runs, base, strict=True))
            middle, least, most = statistics.median(values), min(values), max(values)
            print(f"{name:8} {middle:10.1f} ({least:.1f} to {most:.1f})  x{ratio:.2f}  {unit}")


def main() -> None:
    """Measure and print the table."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--clients", type=int, default=15_000)
    parser.add_argument("--pairs", type=int, default=50, help="that talk, one message of each under way")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement of messages")
    parser.add_argument("--servers", default="flyx,peer,relay")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            measuring = measure(arguments.one, arguments.clients, arguments.pairs, arguments.seconds)
            print(json.dumps(runner.run(measuring)))
        return
    names = arguments.servers.split(",")
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(arguments.runs):
        for name in names:
            figures[name].append(measure_alone(name, arguments))
    print(
        f"{arguments.clients} clients, {arguments.pairs} pairs, {arguments.runs} rounds; "
        f"median (least to most), ratio to {names[-1]}"
    )
    print_table(figures)


if __name__ == "__main__":
    main()
