"""Somebody on the local network who announces the rooms of others: `python -m e2e.peers.announcer`.

Copies each announcement of flyx that it hears, so that receivers come to its own server as well. That one
says to everybody that the room is there, with a sender in it, and hangs up after the next line of standard
input. It announces nonsense besides: addresses of everywhere, ports that nobody has, records that are no
text. Prints {"copied": label}, and {"asked": path} for each receiver.
"""

from __future__ import annotations

import asyncio
import json
import sys
from uuid import uuid4

from websockets.asyncio.server import ServerConnection, serve
from zeroconf import ServiceInfo

from flyx.net.dnssd import Browser, Found, _open, interfaces
from flyx.signaling.local import SERVICE_TYPE

NONSENSE = (
    {"port": 0, "addresses": [b"\0\0\0\0"], "properties": {}},
    {"port": 22, "addresses": [b"\x7f\0\0\1", b"\x08\x08\x08\x08"], "properties": {b"txtvers": b"1"}},
    {"port": 65535, "addresses": [b"\xff" * 16], "properties": {b"room": b"\xff" * 200, b"txtvers": b"\x1b"}},
)


def say(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


async def pretend(socket: ServerConnection) -> None:
    """Say that the room is there, with its sender, and hang up when we are told to."""
    assert socket.request is not None
    path = socket.request.path
    say(asked=path)
    joined = {
        "room_id": path.partition("?")[0].rpartition("/")[2],
        "client_id": str(uuid4()),
        "role": "receiver",
        "resume_token": "token",
        "expires_at": None,
        "peers": [{"client_id": str(uuid4()), "role": "sender"}],
        "ice_servers": [],
        "limits": {"max_message_size": 65536, "max_clients": 16, "grace": 30.0},
    }
    await socket.send(json.dumps({"type": "joined", "data": joined}))
    await asyncio.to_thread(sys.stdin.readline)
    await socket.close(4410)


async def main() -> None:
    here = interfaces()
    zeroconf = _open(here)
    async with (
        serve(pretend, "0.0.0.0", 0, subprotocols=["flyx.v1"]) as server,
        Browser(SERVICE_TYPE, lambda label: not label.startswith("nonsense")) as browser,
    ):
        port = server.sockets[0].getsockname()[1]
        for number, record in enumerate(NONSENSE):
            info = ServiceInfo(SERVICE_TYPE, f"nonsense{number}.{SERVICE_TYPE}", server="no.local.", **record)
            await zeroconf.async_register_service(info, cooperating_responders=True)
        say(ready=True)
        copied: set[str] = set()
        while True:
            found: Found = await browser.next()
            if found.label in copied:
                continue
            copied.add(found.label)
            info = ServiceInfo(
                SERVICE_TYPE,
                f"{found.label}.{SERVICE_TYPE}",
                port=port,
                parsed_addresses=[text for text in here.addresses if ":" not in text],
                properties=dict(found.properties),
                server="liar.local.",
            )
            await zeroconf.async_register_service(info, cooperating_responders=True)
            say(copied=found.label)


asyncio.run(main())
