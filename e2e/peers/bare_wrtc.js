// One end of a bare data channel on libwebrtc, by way of npm's @roamhq/wrtc: a line in is a step and what it is
// given, `["send", 1000000, 65536]`; the line out is what came of it.
import { createInterface } from 'node:readline'
import wrtc from '@roamhq/wrtc'
import './bare.js'

const end = makeEnd(wrtc.RTCPeerConnection)
for await (const line of createInterface({ input: process.stdin })) {
  const [step, ...given] = JSON.parse(line)
  process.stdout.write(JSON.stringify((await end[step](...given)) ?? null) + '\n')
  if (step === 'close') break
}
process.exit(0)
