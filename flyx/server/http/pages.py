"""The page at the server's address: `GET /`, `GET /{room}`, and the files that it is made of.

All of it is read once and kept in a table, each file with a route of its own: nothing that a request says
becomes the name of a file. The page has one address for each room, and says the same at all of them; which
room is meant, and the words, the page finds in its own URL.

Its files are below web/VERSION/, so that they can be kept for ever, and VERSION is another one when any of
them is. The page names each of them with its SHA-256. So the digest of the page is the digest of all.
"""

from __future__ import annotations

import gzip
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from http import HTTPStatus
from importlib import resources

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from flyx.errors import InputError
from flyx.signaling.codes import normalise_room_id

_INDEX = "index.html"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Characters of a digest of 64 that tell versions apart.
_VERSION_LENGTH = 16

# How the page names its files before it is served, and where all its modules are to be named, so that none of
# them is asked for only when another one has come.
_MODULES = "<!-- modules -->"
_REFERENCE = re.compile(r'(?P<attribute>href|src)="web/(?P<name>[\w.-]+)"')

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        # 'self' is the WebSocket of the same origin as well.
        "connect-src 'self'",
        "worker-src 'self'",
        # Asks the service worker for a download (streamed_output.js); nothing of ours lets itself be framed.
        "frame-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_SAFE = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=()",
    # The room is in the URL.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept-Encoding",
}
_ASK_AGAIN = "no-cache"
_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is served.

    Attributes:
        body: What is in it.
        packed: The same, by gzip.
        media_type: Of body.
        digest: SHA-256 of body, in hex.
    """

    body: bytes
    packed: bytes
    media_type: str
    digest: str

    @property
    def etag(self) -> str:
        """Weak: it is the same however the body is encoded."""
        return f'W/"{self.digest}"'


@dataclass(frozen=True, slots=True)
class Site:
    """All that there is to be served.

    Attributes:
        page: What is at `/`.
        files: What else there is, by path.
    """

    page: Asset
    files: dict[str, Asset]


def _asset(name: str, body: bytes) -> Asset:
    # Without a time: the same files are the same everywhere.
    packed = gzip.compress(body, mtime=0)
    return Asset(body, packed, _TYPES[name[name.rindex(".") :]], sha256(body).hexdigest())


@cache
def load() -> Site:
    """Return the page that comes with this flyx."""
    found = {
        each.name: each.read_bytes()
        for each in resources.files("flyx").joinpath("web").iterdir()
        if each.name.endswith(tuple(_TYPES))
    }
    index = found.pop(_INDEX).decode()
    files = {name: _asset(name, body) for name, body in sorted(found.items())}
    names = "".join(f"{asset.digest}  {name}\n" for name, asset in files.items())
    version = sha256(names.encode()).hexdigest()[:_VERSION_LENGTH]

    def served(reference: re.Match[str]) -> str:
        name = reference["name"]
        address = f'{reference["attribute"]}="web/{version}/{name}"'
        if not name.endswith((".css", ".js")):
            # Of images browsers check none.
            return address
        integrity = b64encode(bytes.fromhex(files[name].digest)).decode()
        return f'{address} integrity="sha256-{integrity}"'

    modules = "\n".join(
        f'<link rel="modulepreload" href="web/{name}">' for name in files if name.endswith(".js")
    )
    page = _asset(_INDEX, _REFERENCE.sub(served, index.replace(_MODULES, modules)).encode())
    return Site(page, {f"/web/{version}/{name}": asset for name, asset in files.items()})


class _RoomRoute(Route):
    """The address of a room: any other path is not there, whatever the method."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        if match is not Match.NONE:
            try:
                normalise_room_id(found["path_params"]["room"])
            except InputError:
                return Match.NONE, {}
        return match, found


def add_pages(app: FastAPI, site: Site) -> None:
    """Have app serve the page, after all routes that it has already."""
    page = _answer_with(site.page, _ASK_AGAIN)
    app.router.routes.append(Route("/", page))
    for path, asset in site.files.items():
        app.router.routes.append(Route(path, _answer_with(asset, _FOR_EVER)))
    app.router.routes.append(_RoomRoute("/{room}", page))


def _answer_with(asset: Asset, caching: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        headers = {**_SAFE, "Cache-Control": caching, "ETag": asset.etag}
        if _is_known(request, asset):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        body = asset.body
        if _takes_gzip(request):
            headers["Content-Encoding"], body = "gzip", asset.packed
        return Response(body, headers=headers, media_type=asset.media_type)

    return answer


def _is_known(request: Request, asset: Asset) -> bool:
    """Whether the client has it already (RFC 9110 §13.1.2)."""
    tags = [tag.strip() for line in request.headers.getlist("if-none-match") for tag in line.split(",")]
    return "*" in tags or asset.digest in (tag.removeprefix("W/").strip('"') for tag in tags)


def _takes_gzip(request: Request) -> bool:
    """Whether the client has asked for gzip (RFC 9110 §12.5.3)."""
    for line in request.headers.getlist("accept-encoding"):
        for wish in line.lower().split(","):
            coding, *parameters = (part.strip() for part in wish.split(";"))
            if coding in ("gzip", "*"):
                return not any(re.fullmatch(r"q\s*=\s*0(\.0*)?", each) for each in parameters)
    return False
