#!/usr/bin/env bash
# node-datachannel 0.33.4 (its W3C interface, /polyfill) and werift 0.25.2, seen on 2026-11-30 with Node 20.
#
# RTCDataChannel's send() takes any view of a buffer. A guess that seems safe, since browsers do so and
# @roamhq/wrtc as well: the bytes that lie under the view are sent. In fact these two turn a typed array into one
# of bytes, element by element: of each number its lowest 8 bits remain, what is behind the point is dropped, and
# the message has as many bytes as there were elements. Nothing is raised and the other side gets a message that
# looks well; samples of sound or coordinates arrive as noise, and a Float32Array of what lies between 0 and 1 as
# zeros. ArrayBuffer, Uint8Array and Buffer are sent as they are, which is why most programs never notice.
# What helps: send new Uint8Array(view.buffer, view.byteOffset, view.byteLength).
#
# Seen, with Node 20 (little-endian), the same for node-datachannel and werift:
#   ArrayBuffer: sent 0102030405060708, got 0102030405060708
#   Uint8Array: sent 0102030405060708, got 0102030405060708
#   Uint16Array: sent 0102030405060708, got 01030507
#   Int16Array: sent feff2c01, got fe2c
#   Float32Array: sent 0000803e0000c03f, got 0001
# and with @roamhq/wrtc 0.10.0 all five as they were sent.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"private": true, "type": "module"}' > package.json
npm install --silent --no-audit --no-fund node-datachannel@0.33.4 werift@0.25.2 @roamhq/wrtc@0.10.0
cat > send.js <<'JS'
import assert from 'node:assert/strict'
import wrtc from '@roamhq/wrtc'
import * as datachannel from 'node-datachannel/polyfill'
import * as werift from 'werift'

const BYTES = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)
const SENT = {
  ArrayBuffer: BYTES.buffer,
  Uint8Array: BYTES,
  Uint16Array: new Uint16Array(BYTES.buffer),
  Int16Array: Int16Array.of(-2, 300),
  Float32Array: Float32Array.of(0.25, 1.5),
}
const AS_SENT = {
  ArrayBuffer: '0102030405060708',
  Uint8Array: '0102030405060708',
  Uint16Array: '0102030405060708',
  Int16Array: 'feff2c01',
  Float32Array: '0000803e0000c03f',
}
const CUT = { ...AS_SENT, Uint16Array: '01030507', Int16Array: 'fe2c', Float32Array: '0001' }

// Two connections of a stack, and a channel between them: [its one end, its other end].
async function channel({ RTCPeerConnection }) {
  const [left, right] = [new RTCPeerConnection({ iceServers: [] }), new RTCPeerConnection({ iceServers: [] })]
  // Candidates wait until both descriptions are set.
  const waiting = []
  let pass = (...one) => waiting.push(one)
  left.onicecandidate = ({ candidate }) => candidate?.candidate && pass(right, candidate)
  right.onicecandidate = ({ candidate }) => candidate?.candidate && pass(left, candidate)
  const bare = ({ type, sdp }) => ({ type, sdp: sdp.replace(/^a=(candidate|end-of-candidates).*\r?\n/gm, '') })
  const ours = left.createDataChannel('data')
  const opened = new Promise((resolve) => (ours.onopen = resolve))
  const theirs = new Promise((resolve) => (right.ondatachannel = (event) => resolve(event.channel)))
  await left.setLocalDescription(await left.createOffer())
  await right.setRemoteDescription(bare(left.localDescription))
  await right.setLocalDescription(await right.createAnswer())
  await left.setRemoteDescription(bare(right.localDescription))
  pass = (to, candidate) => to.addIceCandidate(candidate)
  for (const one of waiting) pass(...one)
  await opened
  return [ours, await theirs]
}

const EXPECTED = [
  ['node-datachannel', datachannel, CUT],
  ['werift', werift, CUT],
  ['@roamhq/wrtc', wrtc, AS_SENT],
]
for (const [name, stack, expected] of EXPECTED) {
  const [ours, theirs] = await channel(stack)
  theirs.binaryType = 'arraybuffer'
  const got = {}
  console.log(name)
  for (const [kind, data] of Object.entries(SENT)) {
    const message = new Promise((resolve) => (theirs.onmessage = resolve))
    ours.send(data)
    got[kind] = Buffer.from((await message).data).toString('hex')
    console.log(`  ${kind}: sent ${AS_SENT[kind]}, got ${got[kind]}`)
  }
  assert.deepEqual(got, expected)
}
process.exit(0)
JS
timeout 60 node send.js
