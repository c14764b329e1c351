"""The page of `flyx serve`, in real browsers: files go from command lines to browsers, back, and between two.

    pytest e2e/test_browsers.py                  all of it
    pytest e2e/test_browsers.py -m screenshots   what each state looks like, as PNGs

Chromium is asked to save where the person says, but that a dialog is answered by a file in the page's own
storage; Firefox has no such dialog, and keeps what it receives until it can be saved as a download. A private
window of Firefox lets a page keep nothing, and saves while it receives.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from e2e.browsers import (
    DIALOGS,
    NO_DIALOGS,
    PICKED,
    QUOTA,
    Browsers,
    FirefoxTab,
    Tab,
    browsers_in,
    click,
    fill,
    page_of,
    pass_on,
    receive_in,
    text_of,
    value_of,
    wait,
    wait_for,
)
from e2e.processes import Flyx, Server, need, sha256, write_random, write_thin
from flyx.net.interfaces import outgoing_address
from flyx.pairing.wordlist import WORDS

MB = 10**6

NAMES = ["chromium", "firefox"]

PRIVATE = "private firefox"

both = pytest.mark.parametrize("browser", NAMES)
each_way_to_save = pytest.mark.parametrize("browser", [*NAMES, PRIVATE])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browsers]:
    yield from browsers_in(tmp_path_factory.mktemp("browsers"))


@pytest.fixture
def browsers(running: Browsers) -> Iterator[Browsers]:
    """The browsers; whatever a page complains of fails the test."""
    yield running
    assert list(running.end_test()) == []


def link_of(flyx: Flyx, code: str) -> str:
    """What a person would click on."""
    return f"{page_of(flyx.server)}#{code}"


def opened(browsers: Browsers, name: str, url: str, **options: Any) -> Tab:
    """A tab with the page."""
    tab = browsers.tab(name, **options)
    tab.open(url)
    return tab


def at_start(browsers: Browsers, flyx: Flyx, name: str, **options: Any) -> Tab:
    """A tab with the page, which shows where all begins."""
    tab = opened(browsers, name, page_of(flyx.server), **options)
    wait_for(tab, "start")
    return tab


def wrong(code: str) -> str:
    """A code for the same room, of other words."""
    return f"{code[:6]}-{WORDS[0]}-{WORDS[1] if WORDS[1] not in code else WORDS[2]}"


trees = pytest.mark.parametrize("files", [300, pytest.param(2000, marks=pytest.mark.soak)])


def tree_in(directory: Path, files: int = 300) -> Path:
    """A tree of so many files and some more, of names that are not easy."""
    tree = directory / "tree"
    for number in range(files):
        write_random(tree / f"{number % 7}" / f"{number:03}", number % 300 * 37)
    for name in (
        "Grüße 😀.txt",
        ".hidden",
        "a'b\"c&d<e>.html",
        "x" * 200,
        "no extension",
        "-dash",
        "%41.txt",
    ):
        write_random(tree / name, 100)
    return tree


def digests_of(tree: Path) -> dict[str, str]:
    """SHA-256 of each file by its path, from that of the tree itself on."""
    files = (path for path in tree.rglob("*") if path.is_file())
    return {str(path.relative_to(tree.parent)): sha256(path) for path in files}


def unpacked(archive: Path, directory: Path) -> dict[str, str]:
    """SHA-256 of each file in an archive, as others unpack it."""
    with zipfile.ZipFile(archive) as file:
        assert file.testzip() is None
        file.extractall(directory)
    if unzip := shutil.which("unzip"):
        subprocess.run([unzip, "-tqq", archive], check=True)
    return {str(path.relative_to(directory)): sha256(path) for path in directory.rglob("*") if path.is_file()}


# From the command line to a browser.


@each_way_to_save
@pytest.mark.parametrize("size", [1, 0, 30 * MB])
def test_a_file_goes_to_a_browser_by_its_link(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str, size: int
) -> None:
    source = write_random(tmp_path / "holiday.jpg", size)
    sender = flyx.send(source)
    tab = opened(browsers, browser, link_of(flyx, sender.code()), before=NO_DIALOGS)
    offer = wait_for(tab, "offer")
    assert "holiday.jpg" in offer
    assert "knows its words" in offer or "know its words" in offer
    way = wait(tab, 'document.getElementById("offer-path").textContent')
    assert "directly over the local network" in way
    done = receive_in(tab)
    saved = tab.downloaded()
    assert saved.name == "holiday.jpg"
    assert sha256(saved) == sha256(source)
    assert "Received 1 file" in done
    sender.ends(0)
    # The same on both sides.
    assert sender.event("done")["digest"] in done
    # The code is of no use any more.
    assert tab.call("() => location.href") == page_of(flyx.server)


@each_way_to_save
@trees
def test_a_tree_goes_to_a_browser_as_an_archive(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str, files: int
) -> None:
    tree = tree_in(tmp_path, files)
    sender = flyx.send(tree)
    tab = opened(browsers, browser, link_of(flyx, sender.code()), before=NO_DIALOGS)
    offer = wait_for(tab, "offer")
    assert "tree.zip" in offer
    assert "begin with a dot" in offer
    receive_in(tab)
    saved = tab.downloaded()
    assert saved.name == "tree.zip"
    expected = digests_of(tree)
    # What Windows forbids in names is not in them there.
    found = unpacked(saved, tmp_path / "unpacked")
    assert sorted(found.values()) == sorted(expected.values())
    assert set(expected) - set(found) <= {"tree/a'b\"c&d<e>.html"}
    sender.ends(0)


@both
def test_the_same_comes_twice(flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str) -> None:
    source = write_random(tmp_path / "file.bin", MB)
    tab = at_start(browsers, flyx, browser, before=NO_DIALOGS)
    for _ in range(2):
        sender = flyx.send(source)
        fill(tab, "#code", sender.code())
        click(tab, "#receive-form button")
        receive_in(tab)
        assert sha256(tab.downloaded()) == sha256(source)
        sender.ends(0)
        click(tab, "#done [data-again]")


def test_where_a_page_has_no_service_worker_either_it_comes_by_way_of_memory_and_no_more_than_fits(
    flyx: Flyx, browsers: Browsers, tmp_path: Path
) -> None:
    large = flyx.send(write_thin(tmp_path / "large", 600 * MB))
    tab = at_start(browsers, flyx, PRIVATE, before=NO_SERVICE_WORKERS)
    fill(tab, "#code", large.code())
    click(tab, "#receive-form button")
    told = wait_for(tab, "offer")
    assert "This window can take at most 500 MB" in told
    assert "in a window that is not private" in told
    assert not tab.call("() => document.getElementById('save').checkVisibility()")
    click(tab, "#decline")
    wait_for(tab, "start")
    assert large.event("peer", state="failed")["code"] == "declined"
    source = write_random(tmp_path / "file", 3 * MB)
    sender = flyx.send(source)
    fill(tab, "#code", sender.code())
    click(tab, "#receive-form button")
    assert "at most 500 MB" in wait_for(tab, "offer")
    receive_in(tab)
    assert sha256(tab.downloaded()) == sha256(source)
    sender.ends(0)


NO_SERVICE_WORKERS = "delete Navigator.prototype.serviceWorker;"
"""Makes Firefox what it is for who blocks cookies, or was in private windows before its version 138."""


def test_more_than_a_page_may_keep_is_not_kept(flyx: Flyx, browsers: Browsers, tmp_path: Path) -> None:
    """Firefox says beforehand what that is; Chromium says 10 GiB, whatever it is."""
    sender = flyx.send(write_thin(tmp_path / "file", QUOTA + 10 * MB))
    tab = opened(browsers, "firefox", link_of(flyx, sender.code()))
    assert "saves it while it comes" in wait_for(tab, "offer")


def test_a_file_is_saved_where_the_person_says(flyx: Flyx, browsers: Browsers, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file.bin", 5 * MB)
    sender = flyx.send(source)
    tab = opened(browsers, "chromium", link_of(flyx, sender.code()), before=DIALOGS)
    assert "saved as file.bin" in receive_in(tab)
    assert tab.call(PICKED) == {"file.bin": sha256(source)}
    sender.ends(0)


@trees
def test_a_tree_is_saved_below_the_folder_that_the_person_chooses_and_replaces_nothing(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, files: int
) -> None:
    tree = tree_in(tmp_path, files)
    (tree / "empty").mkdir()
    digests = digests_of(tree)
    tab = at_start(browsers, flyx, "chromium", before=DIALOGS)
    for name in ("tree", "tree (2)"):
        sender = flyx.send(tree)
        fill(tab, "#code", sender.code())
        click(tab, "#receive-form button")
        assert "saved in the folder picked" in receive_in(tab)
        found = tab.call(PICKED)
        below = {path: digest for path, digest in found.items() if path.startswith(f"{name}/")}
        assert f"{name}/empty/" in below
        assert sorted(filter(None, below.values())) == sorted(digests.values())
        sender.ends(0)
        click(tab, "#done [data-again]")


@both
def test_a_text_is_shown(flyx: Flyx, browsers: Browsers, browser: str) -> None:
    sender = flyx.send("--text", "first line\n<b>second</b>")
    tab = opened(browsers, browser, link_of(flyx, sender.code()))
    wait_for(tab, "done")
    assert text_of(tab, "#done-text") == "first line\n<b>second</b>"
    sender.ends(0)


@both
def test_a_code_can_be_typed_and_its_words_asked_for(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str
) -> None:
    source = write_random(tmp_path / "file", 1000)
    sender = flyx.send(source)
    room, _, words = sender.code().partition("-")
    tab = at_start(browsers, flyx, browser, before=NO_DIALOGS)
    fill(tab, "#code", "nonsense, or so")
    click(tab, "#receive-form button")
    assert "A code looks like" in text_of(tab, "#code-error")
    fill(tab, "#code", f" {room.lower()} ")
    click(tab, "#receive-form button")
    wait_for(tab, "asking-words")
    fill(tab, "#asked", words.upper())
    click(tab, "#asked-form button")
    receive_in(tab)
    assert sha256(tab.downloaded()) == sha256(source)
    sender.ends(0)


@both
def test_wrong_words_are_told_and_the_sender_goes_on(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str
) -> None:
    source = write_random(tmp_path / "file", 1000)
    sender = flyx.send(source)
    tab = opened(browsers, browser, link_of(flyx, wrong(sender.code())), before=NO_DIALOGS)
    assert "words are wrong" in wait_for(tab, "failed")
    click(tab, "#failed [data-again]")
    fill(tab, "#code", sender.code())
    click(tab, "#receive-form button")
    receive_in(tab)
    assert sha256(tab.downloaded()) == sha256(source)
    sender.ends(0)


@both
def test_a_room_that_is_not_there_is_told(flyx: Flyx, browsers: Browsers, browser: str) -> None:
    tab = opened(browsers, browser, link_of(flyx, "ZZZZZZ-lemon-otter"))
    assert "Nobody sends under this code" in wait_for(tab, "failed")


@both
def test_a_code_of_another_server_says_where_it_is_good(flyx: Flyx, browsers: Browsers, browser: str) -> None:
    tab = at_start(browsers, flyx, browser)
    fill(tab, "#code", "flyx receive --server wss://flyx.example.org:8443 ZZZZZZ-lemon-otter")
    click(tab, "#receive-form button")
    assert "open the page at flyx.example.org:8443 instead" in wait_for(tab, "failed")


@both
def test_a_person_who_declines_is_told_to_the_sender(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str
) -> None:
    sender = flyx.send(write_random(tmp_path / "file", 1000))
    tab = opened(browsers, browser, link_of(flyx, sender.code()), before=NO_DIALOGS)
    wait_for(tab, "offer")
    click(tab, "#decline")
    wait_for(tab, "start")
    assert sender.event("peer", state="failed")["code"] == "declined"


# From a browser to the command line.


@both
@pytest.mark.parametrize("size", [1, 30 * MB])
def test_a_file_goes_from_a_browser(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str, size: int
) -> None:
    source = write_random(tmp_path / "Grüße 😀.bin", size)
    tab = at_start(browsers, flyx, browser)
    tab.choose("#files", source)
    code = pass_on(tab)
    assert value_of(tab, "#share-link").startswith(page_of(flyx.server))
    assert value_of(tab, "#share-command").endswith(code)
    receiver = flyx.receive(code, "in").ends(0)
    assert sha256(tmp_path / "in" / source.name) == sha256(source)
    done = wait_for(tab, "done")
    assert "Sent" in done
    assert receiver.event("done")["digest"] in done


@both
@trees
def test_a_tree_goes_from_a_browser(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str, files: int
) -> None:
    tree = tree_in(tmp_path, files)
    tab = at_start(browsers, flyx, browser)
    choose_folder(tab, tree, browser)
    wait(tab, "!document.getElementById('chosen').hidden")
    assert "tree/" in text_of(tab, "#chosen")
    receiver = flyx.receive(pass_on(tab), "in").ends(0)
    assert digests_of(tmp_path / "in" / "tree") == digests_of(tree)
    assert receiver.event("done")["missing"] == 0
    wait_for(tab, "done")


def choose_folder(tab: Tab, tree: Path, browser: str) -> None:
    """Choose a folder. To Firefox a test can give files alone, so each gets the path that it would have."""
    if browser == "chromium":
        tab.choose("#folder", tree)
        return
    files = [path for path in tree.rglob("*") if path.is_file()]
    tab.call(
        """(paths) => {
            const input = document.getElementById("folder");
            input.webkitdirectory = false;
            input.multiple = true;
            const found = new Map(paths.map((path) => [path.split("/").at(-1), path]));
            const get = function () { return found.get(this.name); };
            Object.defineProperty(File.prototype, "webkitRelativePath", { get });
        }""",
        [str(path.relative_to(tree.parent)) for path in files],
    )
    tab.choose("#folder", *files)


@both
def test_words_of_ones_own_and_several_receivers(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str
) -> None:
    source = write_random(tmp_path / "file", MB)
    tab = at_start(browsers, flyx, browser)
    tab.choose("#files", source)
    fill(tab, "#words", "short")
    tab.call("() => document.querySelector('details').open = true")
    click(tab, "#many")
    wait(tab, '!document.getElementById("send").disabled')
    click(tab, "#send")
    wait(tab, 'document.getElementById("words-error").textContent')
    fill(tab, "#words", "blue moon over berlin")
    code = pass_on(tab)
    assert code.endswith("-blue-moon-over-berlin")
    for directory in ("one", "two"):
        flyx.receive(code, directory).ends(0)
        assert sha256(tmp_path / directory / "file") == sha256(source)
    wait(tab, "document.getElementById('share-peers').innerText.match(/has everything/g)?.length === 2")
    click(tab, "#share [data-cancel]")
    assert "Sent to 2 receivers" in wait_for(tab, "done")


@both
def test_a_server_that_wants_a_token_gets_it(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str
) -> None:
    source = write_random(tmp_path / "file", 1000)
    server = Server(flyx.environment, flyx.directory, "--api-token", "s3cret")
    flyx.adopt(server)
    flyx.server = server.url
    tab = at_start(browsers, flyx, browser)
    tab.choose("#files", source)
    wait(tab, '!document.getElementById("send").disabled')
    click(tab, "#send")
    assert "refuses" in wait_for(tab, "failed")
    click(tab, "#failed [data-again]")
    fill(tab, "#token", "s3cret")
    code = pass_on(tab)
    assert "this computer alone" in text_of(tab, "#share-here")
    flyx.receive(code, "in").ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)
    wait_for(tab, "done")


@both
def test_a_receiver_with_wrong_words_does_not_end_a_browser_that_sends(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str
) -> None:
    source = write_random(tmp_path / "file", MB)
    tab = at_start(browsers, flyx, browser)
    tab.choose("#files", source)
    code = pass_on(tab)
    flyx.receive(wrong(code), "in").fails(5, "wrong_words")
    flyx.receive(code, "in").ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)
    wait_for(tab, "done")


# From a browser to another.


@pytest.mark.parametrize(("sender", "receiver"), [("chromium", "firefox"), ("firefox", "chromium")])
def test_a_file_goes_from_a_browser_to_another(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, sender: str, receiver: str
) -> None:
    source = write_random(tmp_path / "file.bin", 30 * MB)
    here = at_start(browsers, flyx, sender)
    here.choose("#files", source)
    pass_on(here)
    there = opened(browsers, receiver, value_of(here, "#share-link"), before=NO_DIALOGS)
    told = receive_in(there)
    assert sha256(there.downloaded()) == sha256(source)
    wait_for(here, "done")
    assert text_of(here, "#digest") in told


# What breaks off.


@both
def test_a_tab_that_is_closed_is_told_and_the_next_receiver_served(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str
) -> None:
    source = write_random(tmp_path / "file", 60 * MB)
    sender = flyx.send(source)
    code = sender.code()
    tab = opened(browsers, browser, link_of(flyx, code), before=NO_DIALOGS)
    wait_for(tab, "offer")
    click(tab, "#save")
    sender.mid_transfer()
    tab.close()
    sender.event("peer", lambda event: event["state"] in ("lost", "failed"), peer=1)
    flyx.receive(code, "in").ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)
    sender.ends(0)


@both
def test_what_has_arrived_is_kept_when_the_sender_is_killed_and_the_page_loaded_anew(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str
) -> None:
    source = write_random(tmp_path / "file", 70 * MB)
    sender = flyx.send("--limit", "30MB", source)
    tab = opened(browsers, browser, link_of(flyx, sender.code()), before=NO_DIALOGS)
    wait_for(tab, "offer")
    click(tab, "#save")
    sender.event("progress", lambda event: event["bytes"] > 45 * MB)
    sender.kill()
    tab.reload()
    again = flyx.send(source)
    tab.open("about:blank")
    tab.open(link_of(flyx, again.code()))
    receive_in(tab)
    assert sha256(tab.downloaded()) == sha256(source)
    assert again.ends(0).event("done")["resumed"] > 30 * MB


@both
def test_a_browser_that_has_no_more_room_says_so_and_the_next_try_does_without(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str
) -> None:
    source = write_thin(tmp_path / "file", 80 * MB)
    sender = flyx.send(source)
    tab = opened(browsers, browser, link_of(flyx, sender.code()), before=NO_DIALOGS)
    assert "room for it twice" in wait_for(tab, "offer")
    # There was, until another tab has taken it.
    tab.call(TAKE_ROOM, QUOTA - 50 * MB)
    click(tab, "#save")
    assert "There is no room for it" in wait_for(tab, "failed")
    failed = sender.event("peer", state="failed", peer=1)
    assert failed["message"] == "The transfer was refused: there is not enough space"
    click(tab, "#retry")
    assert "saves it while it comes" in wait_for(tab, "offer")
    receive_in(tab)
    assert sha256(tab.downloaded()) == sha256(source)
    sender.ends(0)
    # What was kept for another try is told, and can be removed.
    click(tab, "#done [data-again]")
    wait(tab, "!document.getElementById('kept').hidden")
    click(tab, "#kept-drop")
    wait(tab, "document.getElementById('kept').hidden")


TAKE_ROOM = """async (size) => {
    const root = await navigator.storage.getDirectory();
    const writable = await (await root.getFileHandle("other", { create: true })).createWritable();
    await writable.write(new Uint8Array(size));
    await writable.close();
}"""
"""Keeps so many bytes that are none of the page's."""


def test_a_download_that_is_saved_while_it_comes_and_breaks_off_does_not_look_whole(
    flyx: Flyx, browsers: Browsers, tmp_path: Path
) -> None:
    sender = flyx.send("--limit", "20MB", write_thin(tmp_path / "file", 100 * MB))
    link = link_of(flyx, sender.code())
    stop = "() => document.querySelector('#transfer [data-cancel]').click()"
    for break_off in (stop, "() => location.reload()"):
        tab = opened(browsers, PRIVATE, link)
        wait_for(tab, "offer")
        click(tab, "#save")
        wait(tab, "document.getElementById('transfer-bar').position > 0.05")
        tab.call(break_off)
        assert isinstance(tab, FirefoxTab)
        tab.download_fails()


@both
def test_a_connection_that_is_lost_is_told_and_made_anew(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str
) -> None:
    source = write_random(tmp_path / "file", 40 * MB)
    sender = flyx.send("--limit", "20MB", source)
    tab = opened(browsers, browser, link_of(flyx, sender.code()), before=NO_DIALOGS + CONNECTIONS)
    wait_for(tab, "offer")
    click(tab, "#save")
    sender.mid_transfer()
    tab.call("() => connections.at(-1).close()")
    wait(tab, "document.getElementById('transfer-path').textContent.startsWith('The connection is lost')")
    wait_for(tab, "done")
    assert sha256(tab.downloaded()) == sha256(source)
    sender.ends(0)


CONNECTIONS = """
    globalThis.connections = [];
    globalThis.RTCPeerConnection = class extends RTCPeerConnection {
        constructor(...all) { super(...all); connections.push(this); }
    };
"""
"""Keeps the connections of a page, to cut them."""


@both
def test_a_person_stops_it_and_the_sender_is_told(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str
) -> None:
    sender = flyx.send(write_thin(tmp_path / "file", 2000 * MB))
    tab = opened(browsers, browser, link_of(flyx, sender.code()), before=NO_DIALOGS)
    wait_for(tab, "offer")
    click(tab, "#save")
    sender.mid_transfer()
    click(tab, "#transfer [data-cancel]")
    wait_for(tab, "start")
    sender.event("peer", state="failed")


@both
def test_a_server_that_is_restarted_breaks_nothing_off(
    flyx: Flyx, browsers: Browsers, own_server: Server, tmp_path: Path, browser: str
) -> None:
    source = write_random(tmp_path / "file", 30 * MB)
    flyx.server = own_server.url
    sender = flyx.send("--limit", "8MB", source)
    tab = opened(browsers, browser, link_of(flyx, sender.code()), before=NO_DIALOGS)
    wait_for(tab, "offer")
    click(tab, "#save")
    sender.mid_transfer()
    own_server.kill()
    flyx.adopt(Server(flyx.environment, flyx.directory, port=own_server.port))
    wait_for(tab, "done")
    assert sha256(tab.downloaded()) == sha256(source)
    sender.ends(0)


@both
def test_a_hidden_tab_goes_on(flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str) -> None:
    source = write_random(tmp_path / "file", 10 * MB)
    sender = flyx.send(source)
    tab = opened(browsers, browser, link_of(flyx, sender.code()), before=NO_DIALOGS)
    wait_for(tab, "offer")
    tab.hide()
    receive_in(tab)
    assert sha256(tab.downloaded()) == sha256(source)
    sender.ends(0)


# The page itself.


@both
def test_the_page_tells_the_digest_that_the_server_tells(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str
) -> None:
    server = Server(flyx.environment, flyx.directory, "--log-level", "info")
    flyx.adopt(server)
    told = server.shows(r"digest=([0-9a-f]{64})")[1]
    tab = opened(browsers, browser, page_of(server.url))
    wait(tab, 'document.getElementById("page-digest").textContent.length === 64')
    assert tab.call("() => document.getElementById('page-digest').textContent") == told


@both
def test_a_page_that_came_by_plain_http_says_what_to_do(flyx: Flyx, browsers: Browsers, browser: str) -> None:
    address = outgoing_address(socket.AF_INET)
    need("an address besides the loopback's", address is not None, in_ci=False)
    server = Server(flyx.environment, flyx.directory, "--host", "0.0.0.0")
    flyx.adopt(server)
    tab = opened(browsers, browser, f"http://{address}:{server.port}/K7M2QX#lemon-otter")
    shown = wait_for(tab, "unable")
    assert "https" in shown
    assert "--tls-cert" in shown


@both
def test_the_server_never_gets_the_words(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str
) -> None:
    sender = flyx.send(write_random(tmp_path / "file", 1000))
    _, *words = sender.code().split("-")
    tab = opened(browsers, browser, link_of(flyx, sender.code()), before=OVERHEARD + NO_DIALOGS)
    receive_in(tab)
    sender.ends(0)
    said = tab.call("() => [...said, ...performance.getEntries().map(({ name }) => name.split('#')[0])]")
    assert any('"answer"' in each for each in said)
    for word in words:
        assert not [each for each in said if word in each.lower()]


OVERHEARD = """
    globalThis.said = [];
    const send = WebSocket.prototype.send;
    WebSocket.prototype.send = function (message) {
        said.push(String(message));
        return send.call(this, message);
    };
"""
"""Keeps all that the page says to the server."""


@both
def test_names_of_the_other_side_are_text(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str
) -> None:
    tree = tmp_path / "tree"
    names = [
        "<img src=x onerror=console.error(1)>",
        "photo\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe",
        "a\nb",
        "&lt;",
    ]
    for name in names:
        write_random(tree / name, 10)
    sender = flyx.send(tree)
    tab = opened(browsers, browser, link_of(flyx, sender.code()), before=NO_DIALOGS)
    wait_for(tab, "offer")
    listed = text_of(tab, "#offer-list")
    assert f"tree/{MARKUP}" in listed
    assert "tree/photo\N{REPLACEMENT CHARACTER}gpj.exe" in listed
    assert "tree/&lt;" in listed
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in tab.call("() => document.documentElement.textContent")
    assert tab.call("() => document.images.length") == 1


MARKUP = "<img src=x onerror=console.error(1)>"


@both
def test_all_can_be_done_by_keys(flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str) -> None:
    sender = flyx.send(write_random(tmp_path / "file", 1000))
    tab = at_start(browsers, flyx, browser, before=NO_DIALOGS)
    for section in ("start", "offer", "done"):
        wait_for(tab, section)
        # Reading goes on at the heading of what is new.
        heading = f'document.querySelector("#{section} h1") === document.activeElement'
        wait(tab, heading)
        if section == "start":
            tab.press("Tab")
            assert tab.call("() => document.activeElement.id") == "code"
            tab.press(*sender.code(), "Enter")
        elif section == "offer":
            # The list can be scrolled.
            tab.press("Tab", "Tab")
            assert tab.call("() => document.activeElement.id") == "save"
            tab.press("Enter")
    sender.ends(0)


# How each state looks, and whether everybody can use it.


def states(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str, **options: Any
) -> Iterator[tuple[str, Tab]]:
    """Bring tabs into each state, one after another; yield its name and the tab."""
    tree = tree_in(tmp_path)
    tab = at_start(browsers, flyx, browser, before=NO_DIALOGS, **options)
    yield "start", tab
    tab.choose(
        "#files", tree / ".hidden", tree / "no extension", write_thin(tmp_path / "holiday.mp4", 300 * MB)
    )
    wait(tab, "!document.getElementById('chosen').hidden")
    tab.call("() => document.querySelector('details').open = true")
    tab.call("() => document.querySelector('footer details').open = true")
    yield "chosen", tab
    code = pass_on(tab)
    yield "share", tab
    receiver = flyx.receive(code, "in", "--limit", "5MB")
    receiver.mid_transfer()
    wait(tab, "document.querySelector('#share-peers .numbers').textContent.includes('/s')")
    yield "share-peers", tab
    click(tab, "#share [data-cancel]")
    receiver.process.wait()
    # A sender that says nothing.
    with connect(f"{flyx.server}/ws", proxy=None) as silent:
        room = json.loads(silent.recv())["data"]["room_id"]
        fill(tab, "#code", f"{room}-lemon-otter")
        wait_for(tab, "start")
        click(tab, "#receive-form button")
        wait(tab, "document.getElementById('step-room').dataset.state === 'done'")
        yield "connecting", tab
        click(tab, "#connecting [data-cancel]")
    sender = flyx.send("--limit", "1MB", tree, write_random(tmp_path / "film.mp4", 3 * MB))
    wait_for(tab, "start")
    fill(tab, "#code", sender.code()[:6])
    click(tab, "#receive-form button")
    wait_for(tab, "asking-words")
    yield "asking-words", tab
    fill(tab, "#asked", sender.code()[7:])
    click(tab, "#asked-form button")
    wait_for(tab, "offer")
    wait(tab, 'document.getElementById("offer-path").textContent')
    yield "offer", tab
    click(tab, "#save")
    wait(tab, "document.getElementById('transfer-numbers').textContent.includes('left')")
    yield "transfer", tab
    wait_for(tab, "done")
    yield "done", tab
    sender.ends(0)
    click(tab, "#done [data-again]")
    sender = flyx.send("--text", "The text that was sent:\nhttps://example.org/")
    fill(tab, "#code", sender.code())
    click(tab, "#receive-form button")
    wait_for(tab, "done")
    yield "text", tab
    click(tab, "#done [data-again]")
    fill(tab, "#code", "what?")
    click(tab, "#receive-form button")
    yield "mistake", tab
    fill(tab, "#code", "ZZZZZZ-lemon-otter")
    click(tab, "#receive-form button")
    wait_for(tab, "failed")
    yield "failed", tab


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_everybody_can_use_the_page_as_far_as_axe_can_tell(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, dark: bool
) -> None:
    axe = Path(__file__).parent / "peers" / "node_modules" / "axe-core" / "axe.min.js"
    need("`npm ci --prefix e2e/peers`", axe.exists(), in_ci=False)
    source = axe.read_text()
    for state, tab in states(flyx, browsers, tmp_path, "chromium", dark=dark):
        found = tab.call(
            """async (source) => {
                if (!globalThis.axe) (0, eval)(source);
                const { violations } = await axe.run(document);
                return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
            }""",
            source,
        )
        assert found == [], state


@pytest.mark.screenshots
@pytest.mark.parametrize(("browser", "dark"), [("chromium", False), ("chromium", True), ("firefox", False)])
def test_what_each_state_looks_like(
    flyx: Flyx, browsers: Browsers, tmp_path: Path, browser: str, dark: bool
) -> None:
    """Writes PNGs for a person to look at, into the directory FLYX_SCREENSHOTS."""
    directory = Path(os.environ.get("FLYX_SCREENSHOTS", tmp_path))
    directory.mkdir(exist_ok=True)
    for state, tab in states(flyx, browsers, tmp_path, browser, dark=dark):
        for size, (width, height) in {"phone": (360, 740), "desktop": (1280, 800)}.items():
            tab.resize(width, height)
            # Nothing is cut off at the side.
            assert tab.call("() => document.documentElement.scrollWidth") <= width, state
            tab.screenshot(directory / f"{browser}-{'dark' if dark else 'light'}-{size}-{state}.png")
