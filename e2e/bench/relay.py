"""The least that a signaling server can be: what one member of a room says, the others hear.

    python -m e2e.bench.relay PORT

Nothing is checked, counted or remembered. It is what flyx is measured beside, on the library that both use.
"""

from __future__ import annotations

import sys
from collections import defaultdict

import uvloop
from websockets.asyncio.server import ServerConnection, serve

rooms: dict[str, list[ServerConnection]] = defaultdict(list)


async def relay(client: ServerConnection) -> None:
    """Serve one client."""
    assert client.request is not None
    members = rooms[client.request.path]
    members.append(client)
    await client.send('{"type":"joined"}')
    async for message in client:
        for member in members:
            if member is not client:
                await member.send(message)


async def main(port: int) -> None:
    """Serve until killed."""
    async with serve(relay, "127.0.0.1", port, compression=None, backlog=2048) as server:
        print("listening on", f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
