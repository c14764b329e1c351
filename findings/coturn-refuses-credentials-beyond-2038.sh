#!/usr/bin/env bash
# coturn 4.6.1 of Debian 12, seen on 2026-11-29 with Linux 6.18. Needs Debian 12, its apt and python3-venv; no root.
#
# With use-auth-secret, a user name begins with the time until which it is good, in seconds since 1970, and
# whoever has the secret chooses that time. A guess that seems safe for credentials that are to be good "for
# ever", in a device that nobody comes to again or in a test: a time far away, 2100 or 9999999999. In fact
# coturn compares times in 32 bits with a sign: the last second that it knows is 2147483647, in January 2038,
# and all of these later ones have passed long ago for it. It answers 401 as for a wrong password, and its log
# says that it cannot find the credentials of the user, so that one looks for the mistake in the secret.
# What helps: a time up to 2147483647; or lt-cred-mech with a user and a password, which end never.
#
# Seen:
#   1795943033 (2026-11-29): success
#   2147483647 (2038-01-19): success
#   2147483648 (2038-01-19): 401 Unauthorized
#   4102444800 (2100-01-01): 401 Unauthorized
#   9999999999 (2286-11-20): 401 Unauthorized
#   log: check_stun_auth: Cannot find credentials of user <9999999999:user>
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
cat > "$folder/expiry.py" <<'PY'
import base64
import hashlib
import hmac
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from aioice.stun import Class, Message, Method, parse_message

REALM, SECRET = "example.org", "secret"
folder = Path(sys.argv[1])


def ask(sock: socket.socket, method: Method, attributes: dict, key: bytes = b"") -> Message:
    request = Message(method, Class.REQUEST)
    request.attributes.update(attributes)
    if key:
        request.add_message_integrity(key)
    sock.send(bytes(request))
    return parse_message(sock.recv(2000))


def allocate(port: int, expiry: int) -> str:
    """Ask for an allocation as RFC 8656 has it, with credentials that end then; return what is answered."""
    username = f"{expiry}:user"
    password = base64.b64encode(hmac.digest(SECRET.encode(), username.encode(), "sha1")).decode()
    key = hashlib.md5(f"{username}:{REALM}:{password}".encode()).digest()
    wanted = {"REQUESTED-TRANSPORT": 17 << 24}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect(("127.0.0.1", port))
        nonce = ask(sock, Method.ALLOCATE, wanted).attributes["NONCE"]
        answer = ask(sock, Method.ALLOCATE, {**wanted, "USERNAME": username, "REALM": REALM, "NONCE": nonce}, key)
    return "success" if answer.message_class is Class.RESPONSE else "{} {}".format(*answer.attributes["ERROR-CODE"])


with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
command = [folder / "debian/usr/bin/turnserver", "-n", "--use-auth-secret", f"--static-auth-secret={SECRET}"]
command += [f"--realm={REALM}", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={port}"]
command += ["--no-cli", "--no-tls", "--no-dtls", "--log-file=stdout", "--simple-log"]
command += [f"--pidfile={folder / 'pid'}", f"--userdb={folder / 'db'}"]
log = folder / "log"
libraries = {**os.environ, "LD_LIBRARY_PATH": sys.argv[2]}
turnserver = subprocess.Popen(command, stdout=log.open("w"), stderr=subprocess.STDOUT, env=libraries)
try:
    until = time.monotonic() + 20
    while "IPv4. UDP listener opened" not in log.read_text() and time.monotonic() < until:
        time.sleep(0.05)
    seen = []
    for expiry in (int(time.time()) + 3600, 2**31 - 1, 2**31, 4102444800, 9999999999):
        seen.append(allocate(port, expiry))
        print(f"{expiry} ({time.strftime('%Y-%m-%d', time.gmtime(expiry))}): {seen[-1]}")
finally:
    turnserver.kill()
    turnserver.wait()
last = [line for line in log.read_text().splitlines() if "ERROR" in line][-1]
print("log:", last.partition("ERROR: ")[2])
raise SystemExit(seen != ["success"] * 2 + ["401 Unauthorized"] * 3)
PY
"$folder/venv/bin/python" "$folder/expiry.py" "$folder" "$libraries"
