import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Arrivals } from '../../flyx/web/arrivals.js'
import { judge } from '../../flyx/web/description.js'
import { FlyxError } from '../../flyx/web/errors.js'
import { FramePacker, parseFramesUntrusted } from '../../flyx/web/frames.js'
import { manifestOf } from '../../flyx/web/listing.js'
import { manifestMessages, parseControlUntrusted } from '../../flyx/web/messages.js'
import { Receiver } from '../../flyx/web/receiver.js'
import { Sender } from '../../flyx/web/sender.js'
import { checkJoined, parseServerUntrusted } from '../../flyx/web/server_messages.js'
import { holeDigest } from '../../flyx/web/inbox.js'
import { Sha256 } from '../../flyx/web/sha256.js'
import { VECTORS } from './support.mjs'

const ROUNDS = Number(process.env.FLYX_ROUNDS ?? 3000)
const BLOCK = 1 << 20

/** Numbers from 0 to below, the same in each run of a seed (mulberry32). */
function dice(seed) {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
}

const ODD = [null, true, -1, 0.5, 2 ** 53, 1e300, '', '\ud800', '\0', 'x'.repeat(5000), [], {}, [[]], '__proto__']

/** Return a value with one thing in it changed. */
function mutated(value, roll) {
  if (typeof value !== 'object' || value === null || roll(4) === 0) return ODD[roll(ODD.length)]
  const copy = structuredClone(value)
  const keys = Object.keys(copy)
  if (!keys.length) return ODD[roll(ODD.length)]
  const key = keys[roll(keys.length)]
  if (roll(5) === 0) delete copy[key]
  else copy[key] = mutated(copy[key], roll)
  return copy
}

/** Run this; whatever it throws must be an error of the other side. */
function refuses(work, context) {
  try {
    work()
  } catch (error) {
    assert.ok(error instanceof FlyxError && error.code !== 'bug', `${context}: ${error.stack}`)
  }
}

const FROM_SENDER = VECTORS.manifests.flatMap(({ messages }) => messages).map((text) => JSON.parse(text))
const FROM_RECEIVER = [
  { type: 'accept', below: 2 },
  { type: 'credit', bytes: 1 << 24, written: 0 },
  { type: 'saved', files: [0] },
  { type: 'kept', files: [[0, '00'.repeat(32)]] },
  { type: 'have', file: 0, first: 0, sha256: ['00'.repeat(32)] },
  { type: 'left_out', entries: [[1, 'not_wanted']] },
  { type: 'compare', files: [0] },
  { type: 'go_on', offset: 7 },
  { type: 'hash_with', algorithm: 'sha256' },
  { type: 'complete', files: 2, bytes: 5, sha256: '00'.repeat(32) },
  { type: 'ping', token: 1 },
  { type: 'pong', token: 1 },
  { type: 'cancel', code: 'declined', message: 'no' },
]
const FROM_SERVER = [
  {
    type: 'joined',
    data: {
      room_id: 'K7M2QX',
      client_id: 'us',
      role: 'receiver',
      resume_token: 'token',
      recovered: false,
      received: 0,
      peers: [{ client_id: 'other', role: 'sender' }],
      ice_servers: [{ urls: ['stun:192.0.2.1:3478'], username: 'u', credential: 'c' }],
      ice_servers_ttl: 60,
      limits: { max_message_size: 65536, max_clients: 2, grace: 30 },
    },
  },
  { type: 'join', data: { client_id: 'other', role: 'sender' } },
  { type: 'offer', data: { client_id: 'other', sdp: 'v=0' } },
  { type: 'ice_candidate', data: { client_id: 'other', candidate: { candidate: 'candidate:1', sdpMid: '0' } } },
  { type: 'disconnect', data: { client_id: 'other', reason: 'bye', away: true } },
  { type: 'error', data: { code: 'room_full', message: 'no', fatal: true, retry_after: 1 } },
]

test('a message of the server that is none is refused, whatever is wrong with it', () => {
  const roll = dice(1)
  for (let round = 0; round < ROUNDS; round++) {
    const text = JSON.stringify(mutated(FROM_SERVER[roll(FROM_SERVER.length)], roll))
    refuses(() => {
      const message = parseServerUntrusted(text, 'receiver')
      if (message.type === 'joined') checkJoined(message, { roomId: 'K7M2QX', role: 'receiver', claim: null })
    }, text)
  }
})

test('a control message that is none is refused, whatever is wrong with it', () => {
  const roll = dice(2)
  for (let round = 0; round < ROUNDS; round++) {
    const [known, speaker] = roll(2) ? [FROM_SENDER, 'sender'] : [FROM_RECEIVER, 'receiver']
    const text = JSON.stringify(mutated(known[roll(known.length)], roll))
    refuses(() => parseControlUntrusted(text, speaker), text)
  }
})

const SDP = [
  'v=0',
  'm=application 9 UDP/DTLS/SCTP webrtc-datachannel',
  'a=ice-ufrag:user',
  `a=ice-pwd:${'p'.repeat(22)}`,
  `a=fingerprint:sha-256 ${Array(32).fill('73').join(':')}`,
  'a=setup:actpass',
  'a=mid:0',
  'a=sctp-port:5000',
  'a=max-message-size:65536',
  'a=candidate:1 1 udp 1 192.0.2.1 1 typ host',
]

test('a description that is none is refused, and of the others only what matters is left', () => {
  const roll = dice(3)
  const more = ['m=audio 9 UDP/TLS/RTP/SAVPF 111', 'a=mid:1', `a=fingerprint:sha-256 ${Array(32).fill('74').join(':')}`]
  more.push('a=fingerprint:sha-384 00:11', 'a=rtpmap:111 opus/48000/2', 'a=x\0', 'a=max-message-size:5', 'a=crypto:1')
  for (let round = 0; round < ROUNDS; round++) {
    const lines = [...SDP]
    for (let change = roll(3); change >= 0; change--) {
      if (roll(2)) lines.splice(roll(lines.length), 1)
      else lines.splice(roll(lines.length), 0, [...more, ...SDP][roll(more.length + SDP.length)])
    }
    refuses(() => {
      const { sdp, fingerprint } = judge(lines.join('\r\n'))
      assert.equal(fingerprint.length, 32)
      assert.equal(sdp.match(/^m=/gm).length, 1)
      assert.equal(sdp.match(/^a=fingerprint:/gm).length, 1)
      assert.doesNotMatch(sdp, /candidate|rtpmap|crypto/)
    }, lines)
  }
})

test('frames that are changed anywhere are refused or are other frames', () => {
  const roll = dice(4)
  const packer = new FramePacker(65536)
  packer.add(1, 0, 0, new Uint8Array(2000))
  packer.add(2, 0, 0, new Uint8Array(32))
  packer.add(3, 0, 2000, new Uint8Array(32))
  packer.flush()
  const whole = packer.pop()
  for (let round = 0; round < ROUNDS; round++) {
    const message = whole.slice(0, roll(whole.length + 1))
    if (message.length) message[roll(Math.min(message.length, 40))] = roll(256)
    refuses(() => parseFramesUntrusted(message.buffer), round)
  }
})

const FILES = [0, 1, 2500, BLOCK + 7].map((size, number) => ({ path: `d/f${number}`, size }))

/** What an honest sender has to say of FILES, all of whose bytes are zeros: the manifest, and data messages. */
function honest() {
  const manifest = manifestOf(FILES)
  const packer = new FramePacker(40_000)
  FILES.forEach(({ size }, file) => {
    const whole = new Sha256()
    for (let at = 0; at < size; at += BLOCK) {
      const length = Math.min(BLOCK, size - at)
      const digest = holeDigest(length)
      if (length === BLOCK) packer.add(5, file, at, new Uint8Array(0))
      else packer.add(1, file, at, new Uint8Array(length))
      if (length < BLOCK) packer.add(2, file, at, digest)
      whole.update(digest)
    }
    packer.add(3, file, size, whole.digest())
  })
  packer.flush()
  return { texts: [...manifestMessages(manifest)].map((message) => JSON.stringify(message)), data: packer.messages }
}

/** Have a receiver take these, doing what it asks for; return how it ended, or null. */
function received(texts, data) {
  const machine = new Receiver(0, null)
  let end = null
  const drain = () => {
    for (let event; (event = machine.nextEvent()); ) {
      if (event.is === 'offered') machine.accept(new Arrivals(event.offered))
      if (event.is === 'failed' || event.is === 'received') end = event
    }
    for (let operation; (operation = machine.nextOperation()); ) {
      const { arrivals } = machine
      if (operation.do === 'write') arrivals.appendBlock(operation.file, operation.digest ?? holeDigest(operation.length))
      if (operation.do === 'finish') arrivals.finish(operation.file, operation.digest)
      if (operation.do === 'discard') arrivals.lose(operation.file)
      machine.operationDone(operation)
    }
    while (machine.nextControl());
  }
  drain()
  for (const text of texts) {
    machine.receiveControl(text, 1)
    drain()
  }
  for (const message of data) {
    machine.receiveData(typeof message === 'string' ? message : message.slice().buffer, 1)
    drain()
  }
  machine.receiveControl('{"type":"done"}', 1)
  drain()
  return end
}

test('an honest sender is understood', () => {
  const { texts, data } = honest()
  const end = received(texts, data)
  assert.deepEqual([end.is, end.files, end.bytes], ['received', 4, 1 + 2500 + BLOCK + 7])
})

test('whatever a sender says, a receiver refuses it or goes on', () => {
  const roll = dice(5)
  const { texts, data } = honest()
  for (let round = 0; round < ROUNDS / 5; round++) {
    const said = [...texts]
    const sent = data.map((message) => message.slice())
    if (roll(2)) {
      const at = roll(said.length)
      said[at] = JSON.stringify(mutated(JSON.parse(said[at]), roll))
    } else if (roll(3) === 0) {
      const [one, other] = [roll(sent.length), roll(sent.length)]
      ;[sent[one], sent[other]] = [sent[other], sent[one]]
    } else {
      const message = sent[roll(sent.length)]
      message[roll(message.length)] ^= 1 << roll(8)
    }
    const end = received(said, sent)
    if (end?.is === 'failed') assert.notEqual(end.error.code, 'bug', `${round}: ${end.error.stack}`)
  }
})

test('more data than was granted ends it', () => {
  const { texts } = honest()
  const flood = Array.from({ length: 20 }, () => new Uint8Array(1 << 20))
  assert.equal(received(texts, flood).error.code, 'protocol_error')
})

test('whatever a receiver says, a sender refuses it or goes on', () => {
  const roll = dice(6)
  const manifest = manifestOf([{ path: 'a', size: 3 }, { path: 'b', size: 2 }])
  for (let round = 0; round < ROUNDS; round++) {
    const machine = new Sender(manifest, 65536, 0)
    if (roll(20)) machine.release()
    for (let step = 0; step < 12; step++) {
      const message = FROM_RECEIVER[roll(FROM_RECEIVER.length)]
      machine.receiveControl(JSON.stringify(roll(3) ? message : mutated(message, roll)), 1)
      const request = machine.nextRead()
      if (request && roll(4)) machine.blockRead(new Uint8Array(request.length), new Uint8Array(32))
      else if (request) machine.blockFailed('file_changed')
      while (machine.nextDataSize !== null) machine.nextData()
      while (machine.nextControl());
      for (let event; (event = machine.nextEvent()); ) {
        if (event.is === 'failed') assert.notEqual(event.error.code, 'bug', event.error.stack)
      }
    }
  }
})
