#!/usr/bin/env bash
# Chromium 153.0.8010.0 (of @sparticuz/chromium 153.0.0), seen on 2026-11-30, as well with 156.0.8078.108 of
# Debian 12. Needs Linux on x86-64, Node, and a network interface that does IPv4 multicast. Takes 500 MB of disk.
#
# A web page's host candidates have names ending in .local, which Chromium answers for by multicast DNS. A guess
# that seems safe: it answers whatever RFC 6762 has a querier ask. Of these, it leaves three unanswered: messages
# with more than one question (§5.3), questions that want the answer by unicast (QU, §5.4), and names with letters
# in another case (§16). zeroconf's AddressResolver asks for A and AAAA in one message, and so finds no address
# of a browser on the same network, though it finds everyone else's. Testing hides it: Chromium announces a new
# name twice, a second apart, and who listens by then needs no answer.
# What helps: AddressResolverIPv4, then AddressResolverIPv6, each of which asks one question a message; the first
# is QU and is lost, the second comes 0.3 s later.
#
# Seen (3 s after the candidate was made, each by a querier that has heard nothing before):
#   A: answered
#   A and AAAA in one message: no answer
#   A, with the answer by unicast: no answer
#   A, the name in capitals: no answer
#   A again: answered
#   AddressResolver: no answer
#   AddressResolverIPv4: answered
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"private": true, "type": "module"}' > package.json
npm install --silent --no-audit --no-fund @sparticuz/chromium@153.0.0
# The package unpacks Chromium into TMPDIR, and as on AWS Lambda also the libraries that it needs.
cat > unpack.js <<'JS'
import chromium from '@sparticuz/chromium'

console.log(await chromium.executablePath())
JS
chromium=$(TMPDIR="$folder" AWS_EXECUTION_ENV=AWS_Lambda_nodejs20.x node unpack.js)
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q 'playwright==1.65.2' 'zeroconf==0.154.0'
cat > ask.py <<'PY'
import asyncio
import os
import sys

from playwright.async_api import async_playwright
from zeroconf import AddressResolver, AddressResolverIPv4, DNSOutgoing, DNSQuestion, IPVersion
from zeroconf.asyncio import AsyncZeroconf

QUERY, IN, A, AAAA = 0, 1, 1, 28
EXPECTED = {
    "A": True,
    "A and AAAA in one message": False,
    "A, with the answer by unicast": False,
    "A, the name in capitals": False,
    "A again": True,
    "AddressResolver": False,
    "AddressResolverIPv4": True,
}
# Makes a connection, and returns the names of its host candidates.
PAGE = """async () => {
  window.connection = new RTCPeerConnection()
  connection.createDataChannel('data')
  const names = []
  connection.onicecandidate = ({ candidate }) => candidate?.address && names.push(candidate.address)
  await connection.setLocalDescription()
  await new Promise((resolve) => setTimeout(resolve, 3000))
  return names
}"""


async def told(name: str, kinds: tuple[int, ...], unicast: bool = False) -> bool:
    """Send these questions in one message, by a querier of its own; tell whether an A record came in 2 s."""
    zeroconf = AsyncZeroconf(ip_version=IPVersion.V4Only)
    try:
        message = DNSOutgoing(QUERY)
        for kind in kinds:
            question = DNSQuestion(name, kind, IN)
            question.unicast = unicast
            message.add_question(question)
        await zeroconf.zeroconf.async_wait_for_start()
        zeroconf.zeroconf.async_send(message)
        await asyncio.sleep(2)
        return zeroconf.zeroconf.cache.get_by_details(name, A, IN) is not None
    finally:
        await zeroconf.async_close()


async def resolved(kind: type[AddressResolver], name: str) -> bool:
    zeroconf = AsyncZeroconf(ip_version=IPVersion.V4Only)
    try:
        return await kind(name).async_request(zeroconf.zeroconf, 3000)
    finally:
        await zeroconf.async_close()


async def ask_for_a_candidate() -> dict[str, bool]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=sys.argv[1],
            args=["--headless=shell", "--no-sandbox"],
            env={**os.environ, "LD_LIBRARY_PATH": sys.argv[2]},
        )
        print("Chromium", browser.version)
        page = await browser.new_page()
        names = [f"{name}." for name in await page.evaluate(PAGE)]
        # The other ones are of IPv6 addresses.
        name = [name for name in names if await told(name, (A,))][0]
        await asyncio.sleep(2)
        return {
            "A": await told(name, (A,)),
            "A and AAAA in one message": await told(name, (A, AAAA)),
            "A, with the answer by unicast": await told(name, (A,), unicast=True),
            "A, the name in capitals": await told(name.upper(), (A,)),
            "A again": await told(name, (A,)),
            "AddressResolver": await resolved(AddressResolver, name),
            "AddressResolverIPv4": await resolved(AddressResolverIPv4, name),
        }


seen = asyncio.run(ask_for_a_candidate())
for question, answered in seen.items():
    print(question, "answered" if answered else "no answer", sep=": ")
raise SystemExit(seen != EXPECTED)
PY
"$folder/venv/bin/python" ask.py "$chromium" "$folder/al2023/lib"
