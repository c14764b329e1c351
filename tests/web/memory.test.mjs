// What a transfer leaves behind in memory. A browser frees what nobody has any more when it sees fit, and Firefox
// only when that is hundreds of MB: so buffers are emptied when they have been of use, and nothing refers to them.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Arrivals } from '../../flyx/web/arrivals.js'
import { free } from '../../flyx/web/bytes.js'
import { Channel } from '../../flyx/web/channel.js'
import { BLOCK_END, DATA, FILE_END, FILE_FAILED, FramePacker, parseFramesUntrusted } from '../../flyx/web/frames.js'
import { FileInbox } from '../../flyx/web/inbox.js'
import { connectedChannels } from './support.mjs'

const BLOCK = 1 << 20
const DIGEST = new Uint8Array(32)

/** Bytes that tell where they were. */
const content = (length, seed) => Uint8Array.from({ length }, (_, at) => (at * 31 + (at >> 8) + seed) & 0xff)

const row = (size) => ({ kind: 'file', size })

/** An inbox of files of these sizes, or of a stream. */
function inboxOf(sizes, kind = 'files') {
  const manifest = { content: kind, files: sizes.length, bytes: 0 }
  return new FileInbox(new Arrivals({ manifest, rows: sizes.map(row), leftOut: [], failures: 0 }))
}

/** Have an inbox take these frames in messages of a channel, each of which is emptied; return the writes. */
function written(inbox, frames, maxMessageSize = 65536) {
  const packer = new FramePacker(maxMessageSize)
  for (const frame of frames) packer.add(...frame)
  packer.flush()
  const operations = packer.messages.flatMap(({ buffer }) => {
    const made = parseFramesUntrusted(buffer).flatMap((frame) => inbox.take(frame))
    free(buffer)
    return made
  })
  return operations.filter(({ do: what }) => what === 'write')
}

test('a freed buffer is empty', () => {
  const buffer = new ArrayBuffer(9)
  free(buffer)
  assert.equal(buffer.byteLength, 0)
})

test('a channel empties the messages that it has delivered and those that it has sent', async () => {
  const [{ data: sender }, { data: receiver, pipes }] = connectedChannels()
  const sizes = []
  const come = []
  pipes.data.addEventListener('message', ({ data }) => come.push(data))
  const arrived = (count) =>
    new Promise((resolve) => {
      const look = () => (come.length < count ? setImmediate(look) : resolve())
      look()
    })
  const first = new Uint8Array(5)
  sender.send(first)
  assert.equal(first.length, 0)
  await arrived(1)
  // Nobody has listened so far.
  assert.equal(come[0].byteLength, 5)
  receiver.listen({ message: (message) => sizes.push(message.byteLength) })
  sender.send(new Uint8Array(7))
  await arrived(2)
  assert.deepEqual(sizes, [5, 7])
  assert.deepEqual(come.map(({ byteLength }) => byteLength), [0, 0])
})

test('bytes that a closed channel drops are taken as well', () => {
  const raw = Object.assign(new EventTarget(), { readyState: 'closed', bufferedAmount: 0 })
  const message = new Uint8Array(5)
  new Channel(raw).send(message)
  assert.equal(message.length, 0)
})

test('blocks are whole when the messages that they came in are empty', () => {
  for (const maxMessageSize of [16_384, 65_536, 262_144]) {
    const [one, other] = [content(2 * BLOCK + 5, 1), content(9, 2)]
    const frames = []
    for (let at = 0; at < one.length; at += BLOCK) {
      frames.push([DATA, 0, at, one.subarray(at, at + BLOCK)], [BLOCK_END, 0, at, DIGEST])
    }
    const end = frames.length
    frames.push([DATA, 1, 0, other], [BLOCK_END, 1, 0, DIGEST])
    const inbox = inboxOf([one.length, other.length])
    const writes = written(inbox, frames.slice(0, end), maxMessageSize)
    assert.deepEqual(Buffer.concat(writes.map(({ bytes }) => bytes)), Buffer.from(one))
    assert.deepEqual(writes.map(({ bytes }) => bytes.buffer.byteLength), [BLOCK, BLOCK, 5])
    assert.equal(new Set(writes.map(({ bytes }) => bytes.buffer)).size, 3)
  }
})

test('short blocks that wait need no more memory than there was credit for', () => {
  const frames = [1, 2, 3, 4].flatMap((at) => [
    [DATA, 0, at - 1, content(1, at)],
    [BLOCK_END, 0, at - 1, DIGEST],
  ])
  const writes = written(inboxOf([0], 'stream'), frames)
  assert.deepEqual(writes.map(({ bytes }) => [...bytes]), [[1], [2], [3], [4]])
  assert.deepEqual(writes.map(({ bytes }) => bytes.buffer.byteLength), [1, 1, 1, 1])
})

test('only the last part of a block may be a splinter', () => {
  const parts = (...sizes) => {
    let at = 0
    return sizes.map((size) => [DATA, 0, (at += size) - size, content(size, 1)])
  }
  const frames = parts(1024, 1)
  const [{ bytes }] = written(inboxOf([0], 'stream'), [...frames, [BLOCK_END, 0, 0, DIGEST]])
  assert.equal(bytes.length, 1025)
  assert.throws(() => written(inboxOf([0], 'stream'), parts(1023, 1)), { code: 'protocol_error' })
})

test('nothing of a file that was given up is in the next', () => {
  const frames = [
    [DATA, 0, 0, content(5000, 1)],
    [FILE_FAILED, 0, 0, Uint8Array.from('file_changed', (letter) => letter.charCodeAt(0))],
    [DATA, 1, 0, content(3000, 2)],
    [BLOCK_END, 1, 0, DIGEST],
  ]
  const [write, ...others] = written(inboxOf([6000, 3000]), frames)
  assert.deepEqual(others, [])
  assert.deepEqual(write.bytes, content(3000, 2))
})

test('what was packed may be emptied before it is sent', () => {
  const packer = new FramePacker(65_536)
  const payload = content(100_000, 1)
  packer.add(DATA, 0, 0, payload)
  free(payload.buffer)
  packer.add(FILE_END, 0, 100_000, DIGEST)
  packer.flush()
  const frames = packer.messages.flatMap(({ buffer }) => parseFramesUntrusted(buffer))
  const data = frames.filter(({ kind }) => kind === DATA).map((frame) => frame.payload)
  assert.deepEqual(Buffer.concat(data), Buffer.from(content(100_000, 1)))
  assert.equal(packer.size, packer.messages.reduce((sum, { buffer }) => sum + buffer.byteLength, 0))
})
