// One end of one bare data channel, whose messages are counted and no more (e2e/bench/browser.py). The same file
// runs in a page and in Node: makeEnd() returns an object with a function for each step.

const BUFFERED_HIGH = 4 << 20
const BUFFERED_LOW = 1 << 20

globalThis.makeEnd = (PeerConnection) => {
  const pc = new PeerConnection({ iceServers: [] })
  let channel = null
  let left = Infinity
  let open, told
  const opened = new Promise((resolve) => (open = resolve))

  function use(one) {
    channel = one
    channel.binaryType = 'arraybuffer'
    channel.bufferedAmountLowThreshold = BUFFERED_LOW
    channel.onmessage = ({ data }) => {
      if (typeof data === 'string') return told()
      left -= data.byteLength
      if (left <= 0) channel.send('all here')
    }
    if (channel.readyState === 'open') open()
    else channel.onopen = open
  }
  pc.ondatachannel = (event) => use(event.channel)

  async function describe(description) {
    const gathered = new Promise((resolve) => {
      const look = () => pc.iceGatheringState === 'complete' && resolve()
      pc.onicegatheringstatechange = look
      look()
    })
    await pc.setLocalDescription(description)
    await gathered
    return pc.localDescription.sdp
  }

  async function drained() {
    if ('onbufferedamountlow' in channel) {
      await new Promise((resolve) => (channel.onbufferedamountlow = resolve))
      return
    }
    // @roamhq/wrtc does not tell.
    while (channel.bufferedAmount > BUFFERED_LOW) await new Promise((resolve) => setTimeout(resolve, 1))
  }

  return {
    offer: async () => {
      use(pc.createDataChannel('data'))
      return describe(await pc.createOffer())
    },
    answer: async (sdp) => {
      await pc.setRemoteDescription({ type: 'offer', sdp })
      return describe(await pc.createAnswer())
    },
    accept: async (sdp) => {
      await pc.setRemoteDescription({ type: 'answer', sdp })
      await opened
    },
    // Say so when so many bytes have come.
    expect: (size) => {
      left = size
    },
    // Send so many bytes; return the seconds until the other end has said that it has them.
    send: async (size, messageSize) => {
      const message = crypto.getRandomValues(new Uint8Array(65536))
      const pool = new Uint8Array(messageSize).map((_, place) => message[place % message.length])
      const arrived = new Promise((resolve) => (told = resolve))
      const begun = performance.now()
      for (let sent = 0; sent < size; sent += messageSize) {
        if (channel.bufferedAmount >= BUFFERED_HIGH) await drained()
        channel.send(pool.subarray(0, Math.min(messageSize, size - sent)))
      }
      await arrived
      return (performance.now() - begun) / 1000
    },
    close: () => pc.close(),
  }
}
