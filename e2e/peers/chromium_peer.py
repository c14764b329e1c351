"""A peer in a page of headless Chromium."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path

from playwright.async_api import async_playwright

from e2e.peers.agent import LINE_LIMIT

FLAGS = [
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-gpu",
    # Nobody resolves the names that stand for its host candidates.
    "--disable-features=WebRtcHideLocalIpsWithMdns",
]

PAGE = "http://localhost/"
"""Never asked of the network; what is secure may use crypto.subtle."""


def emit(event: object) -> None:
    """Tell an event of the page."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


async def main() -> None:
    reader = asyncio.StreamReader(limit=LINE_LIMIT)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=FLAGS, chromium_sandbox=False
        )
        page = await browser.new_page()
        page.on("pageerror", lambda error: emit({"event": "error", "text": str(error)}))
        await page.route(PAGE, lambda route: route.fulfill(body="", content_type="text/html"))
        await page.goto(PAGE)
        await page.expose_function("emit", emit)
        await page.add_script_tag(content=Path(__file__).with_name("agent.js").read_text())
        await page.evaluate("() => { globalThis.carryOut = makeAgent(RTCPeerConnection, emit) }")
        while line := await reader.readline():
            command = json.loads(line)
            await page.evaluate("command => { carryOut(command) }", command)
            if command["do"] == "quit":
                break
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
