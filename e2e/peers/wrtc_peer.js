// A peer on libwebrtc, by way of npm's @roamhq/wrtc.
import { createInterface } from 'node:readline'
import wrtc from '@roamhq/wrtc'
import './agent.js'

// It says 65535 of a limit that there is not.
const absent = (name, value) => (name.startsWith('max') && value === 65535 ? null : value)
const carryOut = makeAgent(wrtc.RTCPeerConnection, (event) =>
  process.stdout.write(JSON.stringify(event, absent) + '\n'),
)
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  if (command.do === 'quit') break
  carryOut(command)
}
await carryOut({ do: 'quit' })
process.exit(0)
