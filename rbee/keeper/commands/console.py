"""`console`: the queen's page in a browser."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from rbee.keeper.ui.lazy import Flags, KeeperCommand

_PAGE = """<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={url}">
<title>rbee</title>
<a href="{url}">Open the console</a>
"""


@click.command(cls=KeeperCommand)
@click.option("--at", metavar="URL", help="The address of the page, where that is not the queen's own: a proxy's.")
@click.option("--no-browser", is_flag=True, help="Only print the link.")
@click.pass_obj
def console(flags: Flags, /, at: str | None, *, no_browser: bool) -> None:
    """Open the queen's page: machines, models, requests, a chat, logs, keys.

    The link signs a browser in once, within a minute, with the rights of your key; the session lasts twelve hours.
    Whatever the page does, a command can do too.
    """
    from rbee.keeper.session import Session

    session = Session(flags)
    address = (at or session.settings.queen_url).rstrip("/") + "/"
    ticket = session.queen().console_ticket()
    link = f"{address}#ticket={ticket['ticket']}"
    if flags.json:
        session.out.data({"url": link, "expires_s": ticket["expires_s"]})
        return
    session.out.text(link)
    if (
        not no_browser
        and sys.stdout.isatty()
        and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin")
    ):
        _open(link, session.settings.paths.home / "console.html")


def _open(link: str, page: Path) -> None:
    """Open a file that leads to *link*: as an argument of the browser everybody on this machine could read it."""
    import webbrowser
    from html import escape

    from rbee.config.atomic_write import atomic_write

    atomic_write(page, _PAGE.format(url=escape(link)))
    webbrowser.open(page.as_uri())
