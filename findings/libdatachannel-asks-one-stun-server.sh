#!/usr/bin/env bash
# node-datachannel 0.33.4 (libdatachannel 0.24.5 with libjuice), seen on 2026-11-29 with Node 20.
#
# `iceServers` takes a list of STUN servers. A guess that seems safe, since browsers, pion and libwebrtc do so:
# all of them are asked, so that a second one makes up for a first one that is down. In fact each connection
# draws one of them at random and asks no other: with one of two servers dead, about half of all connections
# have no server-reflexive candidate, and behind a NAT they fail, now and then and at random.
# What helps: give it one server that is up, or try again with another connection.
#
# Seen, 24 connections with two servers that answer:
#   asked both: 0, asked one: 24, each of the two was chosen: true
# and with one of the two dead (figures vary):
#   with a server-reflexive candidate: 11 of 24
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"private": true, "type": "module"}' > package.json
npm install --silent --no-audit --no-fund node-datachannel@0.33.4
cat > ask.js <<'JS'
import dgram from 'node:dgram'
import nodeDataChannel from 'node-datachannel'

const COUNT = 24
const COOKIE = [0x21, 0x12, 0xa4, 0x42]

// A STUN server (RFC 8489) that counts, and answers each binding request with one mapped address if it lives.
async function stunServer(alive) {
  const socket = dgram.createSocket('udp4')
  const server = { asked: 0, socket }
  socket.on('message', (request, from) => {
    server.asked += 1
    if (!alive) return
    const response = Buffer.alloc(32)
    response.writeUInt16BE(0x0101, 0)
    response.writeUInt16BE(12, 2)
    request.copy(response, 4, 4, 20)
    response.writeUInt16BE(0x0020, 20)
    response.writeUInt16BE(8, 22)
    response[25] = 1
    response.writeUInt16BE(from.port ^ 0x2112, 26)
    ;[203, 0, 113, 9].forEach((byte, i) => (response[28 + i] = byte ^ COOKIE[i]))
    socket.send(response, from.port, from.address)
  })
  await new Promise((resolve) => socket.bind(0, '127.0.0.1', resolve))
  server.url = `stun:127.0.0.1:${socket.address().port}`
  return server
}

// Gathers once; tells how many server-reflexive candidates there are after a while.
async function gather(servers) {
  for (const server of servers) server.asked = 0
  const connection = new nodeDataChannel.PeerConnection('peer', { iceServers: servers.map(({ url }) => url) })
  let reflexive = 0
  connection.onLocalCandidate((candidate) => (reflexive += candidate.includes('typ srflx') ? 1 : 0))
  connection.createDataChannel('data')
  await new Promise((resolve) => setTimeout(resolve, 700))
  connection.close()
  return { reflexive, asked: servers.map(({ asked }) => asked > 0) }
}

const [one, two, dead] = [await stunServer(true), await stunServer(true), await stunServer(false)]
let [both, single, reflexive] = [0, 0, 0]
const chosen = new Set()
for (let i = 0; i < COUNT; i++) {
  const { asked } = await gather([one, two])
  if (asked[0] && asked[1]) both += 1
  if (asked[0] !== asked[1]) {
    single += 1
    chosen.add(asked[0])
  }
}
for (let i = 0; i < COUNT; i++) if ((await gather([dead, one])).reflexive > 0) reflexive += 1
console.log(`asked both: ${both}, asked one: ${single}, each of the two was chosen: ${chosen.size === 2}`)
console.log(`with a server-reflexive candidate: ${reflexive} of ${COUNT}`)
process.exit(both === 0 && single === COUNT && chosen.size === 2 && reflexive > 0 && reflexive < COUNT ? 0 : 1)
JS
node ask.js
