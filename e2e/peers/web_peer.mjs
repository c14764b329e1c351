// The page's engine (flyx/web) in Node, with the WebRTC of an npm package: one run of receive() or send().
//
//     node web_peer.mjs '{"stack": "wrtc", "do": "receive", "server": ..., "code": ..., "directory": ...}'
//     node web_peer.mjs '{"stack": "wrtc", "do": "send", "server": ..., "paths": [[name, path], ...]}'
//
// Events go to standard output, one a line. A line "stop" on standard input ends it early.
import { createReadStream, promises as fs } from 'node:fs'
import { createInterface } from 'node:readline'
import { dirname, join } from 'node:path'
import WebSocket from 'ws'
import { entryOf, receive, send } from '../../flyx/web/flyx.js'

const options = JSON.parse(process.argv[2])
const { RTCPeerConnection } = options.stack === 'wrtc' ? (await import('@roamhq/wrtc')).default : await import('node-datachannel/polyfill')
const stopped = new AbortController()
createInterface({ input: process.stdin }).on('line', (line) => line === 'stop' && stopped.abort())

const emit = (event) => process.stdout.write(JSON.stringify(event) + '\n')
const on = (event) => emit(event.event === 'manifest' ? { ...event, manifest: undefined, paths: event.manifest.entries.map(({ path }) => path) } : event)
const common = { server: options.server, on, signal: stopped.signal, RTCPeerConnection, WebSocket }

/** A directory, written as blocks come. */
function directorySink(directory) {
  let file
  return {
    begin: async () => {},
    open: async (entry, offset) => {
      const path = join(directory, entry.path)
      await fs.mkdir(entry.kind === 'directory' ? path : dirname(path), { recursive: true })
      if (entry.kind === 'file') file = await fs.open(path, offset ? 'r+' : 'w')
    },
    write: (_, offset, bytes) => file.write(bytes, 0, bytes.length, offset),
    finish: async (entry) => {
      if (entry.kind === 'file') await file.close()
    },
    discard: async (entry) => {
      await file?.close().catch(() => {})
      await fs.rm(join(directory, entry.path), { force: true })
    },
    end: async () => {},
  }
}

async function sourceOf([path, place]) {
  const { size, mtimeMs } = await fs.stat(place)
  const read = async (offset, length) => {
    const file = await fs.open(place)
    try {
      const { buffer, bytesRead } = await file.read(new Uint8Array(length), 0, length, offset)
      return buffer.subarray(0, bytesRead)
    } finally {
      await file.close()
    }
  }
  const look = async () => {
    const now = await fs.stat(place)
    return { size: now.size, mtime: now.mtimeMs }
  }
  return { path, size, mtime: mtimeMs, read, look }
}

try {
  if (options.do === 'receive') await receive({ ...common, code: options.code, ask: async () => directorySink(options.directory) })
  else await send({ ...common, entries: await Promise.all((options.paths ?? []).map(sourceOf)), text: options.text, words: options.words, open: options.open, receivers: options.receivers })
  process.exit(0)
} catch (error) {
  process.exit(error.code === 'bug' ? 70 : 1)
}
