"""The files of the page, as they are sent: open to everybody, for what they show is not."""

from __future__ import annotations

from functools import cache
from typing import Final

from starlette.responses import Response

PREFIX: Final = "/console/"
TYPES: Final = {
    "index.html": "text/html; charset=utf-8",
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
"""Every file of the page with its type, so that nothing else of the package is ever sent."""

OPEN_PATHS: Final = (
    "/",
    "/v2/console/sign-in",
    "/v2/console/session",  # looks at the cookie itself, and tells a browser without one that it is nobody
    *(PREFIX + name for name in TYPES),
)
HEADERS: Final = {
    # Pictures that a person attaches to a chat are shown from memory.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page_file(name: str) -> Response | None:
    """Return a file of the page; None if it has none of that name."""
    kind = TYPES.get(name)
    return None if kind is None else Response(_read(name), headers={**HEADERS, "Content-Type": kind})


@cache
def _read(name: str) -> bytes:
    from importlib.resources import files  # no start waits for it

    return files(__package__).joinpath("page", *name.split("/")).read_bytes()
