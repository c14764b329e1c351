// What agent.py does, on the W3C interface: run by Chromium and, with node-datachannel's polyfill, by Node.
// makeAgent() returns a function that carries out a command.

const BUFFERED_HIGH = 2 << 20
const BUFFERED_LOW = 1 << 19
const OFFSET_STEP = 7919

function* makeMessages(pool, plan) {
  let number = 0
  for (const [kind, size, count] of plan) {
    for (let i = 0; i < count; i++) {
      const offset = (number++ * OFFSET_STEP) % (pool.length - size)
      const piece = pool.slice(offset, offset + size)
      yield kind === 'text' ? latin1(piece) : piece
    }
  }
}

function latin1(bytes) {
  let text = ''
  for (let i = 0; i < bytes.length; i += 8192) {
    text += String.fromCharCode(...bytes.subarray(i, i + 8192))
  }
  return text
}

async function describeMessage(message) {
  const [kind, data] =
    typeof message === 'string' ? ['text', new TextEncoder().encode(message)] : ['binary', message]
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', data)).subarray(0, 8)
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('')
  return `${kind} ${data.byteLength} ${hex}`
}

globalThis.makeAgent = (PeerConnection, emit) => {
  let pool = new Uint8Array()
  const channels = {}
  const inboxes = {}
  const pc = new PeerConnection({ iceServers: [] })
  pc.ondatachannel = ({ channel }) => add(channel)

  function add(channel) {
    const label = channel.label
    channels[label] = channel
    const inbox = (inboxes[label] ??= { messages: [], size: 0, first: 0, last: 0, expected: null })
    channel.binaryType = 'arraybuffer'
    channel.bufferedAmountLowThreshold = BUFFERED_LOW
    channel.onmessage = ({ data }) => {
      inbox.last = performance.now()
      if (inbox.messages.length === 0) inbox.first = inbox.last
      else inbox.size += data.length ?? data.byteLength
      inbox.messages.push(describeMessage(data))
      check(label)
    }
    channel.onclose = () => emit({ event: 'closed', label })
    channel.onerror = ({ error }) => emit({ event: 'channel-error', label, text: `${error}` })
    const { ordered, maxRetransmits, maxPacketLifeTime, protocol } = channel
    const open = { event: 'open', label, ordered, maxRetransmits, maxPacketLifeTime, protocol }
    if (channel.readyState === 'open') emit(open)
    else channel.onopen = () => emit(open)
  }

  function check(label) {
    const inbox = inboxes[label]
    if (inbox.expected !== null && inbox.messages.length >= inbox.expected) {
      inbox.expected = null
      emit({ event: 'received', label })
    }
  }

  async function drained(channel) {
    if ('onbufferedamountlow' in channel) {
      await new Promise((resolve) => (channel.onbufferedamountlow = resolve))
      return
    }
    // @roamhq/wrtc does not tell.
    while (channel.bufferedAmount > BUFFERED_LOW) await new Promise((resolve) => setTimeout(resolve, 5))
  }

  async function describe(description) {
    const gathered = new Promise((resolve) => {
      const look = () => pc.iceGatheringState === 'complete' && resolve()
      pc.onicegatheringstatechange = look
      look()
    })
    await pc.setLocalDescription(description)
    await gathered
    emit({ event: 'description', sdp: pc.localDescription.sdp })
  }

  const commands = {
    pool: ({ bytes }) => (pool = Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))),
    offer: async () => describe(await pc.createOffer()),
    answer: async ({ sdp }) => {
      await pc.setRemoteDescription({ type: 'offer', sdp })
      await describe(await pc.createAnswer())
    },
    accept: ({ sdp }) => pc.setRemoteDescription({ type: 'answer', sdp }),
    create: ({ label, init }) => add(pc.createDataChannel(label, init)),
    send: async ({ label, messages, close }) => {
      const channel = channels[label]
      for (const message of makeMessages(pool, messages)) {
        if (channel.bufferedAmount > BUFFERED_HIGH) await drained(channel)
        channel.send(message)
      }
      if (close) channel.close()
      emit({ event: 'sent', label })
    },
    expect: ({ label, count }) => {
      inboxes[label].expected = count
      check(label)
    },
    report: async ({ label }) => {
      const { messages, size, first, last } = inboxes[label]
      const seconds = (last - first) / 1000
      emit({ event: 'report', label, messages: await Promise.all(messages), size, seconds })
    },
    close: ({ label }) => channels[label].close(),
    quit: () => pc.close(),
  }

  return async (command) => {
    try {
      await commands[command.do](command)
    } catch (error) {
      emit({ event: 'error', text: `${command.do}: ${error}` })
    }
  }
}
