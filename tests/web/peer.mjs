// The engine of the page as one end of a conversation over standard input and output, without WebRTC and without a
// server: receive() or send() with both of them made up here.
//
//     node peer.mjs '{"role": "receiver", "words": ..., "directory": ..., "held": {path: blocks}}'
//     node peer.mjs '{"role": "sender", "words": ..., "paths": [[name, path], ...]}'
//
// Each line is one of {"control": text}, {"data": base64}, {"closed": label}, and from here {"event": ...} as well.
import { createHash } from 'node:crypto'
import { promises as fs } from 'node:fs'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { receive, send } from '../../flyx/web/flyx.js'

const BLOCK = 1 << 20
const options = JSON.parse(process.argv[2])
const isSender = options.role === 'sender'
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n')
const event = (target, type, fields = {}) => target.dispatchEvent(Object.assign(new Event(type), fields))

/** A description of either end; certificates are as BINDING in tests/pairing/support.py has them. */
const sdpOf = (role) =>
  [
    'v=0',
    'm=application 9 UDP/DTLS/SCTP webrtc-datachannel',
    'a=ice-ufrag:user',
    `a=ice-pwd:${'p'.repeat(22)}`,
    `a=fingerprint:sha-256 ${Array(32).fill(role.charCodeAt(0).toString(16)).join(':')}`,
    `a=setup:${role === 'sender' ? 'actpass' : 'active'}`,
    'a=mid:0',
    'a=sctp-port:5000',
    'a=max-message-size:65536',
    '',
  ].join('\r\n')

class WireChannel extends EventTarget {
  readyState = 'connecting'
  bufferedAmount = 0

  constructor(label) {
    super()
    this.label = label
  }

  send(data) {
    say(typeof data === 'string' ? { [this.label]: data } : { [this.label]: Buffer.from(data).toString('base64') })
  }

  open() {
    this.readyState = 'open'
    event(this, 'open')
  }

  close() {
    if (this.readyState === 'open') say({ closed: this.label })
    this.closed()
  }

  closed() {
    if (this.readyState === 'closed') return
    this.readyState = 'closed'
    setImmediate(() => event(this, 'close'))
  }
}
const channels = { control: new WireChannel('control'), data: new WireChannel('data') }

class WireConnection extends EventTarget {
  sctp = { maxMessageSize: 65536 }
  localDescription = null

  createDataChannel = (label) => channels[label]
  createOffer = async () => ({ sdp: sdpOf('sender') })
  createAnswer = async () => ({ sdp: sdpOf('receiver') })
  setLocalDescription = async (description) => (this.localDescription = description)
  addIceCandidate = async () => {}
  getStats = async () => new Map()
  close = () => {}

  async setRemoteDescription() {
    if (!isSender) for (const channel of Object.values(channels)) event(this, 'datachannel', { channel })
    for (const channel of Object.values(channels)) channel.open()
    createInterface({ input: process.stdin }).on('line', (line) => {
      const { closed, control, data } = JSON.parse(line)
      if (closed && isSender) socket.tell('disconnect', { client_id: 'other' })
      if (closed) channels[closed].closed()
      else if (control !== undefined) event(channels.control, 'message', { data: control })
      else event(channels.data, 'message', { data: Uint8Array.from(Buffer.from(data, 'base64')).buffer })
    })
  }
}

let socket
/** The server: we are in the room, and so is the other side. */
class WireSocket extends EventTarget {
  readyState = 1

  constructor() {
    super()
    socket = this
    const peer = { client_id: 'other', role: isSender ? 'receiver' : 'sender' }
    const limits = { max_message_size: 65536, max_clients: 8, grace: 30 }
    const us = { room_id: 'K7M2QX', client_id: 'us', role: options.role, resume_token: 'token', peers: [peer], limits }
    setImmediate(() => {
      event(this, 'open')
      this.tell('joined', us)
      if (isSender) this.tell('join', peer)
      else this.tell('offer', { client_id: 'other', sdp: sdpOf('sender') })
    })
  }

  tell(type, data) {
    event(this, 'message', { data: JSON.stringify({ type, data }) })
  }

  send(text) {
    const { type } = JSON.parse(text)
    if (type === 'offer') setImmediate(() => this.tell('answer', { client_id: 'other', sdp: sdpOf('receiver') }))
  }

  close(code) {
    setImmediate(() => event(this, 'close', { code }))
  }
}

/** A directory; what is held of it are so many blocks of each file, or all. */
function sinkIn(directory) {
  let parts = []
  return {
    begin: async ({ entries }) => {
      const held = []
      for (const { index, path } of entries) {
        if (!(path in options.held)) continue
        const content = await fs.readFile(join(directory, path))
        const digests = []
        for (let at = 0; at < content.length && digests.length < options.held[path]; at += BLOCK) {
          digests.push(new Uint8Array(createHash('sha256').update(content.subarray(at, at + BLOCK)).digest()))
        }
        held.push({ index, digests, complete: digests.length * BLOCK >= content.length })
      }
      return held
    },
    open: async ({ path, kind }, offset) => {
      const place = join(directory, path)
      await fs.mkdir(kind === 'directory' ? place : dirname(place), { recursive: true })
      parts = offset ? [(await fs.readFile(place)).subarray(0, offset)] : []
    },
    write: async (_, offset, bytes) => parts.push(bytes),
    finish: async ({ path, kind }) => {
      if (kind === 'file') await fs.writeFile(join(directory, path), Buffer.concat(parts))
    },
    discard: async () => {},
    end: async () => {},
  }
}

/** What was read so far, each time into memory of its own, as a File has it. */
const buffers = []
const sourceOf = async ([path, place]) => {
  const content = await fs.readFile(place)
  const read = async (offset, length) => {
    const { buffer } = Uint8Array.from(content.subarray(offset, offset + length))
    buffers.push(buffer)
    return buffer
  }
  return { path, size: content.length, mtime: 1000, read }
}

// A sender goes on waiting when it has failed with one receiver; here nobody else will come.
const stopped = new AbortController()
function on({ manifest, ...told }) {
  say({ event: told })
  if (told.state === 'failed') stopped.abort()
}
const common = {
  server: 'http://here',
  on,
  signal: stopped.signal,
  reconnect: 0,
  RTCPeerConnection: WireConnection,
  WebSocket: WireSocket,
}
try {
  if (isSender) {
    const entries = await Promise.all((options.paths ?? []).map(sourceOf))
    await send({ ...common, entries, text: options.text, words: options.words })
    if (buffers.some(({ byteLength }) => byteLength)) throw new Error('what was read is in memory still')
  } else {
    await receive({ ...common, code: `K7M2QX-${options.words}`, ask: async () => sinkIn(options.directory) })
  }
} catch (error) {
  if (error.code === 'bug' || error.name !== 'FlyxError') throw error
}
// What was said may still be on its way to a pipe.
process.stdout.write('', () => process.exit(0))
