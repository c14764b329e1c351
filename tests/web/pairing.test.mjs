import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hex, unhex, utf8 } from '../../flyx/web/bytes.js'
import * as cpace from '../../flyx/web/cpace.js'
import { pairAsReceiver, pairAsSender, Tries } from '../../flyx/web/pairing.js'
import { Sha256, sha256 } from '../../flyx/web/sha256.js'
import { connectedChannels, readJson, VECTORS } from './support.mjs'

const DRAFT = readJson('../pairing/data/cpace.json')
const PAIRINGS = readJson('../pairing/data/pairing.json').pairings
const RUN = Object.fromEntries(Object.entries(DRAFT.run).map(([name, value]) => [name, unhex(value)]))
const FINGERPRINTS = { sender: new Uint8Array(32).fill(1), receiver: new Uint8Array(32).fill(2) }
const never = new AbortController().signal

test('SHA-256 piece by piece is that of the standard', async () => {
  for (const [content, digest] of VECTORS.digests) {
    const bytes = unhex(content)
    const whole = new Sha256()
    for (const byte of bytes) whole.update(Uint8Array.of(byte))
    assert.equal(hex(whole.digest()), digest)
    assert.equal(hex(new Sha256().update(bytes).copy().digest()), digest)
    assert.equal(hex(await sha256(bytes)), digest)
  }
})

test('CPace is that of the draft', async () => {
  for (const [parts, joined] of DRAFT.lv_cat) assert.equal(hex(cpace.lvCat(...parts.map(unhex))), joined)
  assert.equal(hex(cpace.generatorString(RUN.prs, RUN.ci, RUN.sid)), DRAFT.generator_string)
  assert.equal(hex(await cpace.calculateGenerator(RUN.prs, RUN.ci, RUN.sid)), DRAFT.run.g)
  assert.equal(hex(await cpace.scalarMultVfy(RUN.ya, RUN.g)), DRAFT.run.Ya)
  assert.equal(hex(await cpace.scalarMultVfy(RUN.yb, RUN.Ya)), DRAFT.run.K)
  const transcript = cpace.transcriptIr(RUN.Ya, RUN.ADa, RUN.Yb, RUN.ADb)
  assert.equal(hex(await cpace.intermediateSessionKey(RUN.sid, RUN.K, transcript)), DRAFT.run.ISK_IR)
})

test('points of low order are refused and their neighbours are not', async () => {
  const { scalar, points } = DRAFT.scalar_mult_vfy
  for (const [point, product] of points) {
    const found = cpace.scalarMultVfy(unhex(scalar), unhex(point))
    if (/[^0]/.test(product)) assert.equal(hex(await found), product)
    else await assert.rejects(found, { code: 'protocol_error' })
  }
})

for (const { name, inputs, messages, cpace: steps, session } of PAIRINGS.slice(0, 2)) {
  test(`a pairing ends in the key of the command line, from its shares: ${name}`, async () => {
    // The features in the hello are other ones here: what follows from them differs, CPace does not.
    const [prs, ci, sid] = [steps.prs, steps.ci, steps.sid].map(unhex)
    const generator = await cpace.calculateGenerator(prs, ci, sid)
    assert.equal(hex(generator), steps.generator)
    for (const role of ['sender', 'receiver']) {
      assert.equal(hex(await cpace.scalarMultVfy(unhex(inputs.scalars[role]), generator)), steps.shares[role])
    }
    assert.ok(messages.length && session.id)
  })
}

/** Pair both ends; return what each came to. */
async function pair({ code = {}, words = 'lemon-otter', receiver = {}, sender = {} }) {
  const [ours, theirs] = connectedChannels()
  const binding = { roomId: 'K7M2QX', fingerprints: FINGERPRINTS }
  const close = (channels) => () => channels.control.close()
  const asSender = pairAsSender(ours, {
    binding,
    code: { kind: 'words', words: 2, password: 'lemon-otter', ...code },
    tries: new Tries(),
    sessions: new Map(),
    signal: never,
    ...sender,
  })
  const asReceiver = pairAsReceiver(theirs, { binding, session: null, hasWords: true, ask: async () => words, signal: never, ...receiver })
  // Whoever reads why it is over closes.
  asSender.catch(close(ours))
  asReceiver.catch(close(theirs))
  const [one, other] = await Promise.allSettled([asSender, asReceiver])
  return { sender: one.value ?? one.reason, receiver: other.value ?? other.reason, ours, theirs }
}

test('two ends with the same words pair, and leave a key that takes the place of the words', async () => {
  const sessions = new Map()
  const { sender, receiver } = await pair({ sender: { sessions } })
  assert.deepEqual(sender, receiver)
  assert.ok(sender.features.has('texts'))
  const again = await pair({ words: null, receiver: { session: receiver.session }, sender: { sessions } })
  assert.deepEqual(again.sender, again.receiver)
  assert.equal(sessions.size, 2)
})

test('wrong words are counted by the sender, and close the room at the third', async () => {
  const tries = new Tries()
  for (const expected of ['wrong_words', 'wrong_words', 'too_many_tries']) {
    const { sender, receiver } = await pair({ words: 'lemon-ocean', sender: { tries } })
    assert.equal(sender.code, expected)
    assert.equal(receiver.code, expected)
  }
  const { sender } = await pair({ sender: { tries } })
  assert.equal(sender.code, 'too_many_tries')
})

test('whoever is in between is found out', async () => {
  const fingerprints = { ...FINGERPRINTS, sender: new Uint8Array(32).fill(3) }
  const { sender, receiver } = await pair({ receiver: { binding: { roomId: 'K7M2QX', fingerprints } } })
  assert.equal(sender.code, 'connection_mismatch')
  assert.equal(receiver.code, 'connection_mismatch')
})

test('a sender without words is refused by who has some, and taken by who has none', async () => {
  const code = { kind: 'open', words: 0, password: '' }
  assert.equal((await pair({ code })).receiver.code, 'no_words_asked')
  const { sender, receiver } = await pair({ code, receiver: { hasWords: false } })
  assert.equal(sender.session, null)
  assert.equal(receiver.session, null)
})

test('a receiver is silent until the sender has spoken, as Chromium loses what is sent when a channel opens', async () => {
  const [ours, theirs] = connectedChannels()
  const binding = { roomId: 'K7M2QX', fingerprints: FINGERPRINTS }
  const receiver = pairAsReceiver(theirs, { binding, session: null, hasWords: true, ask: async () => 'x', signal: never })
  receiver.catch(() => {})
  await new Promise((resolve) => setTimeout(resolve, 20))
  assert.deepEqual(theirs.pipes.control.said, [])
  ours.control.send(JSON.stringify({ type: 'hello', version: 3 }))
  const first = await new Promise((resolve) => ours.control.listen({ message: resolve }))
  assert.equal(JSON.parse(first).type, 'hello')
  ours.control.close()
  await assert.rejects(receiver, { code: 'other_version' })
})

test('what the sender says after pairing is left for the transfer', async () => {
  const { ours, theirs } = await pair({})
  ours.control.send('the next')
  const next = await new Promise((resolve) => theirs.control.listen({ message: resolve }))
  assert.equal(next, 'the next')
})

test('a receiver that is stopped while its person thinks tells the sender', async () => {
  const stopped = new AbortController()
  const thinking = () => new Promise(() => stopped.abort(Object.assign(new Error('stopped'), { code: 'interrupted' })))
  const { sender } = await pair({ receiver: { ask: thinking, signal: stopped.signal } })
  assert.match(sender.message, /the receiver ended it|the receiver stopped it/)
})

for (const message of ['[]', '{', 'null', '{"type":"hello"}', '{"type":"__proto__"}', `{"type":"reject","reason":"${'x'.repeat(70)}"}`]) {
  test(`a message that is none of pairing ends it: ${message.slice(0, 30)}`, async () => {
    const [ours, theirs] = connectedChannels()
    theirs.control.listen({ message: () => {} })
    theirs.control.send(message)
    const binding = { roomId: 'K7M2QX', fingerprints: FINGERPRINTS }
    const pairing = pairAsReceiver(ours, { binding, session: null, hasWords: false, ask: async () => 'x', signal: never })
    setTimeout(() => theirs.control.close(), 50)
    await assert.rejects(pairing, { code: 'protocol_error' })
  })
}

test('a peer of another version is told apart from one that speaks nonsense', async () => {
  const [ours, theirs] = connectedChannels()
  theirs.control.send(JSON.stringify({ type: 'hello', version: 3, whatever: 1 }))
  setTimeout(() => theirs.control.close(), 50)
  const binding = { roomId: 'K7M2QX', fingerprints: FINGERPRINTS }
  const pairing = pairAsReceiver(ours, { binding, session: null, hasWords: false, ask: async () => utf8('x'), signal: never })
  await assert.rejects(pairing, { code: 'other_version' })
})
