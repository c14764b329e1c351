"""Real browsers, headless: Chromium by way of Playwright, Firefox by WebDriver BiDi, which it speaks itself.

A Tab is one page, with storage of its own. What is awaited is awaited inside of it, as a change of the
document. Whatever a page complains of, an error, a rejected promise, a breach of its policy, fails the test,
also if the page was left or closed since.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shlex
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

from e2e.network import Host
from e2e.processes import DEADLINE, need

CHROMIUM_FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
]

QUOTA = 120 * 1024 * 1024
"""Bytes that each page may keep."""

FIREFOX_PREFERENCES: dict[str, bool | int | str] = {
    # Nothing but what is tested asks anybody for anything.
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.aboutwelcome.enabled": False,
    "browser.safebrowsing.downloads.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.search.update": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.push.connection.enabled": False,
    "extensions.getAddons.cache.enabled": False,
    "extensions.update.enabled": False,
    "media.gmp-manager.updateEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "toolkit.telemetry.server": "",
    # Downloads go where the test says, unasked.
    "browser.download.folderList": 2,
    "browser.download.useDownloadDir": True,
    "browser.download.always_ask_before_handling_new_types": False,
    "browser.helperApps.deleteTempFileOnExit": False,
}

COMPLAINTS = """
    const complain = (what) => console.error(what);
    addEventListener("error", ({ message, target }) => complain(`error: ${message ?? target}`), true);
    addEventListener("unhandledrejection", ({ reason }) => complain(`rejection: ${reason}`));
    addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI, sample }) =>
        complain(`policy: ${violatedDirective} ${blockedURI} ${sample}`));
    globalThis.Worker = class extends Worker {
        constructor(...all) {
            super(...all);
            this.addEventListener("error", ({ message }) => complain(`worker: ${message}`));
        }
    };
"""
"""Runs before all else in each page: what goes wrong there becomes an error of the console, which the browser
tells us at once, so that it counts also if the page is left or closed."""

DIALOGS = """
    const picked = async () =>
        (await navigator.storage.getDirectory()).getDirectoryHandle("picked", { create: true });
    globalThis.showSaveFilePicker = async ({ suggestedName }) =>
        (await picked()).getFileHandle(suggestedName, { create: true });
    globalThis.showDirectoryPicker = picked;
"""
"""Answers the dialogs of Chromium as a person would, without a screen."""

PICKED = """async () => {
    const found = {};
    const walk = async (directory, before) => {
        for await (const [name, handle] of directory.entries()) {
            const path = `${before}${name}`;
            if (handle.kind === "directory") {
                found[`${path}/`] = null;
                await walk(handle, `${path}/`);
                continue;
            }
            const bytes = await (await handle.getFile()).arrayBuffer();
            const digest = Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
            found[path] = digest.map((byte) => byte.toString(16).padStart(2, "0")).join("");
        }
    };
    await walk(await (await navigator.storage.getDirectory()).getDirectoryHandle("picked"), "");
    return found;
}"""
"""What was saved by the dialogs: SHA-256 by path, null for directories."""

NO_DIALOGS = "delete globalThis.showSaveFilePicker; delete globalThis.showDirectoryPicker;"
"""Makes Chromium what it is on a phone."""

WAIT = """(condition, milliseconds) => new Promise((resolve, reject) => {
    const test = new Function(`return (${condition})`);
    const look = () => {
        let found;
        try { found = test(); } catch { found = null; }
        if (found) { end(); resolve(found); }
    };
    const observer = new MutationObserver(look);
    const late = setTimeout(() => {
        end();
        const shown = document.querySelector("main").innerText;
        reject(new Error(`waited in vain for ${condition}; the page shows: ${shown}`));
    }, milliseconds);
    // What is no change of the document: values of inputs.
    const clock = setInterval(look, 100);
    const end = () => { observer.disconnect(); clearTimeout(late); clearInterval(clock); };
    observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
    look();
})"""


class Tab(Protocol):
    """A page in a browser."""

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is loaded."""

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a JavaScript function in the page, as if the person had just clicked; return what it does."""

    def choose(self, selector: str, *paths: Path) -> None:
        """Put files, or a directory, into a file input."""

    def press(self, *keys: str) -> None:
        """Press keys, one after another: characters, "Tab" or "Enter"."""

    def downloaded(self, within: float = DEADLINE) -> Path:
        """Wait for the next download to be complete; return where it is, under its own name."""

    def screenshot(self, path: Path) -> None:
        """Write what is to be seen, all of the page, as a PNG."""

    def resize(self, width: int, height: int) -> None:
        """Give the page another size."""

    def reload(self) -> None:
        """Load the page anew."""

    def hide(self) -> None:
        """Put another page in front of it."""

    def close(self) -> None:
        """Close it; whatever it does ends there."""

    def complaints(self) -> list[str]:
        """What its pages have complained of; also when it is closed."""


class Browser(Protocol):
    """A running browser."""

    name: str

    def tab(self, *, before: str = "", dark: bool = False) -> Tab:
        """Open a page with storage of its own.

        Args:
            before: JavaScript that runs before all else in each page of it.
            dark: what the person prefers; Firefox knows it for all pages alone.
        """

    def close(self) -> None:
        """End it."""


# What tests do with a tab, whichever browser it is in.


def wait(tab: Tab, condition: str, within: float = DEADLINE) -> Any:
    """Wait until a JavaScript expression is true in the page; return it."""
    return tab.call(WAIT, condition, within * 1000)


def wait_for(tab: Tab, section: str, within: float = DEADLINE) -> str:
    """Wait until the page shows this section; return its text."""
    shown = f'!document.getElementById("{section}").hidden'
    failed = '!document.getElementById("failed").hidden'
    wait(tab, shown if section == "failed" else f"{shown} || {failed}", within)
    if section != "failed":
        assert tab.call("id => !document.getElementById(id).hidden", section), text_of(tab, "#failed")
    return text_of(tab, f"#{section}")


def text_of(tab: Tab, selector: str) -> str:
    """What is to be read in an element."""
    return str(tab.call("selector => document.querySelector(selector).innerText", selector))


def value_of(tab: Tab, selector: str) -> str:
    """What is in an input."""
    return str(tab.call("selector => document.querySelector(selector).value", selector))


def click(tab: Tab, selector: str) -> None:
    """Click on an element, which must be there to be clicked on."""
    tab.call(
        """selector => {
            const element = document.querySelector(selector);
            if (!element.checkVisibility() || element.disabled) throw new Error(`${selector} is not there`);
            element.click();
        }""",
        selector,
    )


def fill(tab: Tab, selector: str, text: str) -> None:
    """Put a text into an input."""
    tab.call(
        """(selector, text) => {
            const input = document.querySelector(selector);
            input.value = text;
            input.dispatchEvent(new Event("input", { bubbles: true }));
        }""",
        selector,
        text,
    )


def page_of(server: str) -> str:
    """Where the page of a server is."""
    return server.replace("ws:", "http:") + "/"


def receive_in(tab: Tab) -> str:
    """Save what a tab is offered; wait until all of it is there, and return what the page says then."""
    wait_for(tab, "offer")
    click(tab, "#save")
    return wait_for(tab, "done")


def pass_on(tab: Tab) -> str:
    """Send what was chosen in a tab; return the code."""
    wait(tab, '!document.getElementById("send").disabled')
    click(tab, "#send")
    wait_for(tab, "share")
    return value_of(tab, "#share-code")


# Chromium.


class ChromiumTab:
    """A page in a context of its own."""

    def __init__(self, context: Any, quota: int = QUOTA) -> None:
        self._context = context
        self._quota = quota
        self._downloads: list[Any] = []
        self._complaints: list[str] = []
        self.page = context.new_page()
        self.page.on("console", self._told)
        self.page.on("pageerror", lambda error: self._complaints.append(f"exception: {error}"))
        self.page.on("crash", lambda _: self._complaints.append("crash"))
        self.page.set_default_timeout(DEADLINE * 1000)
        self.page.on("download", lambda download: self._downloads.append(download))

    def open(self, url: str) -> None:
        parts = urlsplit(url)
        origin = {"origin": f"{parts.scheme}://{parts.netloc}", "quotaSize": self._quota}
        if parts.netloc:
            self._context.new_cdp_session(self.page).send("Storage.overrideQuotaForOrigin", origin)
        self.page.goto(url)

    def call(self, function: str, *arguments: Any) -> Any:
        return self.page.evaluate(f"all => ({function})(...all)", list(arguments))

    def choose(self, selector: str, *paths: Path) -> None:
        self.page.set_input_files(selector, [str(path) for path in paths])

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def downloaded(self, within: float = DEADLINE) -> Path:
        if not self._downloads:
            self.page.wait_for_event("download", timeout=within * 1000)
        download = self._downloads.pop(0)
        path = Path(download.path())
        return path.rename(path.with_name(f"{path.name} {download.suggested_filename}"[37:]))

    def screenshot(self, path: Path) -> None:
        self.page.screenshot(path=path, full_page=True)

    def resize(self, width: int, height: int) -> None:
        self.page.set_viewport_size({"width": width, "height": height})

    def reload(self) -> None:
        self.page.reload()

    def hide(self) -> None:
        self._context.new_page().bring_to_front()

    def close(self) -> None:
        self._context.close()

    def complaints(self) -> list[str]:
        return self._complaints

    def _told(self, message: Any) -> None:
        # What the browser itself remarks has no arguments: that a server does not answer, say.
        if message.type == "error" and message.args:
            self._complaints.append(message.text)


class Chromium:
    """Debian's Chromium."""

    name = "chromium"

    def __init__(self, directory: Path, host: Host | None) -> None:
        """Args:
        directory: of its own.
        host: where it runs; None is here. It is spoken to by a pipe.
        """
        need("the Debian package chromium", shutil.which("chromium") is not None)
        need("the PyPI package playwright", find_spec("playwright") is not None)
        from playwright.sync_api import sync_playwright

        program = shutil.which("chromium")
        if host:
            wrapper = directory / "chromium"
            wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(host.on("chromium"))} "$@"\n')
            wrapper.chmod(0o700)
            program = str(wrapper)
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(
            executable_path=program,
            args=CHROMIUM_FLAGS,
            chromium_sandbox=False,
            downloads_path=directory,
        )

    def tab(self, *, before: str = "", dark: bool = False) -> ChromiumTab:
        # The authorities of tests are nobody's.
        context = self._browser.new_context(
            color_scheme="dark" if dark else "light", ignore_https_errors=True
        )
        context.add_init_script(COMPLAINTS + before)
        return ChromiumTab(context)

    def close(self) -> None:
        self._browser.close()
        self._playwright.stop()


# Firefox.


class BidiError(Exception):
    """The browser says that a command has failed."""


class Bidi:
    """A connection to a browser by WebDriver BiDi: commands, and the events that come meanwhile."""

    def __init__(self, url: str, reached: socket.socket | None = None) -> None:
        """Args:
        url: where the browser listens.
        reached: a connection to there, if that is on another host.
        """
        self._open = contextlib.ExitStack()
        self._socket: ClientConnection = self._open.enter_context(
            connect(url, sock=reached, max_size=None, proxy=None)
        )
        self._answers: dict[int, Future[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._count = 0
        self._is_gone = False
        self._events: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        # One that crashes says no goodbye.
        with contextlib.suppress(ConnectionClosedError):
            for text in self._socket:
                message = json.loads(text)
                if message["type"] == "event":
                    with self._news:
                        self._events.append(message)
                        self._news.notify_all()
                else:
                    self._answers.pop(message["id"]).set_result(message)
        with self._lock:
            self._is_gone = True
            for answer in self._answers.values():
                answer.set_exception(BidiError("the browser is gone"))

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Have a command carried out, and return its result."""
        answer: Future[dict[str, Any]] = Future()
        with self._lock:
            if self._is_gone:
                raise BidiError("the browser is gone")
            self._count += 1
            self._answers[self._count] = answer
            message = {"id": self._count, "method": method, "params": parameters}
        self._socket.send(json.dumps(message))
        # A script may wait for long.
        told = answer.result()
        if told["type"] == "error":
            raise BidiError(f"{method}: {told['message']}")
        return dict(told["result"])

    def download_end(self, context: str, within: float) -> dict[str, Any]:
        """Wait for the next download of a page, or of a frame in it, to end; take what is told of that."""

        def found() -> dict[str, Any] | None:
            frames = {
                told["context"]
                for told in self.told("browsingContext.contextCreated")
                if told["parent"] == context
            }
            ends = self.told("browsingContext.downloadEnd")
            return next((told for told in ends if told["context"] in {context, *frames}), None)

        with self._news:
            assert self._news.wait_for(found, within), f"no download has ended: {self._events}"
            end = found()
            assert end is not None
            self._events = [event for event in self._events if event["params"] is not end]
            return end

    def told(self, method: str) -> list[dict[str, Any]]:
        """The parameters of all events of this kind so far."""
        with self._news:
            return [event["params"] for event in self._events if event["method"] == method]

    def close(self) -> None:
        """Close the connection."""
        self._open.close()
        self._reader.join(DEADLINE)


def to_remote(value: Any) -> dict[str, Any]:
    """Return a value as BiDi has it."""
    match value:
        case None:
            return {"type": "null"}
        case bool():
            return {"type": "boolean", "value": value}
        case int() | float():
            return {"type": "number", "value": value}
        case str():
            return {"type": "string", "value": value}
        case list():
            return {"type": "array", "value": [to_remote(each) for each in value]}
        case _:
            raise TypeError(type(value))


class FirefoxTab:
    """A page in a container of its own."""

    def __init__(self, bidi: Bidi, container: str) -> None:
        self._bidi, self._container = bidi, container
        created = bidi.command("browsingContext.create", type="tab", userContext=container)
        self._context = str(created["context"])
        self._target = {"context": self._context}

    def open(self, url: str) -> None:
        self._bidi.command("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def call(self, function: str, *arguments: Any) -> Any:
        # As JSON, which has no types of its own to translate.
        told = self._bidi.command(
            "script.callFunction",
            functionDeclaration=f"async (...all) => JSON.stringify(await ({function})(...all)) ?? 'null'",
            arguments=[to_remote(each) for each in arguments],
            target=self._target,
            awaitPromise=True,
            userActivation=True,
        )
        if told["type"] == "exception":
            raise AssertionError(told["exceptionDetails"]["text"])
        return json.loads(told["result"]["value"])

    def choose(self, selector: str, *paths: Path) -> None:
        located = self._bidi.command(
            "browsingContext.locateNodes",
            context=self._context,
            locator={"type": "css", "value": selector},
        )
        node = {"sharedId": located["nodes"][0]["sharedId"]}
        files = [str(path) for path in paths]
        self._bidi.command("input.setFiles", context=self._context, element=node, files=files)

    def press(self, *keys: str) -> None:
        values = [{"Tab": "\ue004", "Enter": "\ue007"}.get(key, key) for key in keys]
        actions = [{"type": kind, "value": each} for each in values for kind in ("keyDown", "keyUp")]
        keyboard = {"type": "key", "id": "keyboard", "actions": actions}
        self._bidi.command("input.performActions", context=self._context, actions=[keyboard])

    def downloaded(self, within: float = DEADLINE) -> Path:
        ended = self._bidi.download_end(self._context, within)
        assert ended["status"] == "complete", ended
        path = Path(ended["filepath"])
        # Nobody else's of this name is to be called "(1)".
        place = path.parent / self._container / str(len(list(path.parent.iterdir())))
        place.mkdir(parents=True)
        return path.rename(place / path.name)

    def download_fails(self) -> None:
        """Wait for the next download to end, as one that has failed: not as a file that looks whole."""
        assert self._bidi.download_end(self._context, DEADLINE)["status"] == "canceled"

    def screenshot(self, path: Path) -> None:
        taken = self._bidi.command(
            "browsingContext.captureScreenshot", context=self._context, origin="document"
        )
        path.write_bytes(base64.b64decode(taken["data"]))

    def resize(self, width: int, height: int) -> None:
        viewport = {"width": width, "height": height}
        self._bidi.command("browsingContext.setViewport", context=self._context, viewport=viewport)

    def reload(self) -> None:
        self._bidi.command("browsingContext.reload", context=self._context, wait="complete")

    def hide(self) -> None:
        other = self._bidi.command("browsingContext.create", type="tab", userContext=self._container)
        self._bidi.command("browsingContext.activate", context=other["context"])

    def close(self) -> None:
        # Its pages close with it.
        self._bidi.command("browser.removeUserContext", userContext=self._container)

    def complaints(self) -> list[str]:
        entries = self._bidi.told("log.entryAdded")
        ours = [entry for entry in entries if entry["source"].get("context") == self._context]
        # What the browser itself remarks is of another type: that a server does not answer, say.
        return [str(e["text"]) for e in ours if e["level"] == "error" and e["type"] == "console"]


class Firefox:
    """Debian's Firefox ESR."""

    name = "firefox"

    def __init__(
        self, directory: Path, host: Host | None = None, quota: int = QUOTA, private: bool = False
    ) -> None:
        """Args:
        directory: of its own.
        host: where it runs; None is here. It is spoken to by a port of its loopback.
        quota: bytes that each page may keep.
        private: whether all its windows are.
        """
        need("the Debian package firefox-esr", shutil.which("firefox-esr") is not None)
        profile = directory / "profile"
        profile.mkdir()
        preferences = {
            **FIREFOX_PREFERENCES,
            "browser.download.dir": str(directory),
            "browser.privatebrowsing.autostart": private,
            # A page has a fifth of it, in kB.
            "dom.quotaManager.temporaryStorage.fixedLimit": 5 * quota // 1024,
        }
        lines = (
            f"user_pref({json.dumps(key)}, {json.dumps(value)});\n" for key, value in preferences.items()
        )
        (profile / "user.js").write_text("".join(lines))
        command = ["firefox-esr", "--headless", "--no-remote", "--profile", str(profile)]
        command += ["--remote-debugging-port", "0"]
        self._process = subprocess.Popen(
            host.on(*command) if host else command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**_environment(), "HOME": str(directory)},
        )
        url = f"{self._address()}/session"
        parts = urlsplit(url)
        reached = host.connection(str(parts.hostname), parts.port or 0) if host else None
        self._bidi = Bidi(url, reached)
        self._bidi.command("session.new", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})
        events = ["browsingContext.downloadEnd", "browsingContext.contextCreated", "log.entryAdded"]
        self._bidi.command("session.subscribe", events=events)

    def _address(self) -> str:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if "WebDriver BiDi listening on " in line:
                # Nobody else reads it, and it must not fill up.
                threading.Thread(target=self._process.stderr.read, daemon=True).start()
                return line.split()[-1]
        raise AssertionError("Firefox has ended before it could be spoken to")

    def tab(self, *, before: str = "", dark: bool = False) -> FirefoxTab:
        assert not dark
        container = str(self._bidi.command("browser.createUserContext")["userContext"])
        tab = FirefoxTab(self._bidi, container)
        self._bidi.command(
            "script.addPreloadScript",
            functionDeclaration=f"() => {{ {COMPLAINTS + before} }}",
            userContexts=[container],
        )
        return tab

    def close(self) -> None:
        try:
            self._bidi.command("browser.close")
            self._process.wait(DEADLINE)
        finally:
            self._process.kill()
            self._process.wait()
        self._bidi.close()
        if self._process.stderr:
            self._process.stderr.close()


def _environment() -> dict[str, str]:
    import os

    return {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}


def private_firefox(directory: Path, host: Host | None) -> Firefox:
    """Start a Firefox all of whose windows are private."""
    return Firefox(directory, host, private=True)


BROWSERS: dict[str, Callable[[Path, Host | None], Browser]] = {
    "chromium": Chromium,
    "firefox": Firefox,
    "private firefox": private_firefox,
}


class Browsers:
    """The browsers of a run, each started when it is first needed; and the tabs of a test."""

    def __init__(self, directory: Path, host: Host | None = None) -> None:
        """Args:
        directory: of their own.
        host: where they run; None is here.
        """
        self._directory = directory
        self._host = host
        self._running: dict[str, Browser] = {}
        self._tabs: list[Tab] = []

    def tab(self, name: str, **options: Any) -> Tab:
        """Open a tab, which ends with the test."""
        if name not in self._running:
            directory = self._directory / name
            directory.mkdir()
            self._running[name] = BROWSERS[name](directory, self._host)
        tab = self._running[name].tab(**options)
        self._tabs.append(tab)
        return tab

    def end_test(self) -> Iterable[str]:
        """Close the tabs of a test; return what their pages have complained of."""
        complaints: list[str] = []
        for tab in self._tabs:
            # Those that the test has closed are gone.
            with contextlib.suppress(Exception):
                tab.close()
            complaints += tab.complaints()
        self._tabs.clear()
        return complaints

    def close(self) -> None:
        """End the browsers."""
        for browser in self._running.values():
            browser.close()


def browsers_in(directory: Path, host: Host | None = None) -> Iterator[Browsers]:
    """For fixtures: the browsers of a module, ended with it."""
    browsers = Browsers(directory, host)
    try:
        yield browsers
    finally:
        browsers.close()
