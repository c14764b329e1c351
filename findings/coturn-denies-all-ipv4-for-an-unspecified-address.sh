#!/usr/bin/env bash
# coturn 4.6.1 of Debian 12, seen on 2026-11-29 with Linux 6.18. Needs Debian 12, its apt and python3-venv; no root.
#
# denied-peer-ip takes an address or a range of them, FIRST-LAST, that no client may have as a peer. Who denies
# the special addresses one by one comes to the unspecified one, 0.0.0.0 or ::, and to those that IPv6 once had
# for IPv4 (::/96), ::-::ffff:ffff. A guess that seems safe: an address denies itself, and an IPv6 range denies
# IPv6 peers. In fact coturn takes the unspecified address, as the beginning or end of a range, for none at all:
# each of these lines denies all IPv4 peers there are, and the relay reaches nobody over IPv4. Allocations go on
# to succeed, so that whoever looks for a relay candidate finds all well. What helps: begin at ::1 or at
# 0.0.0.1, or with a longer range such as 0.0.0.0-0.255.255.255; the log names the line by which a peer is denied.
#
# Seen (the answers to Allocate and to CreatePermission for 203.0.113.9, a peer in none of the ranges):
#   nothing denied: success, success
#   denied-peer-ip=0.0.0.0-0.255.255.255: success, success
#   denied-peer-ip=0.0.0.0: success, 403 Forbidden IP
#   denied-peer-ip=::1-::ffff:ffff: success, success
#   denied-peer-ip=::-::ffff:ffff: success, 403 Forbidden IP
#   denied-peer-ip=::: success, 403 Forbidden IP
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/apt/archives/partial"
touch "$folder/apt/status"
# With all that it depends on, as if nothing were installed; the C library is this machine's.
apt-get install -qq -y --no-install-recommends --download-only -o Dir::Cache="$folder/apt" -o Debug::NoLocking=1 \
  -o Dir::State::status="$folder/apt/status" -o APT::Sandbox::User="$(id -un)" coturn=4.6.1-1 > "$folder/apt/log"
rm "$folder"/apt/archives/libc6_*.deb
for package in "$folder"/apt/archives/*.deb; do dpkg -x "$package" "$folder/debian"; done
libraries="$folder/debian/usr/lib/$(uname -m)-linux-gnu:$folder/debian/lib/$(uname -m)-linux-gnu"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q 'aioice==0.13.0'
cat > "$folder/denied.py" <<'PY'
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from aioice.stun import Class, Message, Method, parse_message

# What is denied, and what is answered for a peer that is not in it.
EXPECTED = {
    "": "success",
    "0.0.0.0-0.255.255.255": "success",
    "0.0.0.0": "403 Forbidden IP",
    "::1-::ffff:ffff": "success",
    "::-::ffff:ffff": "403 Forbidden IP",
    "::": "403 Forbidden IP",
}
folder = Path(sys.argv[1])


def ask(sock: socket.socket, method: Method, attributes: dict) -> str:
    request = Message(method, Class.REQUEST)
    request.attributes.update(attributes)
    sock.send(bytes(request))
    answer = parse_message(sock.recv(2000))
    return "success" if answer.message_class is Class.RESPONSE else "{} {}".format(*answer.attributes["ERROR-CODE"])


def permission(denied: str) -> tuple[str, str]:
    """Start a relay that denies this; return what it answers to Allocate and to CreatePermission."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = [folder / "debian/usr/bin/turnserver", "-n", "--no-auth", "--listening-ip=127.0.0.1"]
    command += ["--relay-ip=127.0.0.1", f"--listening-port={port}", "--no-cli", "--no-tls", "--no-dtls"]
    command += ["--log-file=stdout", "--simple-log", f"--pidfile={folder / 'pid'}", f"--userdb={folder / 'db'}"]
    if denied:
        command.append(f"--denied-peer-ip={denied}")
    libraries = {**os.environ, "LD_LIBRARY_PATH": sys.argv[2]}
    log = folder / "log"
    turnserver = subprocess.Popen(command, stdout=log.open("w"), stderr=subprocess.STDOUT, env=libraries)
    try:
        until = time.monotonic() + 20
        while "IPv4. UDP listener opened" not in log.read_text() and time.monotonic() < until:
            time.sleep(0.05)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.connect(("127.0.0.1", port))
            allocated = ask(sock, Method.ALLOCATE, {"REQUESTED-TRANSPORT": 17 << 24})
            return allocated, ask(sock, Method.CREATE_PERMISSION, {"XOR-PEER-ADDRESS": ("203.0.113.9", 9)})
    finally:
        turnserver.kill()
        turnserver.wait()


seen = {denied: permission(denied) for denied in EXPECTED}
for denied, (allocated, permitted) in seen.items():
    print(f"denied-peer-ip={denied}" if denied else "nothing denied", f"{allocated}, {permitted}", sep=": ")
raise SystemExit(seen != {denied: ("success", expected) for denied, expected in EXPECTED.items()})
PY
"$folder/venv/bin/python" "$folder/denied.py" "$folder" "$libraries"
