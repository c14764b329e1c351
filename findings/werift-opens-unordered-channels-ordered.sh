#!/usr/bin/env bash
# werift 0.25.2, seen on 2026-11-29 with Node 20.
#
# A data channel for what is better late than never, or never than late - positions in a game, sensor values -
# is opened with { ordered: false, maxRetransmits: 0 }. A guess that seems safe: the side that opens it decides,
# and DATA_CHANNEL_OPEN (RFC 8832 §5.1) tells the other one both things, in its channel type. In fact werift
# sends the channel type of an ordered channel as soon as there is a limit of retransmissions or of lifetime:
# the other side, whatever stack that is, delivers what it sends in order, and one lost message holds up those
# behind it. `ordered: false` alone is told as it is. On the side that opened it, the channel says it is unordered.
#
# Seen (what the other side is told):
#   unordered: ordered false, maxRetransmits null, maxPacketLifeTime null
#   unordered, maxRetransmits 0: ordered true, maxRetransmits 0, maxPacketLifeTime null
#   unordered, maxRetransmits 3: ordered true, maxRetransmits 3, maxPacketLifeTime null
#   unordered, maxPacketLifeTime 500: ordered true, maxRetransmits null, maxPacketLifeTime 500
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"private": true, "type": "module"}' > package.json
npm install --silent --no-audit --no-fund werift@0.25.2
cat > open.js <<'JS'
import { RTCPeerConnection } from 'werift'

const KINDS = {
  'unordered': { ordered: false },
  'unordered, maxRetransmits 0': { ordered: false, maxRetransmits: 0 },
  'unordered, maxRetransmits 3': { ordered: false, maxRetransmits: 3 },
  'unordered, maxPacketLifeTime 500': { ordered: false, maxPacketLifeTime: 500 },
}
const [left, right] = [new RTCPeerConnection({ iceServers: [] }), new RTCPeerConnection({ iceServers: [] })]
const told = {}
const allTold = new Promise((resolve) => {
  right.ondatachannel = ({ channel }) => {
    told[channel.label] = channel
    if (Object.keys(told).length === Object.keys(KINDS).length) resolve()
  }
})
const ours = Object.entries(KINDS).map(([label, init]) => left.createDataChannel(label, init))
await left.setLocalDescription(await left.createOffer())
await right.setRemoteDescription(left.localDescription)
await right.setLocalDescription(await right.createAnswer())
await left.setRemoteDescription(right.localDescription)
await allTold
let asSeen = ours.every((channel) => channel.ordered === false)
for (const [label, init] of Object.entries(KINDS)) {
  const { ordered, maxRetransmits, maxPacketLifeTime } = told[label]
  console.log(`${label}: ordered ${ordered}, maxRetransmits ${maxRetransmits}, maxPacketLifeTime ${maxPacketLifeTime}`)
  asSeen &&= ordered === Object.keys(init).length > 1
}
process.exit(asSeen ? 0 : 1)
JS
node open.js
