#!/usr/bin/env bash
# aiortc 1.16.0 and libdatachannel (npm node-datachannel 0.33.4), seen on 2026-11-30 with Python 3.11 and Node 20.
#
# A description may have several `fingerprint` lines, one for each hash function (RFC 8122 §5), and aiortc's have
# three: SHA-256, SHA-384 and SHA-512 of one certificate. A guess that seems safe: more of them can only help, as
# the other side takes what it knows. In fact libdatachannel keeps the last one of the answer, and hashes the
# certificate with the function that it knew of when ICE connected: that is SHA-256 as long as no answer is kept.
# It begins ICE with an answer before it keeps it, so where its thread is interrupted in between, on a machine that
# has something else to do, it refuses the right certificate (the alert unknown_ca) and the connection has failed.
# Some connections in a hundred do so, for no reason that anybody sees. With one fingerprint, as in the answers of
# browsers, none does: leave one of them in what aiortc says.
#
# Seen, all on one processor, beside a loop that does nothing:
#   three fingerprints: 1 of 37 connections refused
#   SHA-256 alone: 0 of 300 connections refused
set -euo pipefail
folder=$(mktemp -d)
burner=
trap 'kill $burner 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q aiortc==1.16.0
echo '{"private": true, "type": "module"}' > package.json
npm install --silent --no-audit --no-fund node-datachannel@0.33.4

cat > offer.js <<'JS'
// Offers one connection after another: prints each offer, takes an answer, prints how the connection ended.
import { createInterface } from 'node:readline'
import { RTCPeerConnection } from 'node-datachannel/polyfill'

const print = (value) => process.stdout.write(JSON.stringify(value) + '\n')
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
for (;;) {
  const pc = new RTCPeerConnection({ iceServers: [] })
  const channel = pc.createDataChannel('one')
  const ended = new Promise((resolve) => {
    channel.onopen = () => resolve('connected')
    pc.onconnectionstatechange = () => {
      if (['failed', 'disconnected', 'closed'].includes(pc.connectionState)) resolve('refused')
    }
  })
  const gathered = new Promise((resolve) => {
    pc.onicegatheringstatechange = () => pc.iceGatheringState === 'complete' && resolve()
  })
  await pc.setLocalDescription(await pc.createOffer())
  await gathered
  print(pc.localDescription.sdp)
  const { value, done } = await answers.next()
  if (done) break
  await pc.setRemoteDescription({ type: 'answer', sdp: JSON.parse(value) })
  print(await ended)
  pc.close()
}
process.exit(0)
JS

cat > answer.py <<'PY'
import asyncio
import json
from asyncio.subprocess import PIPE

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

MOST = 2000
OTHERS = ("a=fingerprint:sha-384", "a=fingerprint:sha-512")


async def is_refused(node, left_out):
    """Answer one offer, without the lines that begin so."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    offer = json.loads(await node.stdout.readline())
    await pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
    await pc.setLocalDescription(await pc.createAnswer())
    lines = pc.localDescription.sdp.splitlines(keepends=True)
    assert sum(line.startswith("a=fingerprint") for line in lines) == 3
    sdp = "".join(line for line in lines if not line.startswith(left_out))
    node.stdin.write(json.dumps(sdp).encode() + b"\n")
    how = json.loads(await node.stdout.readline())
    await pc.close()
    return how == "refused"


async def main():
    node = await asyncio.create_subprocess_exec("node", "offer.js", stdin=PIPE, stdout=PIPE)
    for tries in range(1, MOST + 1):
        if await is_refused(node, ("nothing",)):
            break
    else:
        raise SystemExit(f"all of {MOST} connections were made: it has changed")
    print(f"three fingerprints: 1 of {tries} connections refused", flush=True)
    as_many = max(300, 3 * tries)
    refused = sum([await is_refused(node, OTHERS) for _ in range(as_many)])
    print(f"SHA-256 alone: {refused} of {as_many} connections refused")
    node.stdin.close()
    await node.wait()
    raise SystemExit(0 if refused == 0 else "with one fingerprint, too: it has changed")


asyncio.run(main())
PY
# On one processor, where something else wants it as well, a thread is interrupted often enough.
cpu=$(python3 -c 'import os; print(min(os.sched_getaffinity(0)))')
taskset -c "$cpu" sh -c 'while :; do :; done' &
burner=$!
taskset -c "$cpu" venv/bin/python answer.py
