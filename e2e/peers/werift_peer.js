// A peer on werift.
import { createInterface } from 'node:readline'
import { RTCPeerConnection } from 'werift'
import './agent.js'

const carryOut = makeAgent(RTCPeerConnection, (event) => process.stdout.write(JSON.stringify(event) + '\n'))
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  if (command.do === 'quit') break
  carryOut(command)
}
await carryOut({ do: 'quit' })
process.exit(0)
