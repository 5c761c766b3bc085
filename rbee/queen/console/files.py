"""The files of the page, as they are sent: open to everybody, for what they show is not."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

from starlette.responses import Response

from rbee.contracts.console import SessionInfo

TYPES: Final = {
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "app.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "focus.js": "text/javascript; charset=utf-8",
    "state.js": "text/javascript; charset=utf-8",
    "parts.js": "text/javascript; charset=utf-8",
    "conversations.js": "text/javascript; charset=utf-8",
    "markdown.js": "text/javascript; charset=utf-8",
    "views/fleet.js": "text/javascript; charset=utf-8",
    "views/models.js": "text/javascript; charset=utf-8",
    "views/activity.js": "text/javascript; charset=utf-8",
    "views/chat.js": "text/javascript; charset=utf-8",
    "views/logs.js": "text/javascript; charset=utf-8",
    "views/keys.js": "text/javascript; charset=utf-8",
    "vendor/htm-preact-3.1.1.js": "text/javascript; charset=utf-8",
}
"""Every file that the document names with its type, so that nothing else of the package is ever sent."""

_HEADERS: Final = {
    # Pictures that a person attaches to a chat are shown from memory.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_PAGE: Final = "index.html"
_PAGE_TYPE: Final = "text/html; charset=utf-8"
_NOT_KEPT: Final = "no-store"  # it has the token of a session
_KEPT: Final = "public, max-age=31536000, immutable"


def open_paths() -> tuple[str, ...]:
    """Return the paths that need no key."""
    return (
        "/",
        "/v2/console/sign-in",
        "/v2/console/session",  # looks at the cookie itself, and tells a browser without one that it is nobody
        *(f"/console/{digest()}/{name}" for name in TYPES),
    )


@cache
def digest() -> str:
    """Return a digest of all files: it is in their path, so that a browser keeps them for as long as they are right."""
    found = hashlib.sha256()
    for name in (_PAGE, *TYPES):
        found.update(_read(name))
    return found.hexdigest()[:12]


def page(session: SessionInfo) -> Response:
    """Return the document of the page, with whose *session* the browser's is, so that the page need not ask."""
    known = session.model_dump_json().replace("<", "\\u003c")
    document = _read(_PAGE).replace(b'"console/', f'"console/{digest()}/'.encode())
    return _response(_PAGE_TYPE, document.replace(b">{}<", f">{known}<".encode()), _NOT_KEPT)


def page_file(version: str, name: str) -> Response | None:
    """Return a file that the document of this version names; None if there is none."""
    if version != digest() or name not in TYPES:
        return None
    return _response(TYPES[name], _read(name), _KEPT)


def _response(content_type: str, content: bytes, cache_control: str) -> Response:
    return Response(content, headers={**_HEADERS, "Content-Type": content_type, "Cache-Control": cache_control})


@cache
def _read(name: str) -> bytes:
    return Path(__file__).with_name("page").joinpath(name).read_bytes()
