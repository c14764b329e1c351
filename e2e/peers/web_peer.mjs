// The page's engine (flyx/web) in Node, with the WebRTC of an npm package: one run of receive() or send().
//
//     node web_peer.mjs '{"stack": "wrtc", "do": "receive", "server": ..., "code": ..., "directory": ...}'
//     node web_peer.mjs '{"stack": "wrtc", "do": "send", "server": ..., "paths": [[name, path], ...]}'
//
// Events go to standard output, one a line. Lines on standard input: "stop" ends it early, "break" has the
// connections of this moment end under it. `pause`: seconds for each block; `thinks`: until an offer is accepted.
import { promises as fs } from 'node:fs'
import { createInterface } from 'node:readline'
import { dirname, join } from 'node:path'
import WebSocket from 'ws'
import { receive, send } from '../../flyx/web/flyx.js'

const { stack, pause = 0, thinks = 0, ...options } = JSON.parse(process.argv[2])
const { RTCPeerConnection } =
  stack === 'wrtc' ? (await import('@roamhq/wrtc')).default : await import('node-datachannel/polyfill')

const connections = []
function Tracked(configuration) {
  const connection = new RTCPeerConnection(configuration)
  connections.push(connection)
  return connection
}
/** One whose errors end nothing, as in a browser: a close follows each. */
class Socket extends WebSocket {
  constructor(...how) {
    super(...how)
    this.on('error', () => {})
  }
}
const stopped = new AbortController()
const commands = {
  stop: () => stopped.abort(),
  break: () => connections.splice(0).forEach((connection) => connection.close()),
}
createInterface({ input: process.stdin }).on('line', (line) => commands[line]())

function on({ manifest, ...event }) {
  const paths = manifest && { paths: manifest.entries.map(({ path }) => path) }
  process.stdout.write(JSON.stringify({ ...event, ...paths }) + '\n')
}
const common = { on, signal: stopped.signal, RTCPeerConnection: Tracked, WebSocket: Socket }
const wait = (seconds = pause) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds))

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
    write: async (_, offset, bytes) => {
      await wait()
      await file.write(bytes, 0, bytes.length, offset)
    },
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
    await wait()
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

// What was said may still be on its way to a pipe.
const end = (status) => process.stdout.write('', () => process.exit(status))

try {
  if (options.do === 'receive') {
    const ask = () => wait(thinks).then(() => directorySink(options.directory))
    await receive({ ...options, ...common, ask })
  } else {
    const entries = await Promise.all((options.paths ?? []).map(sourceOf))
    await send({ ...options, ...common, entries })
  }
  end(0)
} catch (error) {
  process.stderr.write(`${error.stack}\n`)
  end(error.code === 'bug' ? 70 : 1)
}
