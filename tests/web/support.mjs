// What the tests in Node share: the vectors that flyx has made, and both ends of channels in memory.
import { readFileSync } from 'node:fs'
import { Channel } from '../../flyx/web/channel.js'

export const VECTORS = JSON.parse(readFileSync(process.env.FLYX_VECTORS))
export const readJson = (name) => JSON.parse(readFileSync(new URL(name, import.meta.url)))

/** Run this, and return what it gives or the message of what it throws, as the vectors have it. */
export function said(work) {
  try {
    return { result: work() }
  } catch (error) {
    if (error.name !== 'FlyxError') throw error
    return { error: error.message }
  }
}

/** One end of a data channel whose messages take a turn of the event loop; the other end is its `peer`. */
class Pipe extends EventTarget {
  readyState = 'open'
  bufferedAmount = 0
  peer = null
  said = []

  send(data) {
    const copy = typeof data === 'string' ? data : data.slice().buffer
    this.said.push(copy)
    setImmediate(() => this.peer.dispatchEvent(Object.assign(new Event('message'), { data: copy })))
  }

  close() {
    for (const end of [this, this.peer]) {
      if (end.readyState === 'closed') continue
      end.readyState = 'closed'
      setImmediate(() => end.dispatchEvent(new Event('close')))
    }
  }
}

/** Return the channels of a sender and of a receiver that are connected; `pipes` has what each has said. */
export function connectedChannels() {
  const ends = [{ maxMessageSize: 65536, pipes: {} }, { maxMessageSize: 65536, pipes: {} }]
  for (const label of ['control', 'data']) {
    const [one, other] = [new Pipe(), new Pipe()]
    ;[one.peer, other.peer] = [other, one]
    ;[ends[0].pipes[label], ends[1].pipes[label]] = [one, other]
    ;[ends[0][label], ends[1][label]] = [new Channel(one), new Channel(other)]
  }
  return ends
}
