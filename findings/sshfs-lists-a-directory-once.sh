#!/usr/bin/env bash
# sshfs 3.7.3 of Debian 12 (with libfuse 3.14.0), seen on 2026-11-29 with Linux 6.18. Needs Debian 12, its apt,
# root, /dev/fuse, and the right to mount.
#
# Who empties a directory reads its names by one handle, removes what it found, goes back to the beginning
# (lseek or rewinddir) and reads again, until nothing is left. A guess that seems safe: a handle that is kept
# open on a directory shows at the beginning what is there now, or at least what was there before. On sshfs the
# second reading finds nothing at all, without an error, whatever the directory holds, unless the answer comes
# from the cache of directories; that is dropped by every change made through the mount, or can be off. What was
# not found goes into the cache in its turn: for as long as that holds, 20 s by default, every other program
# finds the directory empty as well. So what is full is taken for empty, by others, too. Only a handle opened
# anew, before anyone has read an old one again, shows the names.
#
# Seen (names read by one handle; again by it; by ls; by ls 22 s later):
#   a file was made before the second reading: a b; nothing; nothing; a b new
#   without the cache (dir_cache=no): a b; nothing; a b; a b
#   nothing changed in between: a b; a b; a b; a b
set -euo pipefail
folder=$(mktemp -d)
trap 'umount -q "$folder/mnt" 2>/dev/null || true; rm -rf "$folder"' EXIT
mkdir -p "$folder/apt/archives/partial" "$folder/mnt" "$folder/there"
touch "$folder/apt/status"
# With all that they depend on, as if nothing were installed; the C library is this machine's.
apt-get install -qq -y --no-install-recommends --download-only -o Dir::Cache="$folder/apt" -o Debug::NoLocking=1 \
  -o Dir::State::status="$folder/apt/status" -o APT::Sandbox::User="$(id -un)" \
  sshfs=3.7.3-1.2~deb12u1 libfuse3-3=3.14.0-4 openssh-sftp-server > "$folder/apt/log"
rm "$folder"/apt/archives/libc6_*.deb
for package in "$folder"/apt/archives/*.deb; do dpkg -x "$package" "$folder/debian"; done
machine=$(uname -m)-linux-gnu
export LD_LIBRARY_PATH="$folder/debian/usr/lib/$machine:$folder/debian/lib/$machine"
export PATH="$folder/debian/usr/bin:$folder/debian/bin:$PATH"
# What sshfs takes for ssh: the other side is here.
printf '#!/bin/sh\nexec %s/debian/usr/lib/openssh/sftp-server\n' "$folder" > "$folder/ssh"
chmod +x "$folder/ssh"
cat > "$folder/twice.py" <<'PY'
import os
import subprocess
import sys
import time


def names(handle: int) -> list[str]:
    os.lseek(handle, 0, os.SEEK_SET)
    return sorted(os.listdir(handle))


folder = sys.argv[1]
seen = []
for options, change in ((), True), (("-o", "dir_cache=no"), False), ((), False):
    for name in os.listdir(f"{folder}/there"):
        os.unlink(f"{folder}/there/{name}")
    for name in ("a", "b"):
        open(f"{folder}/there/{name}", "w").close()
    mount = ["sshfs", *options, "-o", f"ssh_command={folder}/ssh", f"nobody:{folder}/there", f"{folder}/mnt"]
    subprocess.run(mount, check=True)
    first = os.open(f"{folder}/mnt", os.O_RDONLY | os.O_DIRECTORY)
    read = [names(first)]
    if change:
        os.close(os.open("new", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=first))
    read.append(names(first))
    for pause in 0, 22:
        time.sleep(pause)
        ls = subprocess.run(["ls", f"{folder}/mnt"], check=True, capture_output=True, text=True)
        read.append(ls.stdout.split())
    os.close(first)
    subprocess.run(["umount", f"{folder}/mnt"], check=True)
    print(*("changed" if change else "unchanged", *options), read, sep=" ", flush=True)
    seen.append(read)
expected = [
    [["a", "b"], [], [], ["a", "b", "new"]],
    [["a", "b"], [], ["a", "b"], ["a", "b"]],
    [["a", "b"]] * 4,
]
sys.exit(seen != expected)
PY
python3 "$folder/twice.py" "$folder"
