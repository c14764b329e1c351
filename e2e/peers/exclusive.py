"""A program that keeps port 5353 of UDP to itself until it is killed: `python -m e2e.peers.exclusive`."""

from __future__ import annotations

import socket
import sys

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kept:
    kept.bind(("", 5353))
    sys.stdout.write('{"ready": true}\n')
    sys.stdout.flush()
    sys.stdin.read()
