import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hex, pathOfBytes, unhex } from '../../flyx/web/bytes.js'
import { parseFramesUntrusted } from '../../flyx/web/frames.js'
import { holeDigest } from '../../flyx/web/inbox.js'
import { ManifestInbox } from '../../flyx/web/manifest_inbox.js'
import { parseControlUntrusted } from '../../flyx/web/messages.js'
import { Places } from '../../flyx/web/names.js'
import { VECTORS } from './support.mjs'

function take(messages) {
  const inbox = new ManifestInbox()
  let offered = null
  for (const message of messages) offered = inbox.take(parseControlUntrusted(message, 'sender'))
  return offered
}

test('a manifest is named as the command line names it, whatever its content', () => {
  for (const { id, messages } of VECTORS.manifests) assert.equal(take(messages).manifest.id, id)
})

test('links are left out, and all else has a place', () => {
  const { manifest, leftOut, rows } = take(VECTORS.manifests[0].messages)
  assert.deepEqual(leftOut.map(([, code]) => code), ['links_not_possible', 'not_written'])
  assert.equal(manifest.entries.length + leftOut.length, rows.length)
  assert.equal(new Set(manifest.entries.map(({ path }) => path)).size, manifest.entries.length)
  for (const { path } of manifest.entries) assert.match(path, /^[^\0-\x1f\x7f-\x9f<>:"|?*\\\ud800-\udfff]+$/u)
})

test('a manifest in which one thing is another than was announced is refused', () => {
  const { messages } = VECTORS.manifests[0]
  const start = JSON.parse(messages[0])
  for (const change of [{ bytes: start.bytes - 1 }, { files: 1 }, { entries: 3 }, { roots: 2 }, { manifest_id: '0'.repeat(64) }, { content: 'text' }]) {
    const changed = [JSON.stringify({ ...start, ...change }), ...messages.slice(1)]
    assert.throws(() => take(changed), { code: 'protocol_error' }, JSON.stringify(change))
  }
  assert.throws(() => take([...messages, messages[0]]), { code: 'protocol_error' })
})

test('names that lead out are refused', () => {
  for (const name of ['', '/a', 'a//b', 'a/', './a', 'a/../b', '..', 'a\0', '\ud800', 'x/'.repeat(128) + 'x', 'x'.repeat(3073)]) {
    assert.throws(() => new Places().find(name, false), { code: 'unsafe_name' }, name)
  }
  const places = new Places()
  places.find('a', false)
  assert.throws(() => places.find('a', false), { code: 'unsafe_name' })
  assert.throws(() => places.find('a', true), { code: 'unsafe_name' })
  assert.throws(() => places.find('a/b', false), { code: 'unsafe_name' })
})

test('names that some system cannot have are changed, and no two become one', () => {
  const places = new Places()
  const told = ['a:b', 'a?b', 'A_B', 'con.txt', 'x. ', 'x__', '.flyx', 'é', 'e\u0301', 'D/f', 'd/F', 'D/F', 'D:/f', 'rev\u202egpj.exe', pathOfBytes(unhex('ff41'))]
  const found = told.map((path) => places.find(path, false))
  assert.deepEqual(found, ['a_b', 'a_b (1)', 'A_B (2)', '_con.txt', 'x__', 'x__ (1)', '_.flyx', 'é', 'e\u0301 (1)', 'D/f', 'd (1)/F', 'D/F (1)', 'D_/f', 'rev_gpj.exe', '_A'])
  const long = new Places().find(`${'雨'.repeat(200)}.tar.gz`, false)
  assert.ok(new TextEncoder().encode(long).length <= 240)
  assert.match(long, /\.tar\.gz$/)
})

test('frames that are cut short, unknown or of impossible length are refused', () => {
  const header = (kind, length) => {
    const view = new DataView(new ArrayBuffer(20 + Math.min(length, 100)))
    view.setUint8(0, kind)
    view.setUint32(8, length)
    return view.buffer
  }
  for (const [kind, length] of [[0, 0], [1, 0], [1, 101], [1, 2 ** 31], [2, 31], [4, 0], [4, 65], [5, 1], [6, 10], [7, 1]]) {
    assert.throws(() => parseFramesUntrusted(header(kind, length)), { code: 'protocol_error' }, `${kind} ${length}`)
  }
  assert.equal(parseFramesUntrusted(header(1, 100))[0].payload.length, 100)
  for (const message of ['text', new ArrayBuffer(0), new ArrayBuffer(19)]) {
    assert.throws(() => parseFramesUntrusted(message), { code: 'protocol_error' })
  }
})

test('control messages that are none are refused', () => {
  const bad = ['', 'null', '[]', '{}', '{"type":"ping"}', '{"type":"ping","token":1.5}', '{"type":"ping","token":-1}', '{"type":"constructor"}', '{"type":"accept","below":1}', `{"type":"ping","token":1,"x":"${'ä'.repeat(9000)}"}`, new ArrayBuffer(3)]
  for (const message of bad) assert.throws(() => parseControlUntrusted(message, 'sender'), { code: 'protocol_error' }, String(message).slice(0, 40))
  assert.deepEqual(parseControlUntrusted('{"type":"ping","token":7,"later":1}', 'sender'), { type: 'ping', token: 7 })
})

test('a hole has the digest of its zeros', () => {
  VECTORS.digests.forEach(([content, , hole]) => assert.equal(hex(holeDigest(content.length / 2)), hole))
})
