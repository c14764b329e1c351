import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pathOfBytes, pathSize, unhex } from '../../flyx/web/bytes.js'
import { caseFold, checkOwnWords, drawWords, formatCode, invitationUrl, parseInvitation, resolveWords } from '../../flyx/web/codes.js'
import { WORDS } from '../../flyx/web/wordlist.js'
import { said, VECTORS } from './support.mjs'

const ROOM = 'K7M2QX'

test('the words are those of the command line', () => {
  assert.deepEqual(WORDS, VECTORS.words)
})

test('the case of every letter folds as in the command line', () => {
  for (const [letter, folded] of VECTORS.folds) assert.equal(caseFold(letter), folded, `U+${letter.codePointAt(0).toString(16)}`)
})

test('an invitation is what the command line takes it for', () => {
  for (const [text, expected] of VECTORS.invitations) {
    const found = said(() => {
      const { server, roomId, words } = parseInvitation(text)
      return [server, roomId, words]
    })
    assert.deepEqual(found, expected, text)
  }
})

test('words of the list are found as the command line finds them', () => {
  for (const [text, expected] of VECTORS.typed) {
    assert.deepEqual(said(() => resolveWords(parseInvitation(`000000 ${text}`).words, 2)), expected, text)
  }
})

test('words of one\'s own are judged as the command line judges them', () => {
  for (const [text, expected] of VECTORS.own) assert.deepEqual(said(() => checkOwnWords(text)), expected, text)
})

test('a link has the room in its path and the words where no server sees them', () => {
  const url = invitationUrl('wss://flyx.example.org/', ROOM, 'lemon-otter')
  assert.equal(url, 'https://flyx.example.org/K7M2QX#lemon-otter')
  assert.deepEqual(parseInvitation(url), { server: 'https://flyx.example.org/', roomId: ROOM, words: ['lemon', 'otter'] })
  assert.deepEqual(parseInvitation('http://h:8000/k7m2qx'), { server: 'http://h:8000/', roomId: ROOM, words: [] })
  assert.deepEqual(parseInvitation(invitationUrl('http://h/flyx', ROOM, '雨-の')).words, ['雨', 'の'])
})

test('what is drawn is understood', () => {
  const words = drawWords(8)
  assert.deepEqual(parseInvitation(formatCode(ROOM, words.join('-'))), { server: null, roomId: ROOM, words })
})

test('a path that is no UTF-8 is what Python makes of its bytes', () => {
  for (const [bytes, units] of VECTORS.paths) {
    const path = pathOfBytes(unhex(bytes))
    assert.deepEqual(Array.from({ length: path.length }, (_, i) => path.charCodeAt(i)), units)
    assert.equal(pathSize(path), bytes.length / 2)
  }
})
