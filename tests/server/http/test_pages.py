from __future__ import annotations

import gzip
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from importlib import resources

import httpx
import pytest
import pytest_asyncio

from flyx.server.app import Server
from flyx.server.http import pages
from tests.server.peers import http_of, joined, local

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILES = {each.name for each in resources.files("flyx").joinpath("web").iterdir()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with Server(local()) as server, http_of(server) as http:
        yield http


def addresses(page: str) -> dict[str, str]:
    """Where the page has its files from, by name."""
    found = re.findall(r'(?:href|src)="(web/[0-9a-f]{16}/([\w.-]+))"', page)
    return {name: f"/{address}" for address, name in found}


def check_headers(response: httpx.Response) -> None:
    policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["worker-src"] == policy["frame-src"] == "'self'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in str(policy)
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Vary"] == "Accept-Encoding"


async def test_the_page_is_at_the_root_and_at_the_address_of_any_room_that_could_be(
    http: httpx.AsyncClient,
) -> None:
    page = await http.get("/")
    assert page.status_code == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Cache-Control"] == "no-cache"
    check_headers(page)
    for path in ("/K7M2QX", "/k7m2qx", "/k7m-2qx", "/?utm=1"):
        assert (await http.get(path)).content == page.content
    # It says nothing about which rooms there are, and costs no look at them.
    async with Server(local()) as server, joined(server) as sender, http_of(server) as other:
        assert (await other.get(f"/{sender.room_id}")).content == page.content


async def test_each_file_of_the_page_is_there_for_ever_under_its_version(http: httpx.AsyncClient) -> None:
    found = addresses((await http.get("/")).text)
    assert set(found) == FILES - {"index.html"}
    for name, address in found.items():
        response = await http.get(address)
        assert response.status_code == 200, name
        assert response.content == resources.files("flyx").joinpath("web", name).read_bytes()
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        check_headers(response)
    types = {name.rpartition(".")[2] for name in found}
    assert types == {"js", "css", "svg"}


async def test_the_page_names_what_runs_with_its_digest(http: httpx.AsyncClient) -> None:
    page = (await http.get("/")).text
    for name, address in addresses(page).items():
        if name.endswith((".js", ".css")):
            digest = sha256((await http.get(address)).content).digest()
            assert f'"{address[1:]}" integrity="sha256-{b64encode(digest).decode()}"' in page


async def test_the_digest_that_the_server_tells_is_that_of_the_page(http: httpx.AsyncClient) -> None:
    assert pages.load().page.digest == sha256((await http.get("/")).content).hexdigest()


async def test_nothing_is_run_or_shown_that_is_not_in_a_file_of_its_own() -> None:
    page = resources.files("flyx").joinpath("web", "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]*\ssrc=)", page)
    assert not re.search(r"(?:href|src)=\"(?!web/|\./)", page)


@pytest.mark.parametrize("accepted", ["gzip", "deflate, gzip;q=1.0", "*", "br, GZIP ; q=0.5"])
async def test_it_is_packed_for_who_can_unpack_it(http: httpx.AsyncClient, accepted: str) -> None:
    async with http.stream("GET", "/", headers={"Accept-Encoding": accepted}) as response:
        packed = b"".join([piece async for piece in response.aiter_raw()])
    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed) == (await http.get("/")).content
    assert len(packed) == int(response.headers["Content-Length"]) < 10_000


@pytest.mark.parametrize("accepted", ["", "identity", "br", "gzip;q=0", "gzip; q=0.0", "*;q=0"])
async def test_it_is_not_packed_for_who_cannot(http: httpx.AsyncClient, accepted: str) -> None:
    response = await http.get("/", headers={"Accept-Encoding": accepted})
    assert "Content-Encoding" not in response.headers
    assert response.content.startswith(b"<!doctype html>")


async def test_who_has_it_already_is_told_so(http: httpx.AsyncClient) -> None:
    paths = ["/", "/K7M2QX", *addresses((await http.get("/")).text).values()]
    for path in paths:
        tag = (await http.get(path)).headers["ETag"]
        for known in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
            response = await http.get(path, headers={"If-None-Match": known})
            assert (response.status_code, response.content) == (304, b"")
            assert response.headers["ETag"] == tag
            check_headers(response)
        assert (await http.get(path, headers={"If-None-Match": 'W/"other"'})).status_code == 200


async def test_head_says_what_get_would_and_nothing_more(http: httpx.AsyncClient) -> None:
    for path in ("/", "/K7M2QX", addresses((await http.get("/")).text)["page.js"]):
        head, get = await http.head(path), await http.get(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("Content-Length", "Content-Type", "ETag", "Content-Encoding"):
            assert head.headers.get(name) == get.headers.get(name)


@pytest.mark.parametrize(
    "path",
    [
        "/web",
        "/web/",
        "/web/page.js",
        "/web/0000000000000000/page.js",
        "/web/{version}/",
        "/web/{version}/index.html",
        "/web/{version}/../../errors.py",
        "/web/{version}/%2e%2e/%2e%2e/errors.py",
        "/web/{version}/..%2f..%2ferrors.py",
        "/web/{version}/%00",
        "/web//etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/index.html",
        "/favicon.ico",
        "/robots.txt",
        "/K7M2QX/more",
        "/K7M2Q",
        "/K7M2QXY",
        "/K7M2QU",
        "/rooms",
        "/status/",
        "/%C3%9F%C3%9F%C3%9F%C3%9F%C3%9F%C3%9F",
    ],
)
async def test_nothing_else_is_there_whatever_the_method(path: str) -> None:
    async with Server(local(metrics_port=0)) as server, http_of(server) as http:
        version = addresses((await http.get("/")).text)["page.js"].split("/")[2]
        for method in ("GET", "HEAD", "POST", "DELETE"):
            # As it stands: httpx would take the dots out.
            url = httpx.URL(str(http.base_url), raw_path=path.format(version=version).encode())
            response = await http.request(method, url)
            assert response.status_code == 404, method
            if method == "GET":
                assert response.json()["code"] == "not_found"


async def test_what_is_there_can_only_be_read(http: httpx.AsyncClient) -> None:
    for path in ("/", "/K7M2QX", addresses((await http.get("/")).text)["page.js"]):
        for method in ("POST", "PUT", "DELETE"):
            response = await http.request(method, path)
            assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")


async def test_rooms_and_operations_are_where_they_were(http: httpx.AsyncClient) -> None:
    # READYZ could be a room; this is not it.
    assert (await http.get("/readyz")).json() == {"status": "ok"}
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    assert (await http.get("/room/K7M2QX")).json()["code"] == "no_such_room"
    assert (await http.post("/room")).status_code == 201
    assert (await http.get("/ws")).status_code == 426


async def test_a_server_without_the_page_has_none_of_it() -> None:
    async with Server(local(page=False)) as server, http_of(server) as http:
        for path in ("/", "/K7M2QX", *pages.load().files):
            assert (await http.get(path)).status_code == 404
