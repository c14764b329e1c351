import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Receiver } from '../../flyx/web/receiver.js'

const PING = JSON.stringify({ type: 'ping', token: 1 })

/** Let a session reach a time; return what it tells on the way. */
function until(session, end) {
  const told = []
  for (let due = session.nextTimeout(); due !== null && due <= end; due = session.nextTimeout()) {
    session.handleTimeout(due)
    for (let event; (event = session.nextEvent());) told.push({ at: due, ...event })
    while (session.nextControl());
  }
  return told
}

test('silence is told once, and that it has ended', () => {
  const session = new Receiver(100, null)
  session.receiveControl(PING, 103)
  assert.deepEqual(until(session, 109.9), [])
  assert.deepEqual(until(session, 120), [{ at: 110, is: 'silent', seconds: 7 }])
  session.receiveControl(PING, 121)
  assert.deepEqual(session.nextEvent(), { is: 'heard' })
  session.receiveControl(PING, 126)
  assert.equal(session.nextEvent(), undefined)
  assert.deepEqual(until(session, 133), [{ at: 133, is: 'silent', seconds: 7 }])
})

test('after 20 s of silence the connection is lost, and nothing more is told', () => {
  const session = new Receiver(100, null)
  const told = until(session, 1000).map(({ at, is, error }) => [at, is, error?.code])
  assert.deepEqual(told, [[107, 'silent', undefined], [120, 'failed', 'connection_lost']])
  assert.equal(session.ended, true)
})
