"""How many round trips does a small transfer take over a long path, and what are they spent on?

    python -m e2e.bench.trips [--size 1MB] [--rtt 0.2] [--rate 100] [--runs 5] [--python PATH] [--timeline]

Two network namespaces joined by an emulated link (e2e/link), server and sender on one, the receiver on the
other; whole commands. Figures are seconds from starting `flyx receive`: to the first verified byte, to the
last one, and to the end of both programs; and the last in round trips. --python runs the flyx of another
environment, such as an older build. --timeline prints when what happens first, in round trips, of each run:
the receiver's events, and the packets that its host sends (>) or gets (<). Needs root, iproute2 and a C
compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from e2e.link import Link, missing
from e2e.processes import write_random
from flyx.cli.demo import parse_size

Moment = tuple[float, str]
"""When something happened, in seconds of time.time(), and what."""

TCP, UDP = 6, 17
LARGE = 1000
"""Bytes of a datagram that carries a part of a file."""

_ETH_P_ALL = 3
_USE_CANDIDATE = 0x0025
_HANDSHAKE = {1: "ClientHello", 2: "ServerHello", 11: "Certificate"}


def kind_of(packet: bytes) -> str | None:
    """Return what an IPv4 packet is of a transfer, in a few words; None if it is of no interest."""
    header = (packet[0] & 15) * 4
    payload = packet[header : struct.unpack_from("!H", packet, 2)[0]]
    if packet[9] == TCP:
        flags, data = payload[13], payload[(payload[12] >> 4) * 4 :]
        if flags & 2:
            return "TCP SYN"
        if flags & 1:
            return "TCP FIN"
        return "WebSocket upgrade" if data[:4] in (b"GET ", b"HTTP") else "TCP data" if data else None
    if packet[9] != UDP:
        return None
    datagram = payload[8:]
    match datagram[0]:
        case 0 | 1:
            answers = struct.unpack_from("!H", datagram)[0] & 0x0110
            nominates = any(attribute == _USE_CANDIDATE for attribute in _stun_attributes(datagram))
            what = "nomination" if nominates else "check"
            return "answer to a check" if answers else what
        case 22:
            # Of a second epoch it is encrypted.
            is_plain = datagram[3:5] == b"\0\0"
            return f"DTLS {_HANDSHAKE.get(datagram[13], 'handshake')}" if is_plain else "DTLS Finished"
        case 21:
            return "DTLS alert"
        case 23:
            return "data" if len(datagram) > LARGE else "small message"
        case _:
            return None


def _stun_attributes(message: bytes) -> Iterator[int]:
    at = 20
    while at + 4 <= len(message):
        attribute, length = struct.unpack_from("!HH", message, at)
        yield attribute
        at += 4 + (length + 3 & ~3)


def capture() -> None:
    """Print the first and the last packet of each kind on this host's link, until SIGTERM."""
    seen: dict[str, list[float]] = {}

    def report(*_: object) -> None:
        print(json.dumps([(at, kind) for kind, times in seen.items() for at in times[:2] + times[-1:]]))
        sys.exit()

    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)) as sock:
        sock.bind(("wan0", _ETH_P_ALL))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        signal.signal(signal.SIGTERM, report)
        print("ready", flush=True)
        while True:
            packet, address = sock.recvfrom(65536)
            if packet[0] >> 4 == 4 and (kind := kind_of(packet)):
                direction = ">" if address[2] == socket.PACKET_OUTGOING else "<"
                seen.setdefault(f"{direction} {kind}", []).append(time.time())


class Bench:
    """Transfers over a link of its own, with the flyx of one environment."""

    def __init__(self, link: Link, python: str, scratch: Path) -> None:
        self._link = link
        self._flyx = [python, "-m", "flyx"]
        self._scratch = scratch

    def run(self, source: Path) -> tuple[float, list[Moment]]:
        """Transfer a file; return when the receiver was started, and what happened when."""
        link, flyx, pipe = self._link, self._flyx, subprocess.PIPE
        address = link.address("left")
        # Away from a checkout: what is imported is what is installed.
        place = {"cwd": self._scratch, "text": True}
        serve = subprocess.Popen(
            link.on("left", [*flyx, "serve", "--host", address, "--port", 8000, "--stun", "none"]),
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            **place,
        )
        watch = subprocess.Popen(
            link.on("right", [sys.executable, "-m", "e2e.bench.trips", "--capture"]), stdout=pipe, text=True
        )
        try:
            assert serve.stdout is not None
            assert watch.stdout is not None
            server = serve.stdout.readline().split()[-1]
            watch.stdout.readline()
            options = ["--server", server]
            send = subprocess.Popen(
                link.on("left", [*flyx, "send", *options, "--quiet", source]), stdout=pipe, **place
            )
            assert send.stdout is not None
            code = send.stdout.readline().split()[-1]
            target = self._scratch / "received"
            started = time.time()
            receive = subprocess.Popen(
                link.on("right", [*flyx, "receive", *options, "--json", "--yes", "-o", target, code]),
                stdout=pipe,
                **place,
            )
            assert receive.stdout is not None
            moments: list[Moment] = []
            for line in receive.stdout:
                event = json.loads(line)
                if event["event"] == "progress" and event["bytes"]:
                    moments.append((event["time"], "progress"))
                elif event["event"] != "progress":
                    moments.append((event["time"], event["event"]))
            for name, process in (("the receiver ends", receive), ("the sender ends", send)):
                if process.wait():
                    raise subprocess.CalledProcessError(process.returncode, process.args)
                moments.append((time.time(), name))
            subprocess.run(["rm", "-r", target], check=True)
        finally:
            for process in (serve, watch):
                process.terminate()
        output, _ = watch.communicate()
        serve.wait()
        moments += [(at, kind) for at, kind in json.loads(output)]
        return started, sorted(moments)


def main() -> None:
    """Measure and print the figures."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--size", default="1MB")
    parser.add_argument("--rtt", type=float, default=0.2)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--timeline", action="store_true")
    parser.add_argument("--capture", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.capture:
        capture()
    if lacking := missing():
        sys.exit(f"this needs {lacking}")
    # Bytecode is kept, as it is of other programs.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    rtt: float = arguments.rtt
    figures: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory() as scratch,
        Link(rate_mbit=arguments.rate, delay_ms=rtt * 500) as link,
    ):
        bench = Bench(link, arguments.python, Path(scratch))
        source = write_random(Path(scratch, "source.bin"), parse_size(arguments.size))
        for _ in range(arguments.runs):
            started, moments = bench.run(source)
            times = {what: at - started for at, what in reversed(moments)}
            ends = max(times["the receiver ends"], times["the sender ends"])
            for name, figure in (
                ("s to the first verified byte", times["progress"]),
                ("s to the last", times["done"]),
                ("s to the end of both", ends),
                ("round trips from the first packet to the end of both", (ends - times["> TCP SYN"]) / rtt),
            ):
                figures.setdefault(name, []).append(figure)
            if arguments.timeline:
                for at, what in moments:
                    print(f"{(at - started) / rtt:7.2f}  {what}")
    for name, values in figures.items():
        spread = f"({min(values):.2f} to {max(values):.2f})"
        print(f"{statistics.median(values):7.2f} {spread:18} {name}", flush=True)


if __name__ == "__main__":
    main()
