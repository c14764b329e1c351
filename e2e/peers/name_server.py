"""A DNS server that answers from a file, or does not: python -m e2e.peers.name_server FILE ADDRESS….

e2e.services.Names says what is in the file; it is read for every question.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

PORT = 53


def answer(question: bytes, names: dict[str, Any]) -> bytes | None:
    """Return the response to a query, None for silence."""
    query = dns.message.from_wire(question)
    response = dns.message.make_response(query, recursion_available=True)
    response.flags |= dns.flags.AA
    (asked,) = query.question
    known = names.get(asked.name.to_text(omit_final_dot=True).lower(), names.get("*"))
    kind = dns.rdatatype.to_text(asked.rdtype)
    if isinstance(known, dict) and isinstance(known.get(kind), str):
        known = known[kind]
    if known == "silent":
        return None
    if known == "servfail":
        response.set_rcode(dns.rcode.SERVFAIL)
    elif known is None:
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif addresses := known.get(kind):
        found = dns.rrset.from_text(asked.name, 0, dns.rdataclass.IN, asked.rdtype, *addresses)
        response.answer.append(found)
    return response.to_wire()


class Server(asyncio.DatagramProtocol):
    def __init__(self, zone: Path) -> None:
        self._zone = zone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        response = answer(data, json.loads(self._zone.read_text()))
        if response is not None:
            self._transport.sendto(response, address)


async def main(zone: str, *addresses: str) -> None:
    loop = asyncio.get_running_loop()
    for address in addresses:
        await loop.create_datagram_endpoint(lambda: Server(Path(zone)), local_addr=(address, PORT))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
