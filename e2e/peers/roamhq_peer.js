// A peer on libwebrtc, by way of npm's @roamhq/wrtc.
import { createInterface } from 'node:readline'
import wrtc from '@roamhq/wrtc'
import './agent.js'

// What it tells where a channel has no limit.
const NONE = 65535

const carryOut = makeAgent(wrtc.RTCPeerConnection, (event) => {
  const text = JSON.stringify(event, (_, value) => (value === NONE ? null : value))
  process.stdout.write(text + '\n')
})
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  if (command.do === 'quit') break
  carryOut(command)
}
await carryOut({ do: 'quit' })
process.exit(0)
