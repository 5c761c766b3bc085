"""The program `queen-rbee`.

The local hive is launched before the queen's own imports, so that both start at the same time.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from rbee import lifeline

if TYPE_CHECKING:
    from rbee.config.paths import Paths
    from rbee.queen.local_hive import LocalHive
    from rbee.queen.settings import QueenSettings


def main() -> None:
    """Serve until a signal or the shutdown route ends the queen."""
    hold = lifeline.hold()

    from rbee.config.paths import Paths
    from rbee.daemonkit.command import EXIT_CONFIG, fail
    from rbee.errors import ConfigError, RbeeError
    from rbee.queen.settings import PROGRAM

    settings = PROGRAM.parse(sys.argv[1:], os.environ, hold)
    paths = Paths(settings.home.expanduser().absolute()) if settings.home else Paths.of(os.environ)
    try:
        _serve(settings, paths, hold)
    except ConfigError as error:
        fail(PROGRAM.name, error, hold, EXIT_CONFIG)
    except RbeeError as error:
        fail(PROGRAM.name, error, hold)


def _serve(settings: QueenSettings, paths: Paths, hold: lifeline.Hold) -> None:
    import asyncio

    from rbee.config.credentials import ensure_api_key
    from rbee.daemonkit import systemd
    from rbee.daemonkit.home_lock import HomeLock
    from rbee.daemonkit.server import bind, serve
    from rbee.observe import logs
    from rbee.queen.settings import PROGRAM

    for folder in (paths.home, paths.run, paths.logs):
        paths.make(folder)
    key = ensure_api_key(paths, os.environ, settings.api_key_file)
    redactor = logs.configure(PROGRAM.name, level=settings.log_level, secrets=(key,))
    lock = HomeLock(paths, PROGRAM.name)
    sock = systemd.kept(settings.host, settings.port) or bind(settings.host, settings.port)
    local = _launched(settings, paths) if settings.local_hive else None

    from rbee.queen.app import create_app
    from rbee.queen.daemon import Queen
    from rbee.queen.store import Store

    secret = settings.database_url
    store = Store(secret.get_secret_value() if secret is not None else None, paths)
    asyncio.run(store.open())
    queen = Queen(settings, paths, store, local, aliases=_aliases(), ephemeral=hold.owned, on_key=redactor.add)
    address = f"{settings.host}:{sock.getsockname()[1]}"
    serve(create_app(queen, key, address), sock, lambda: queen.drain, hold, successor=systemd.keep(sock))
    lock.release()


def _launched(settings: QueenSettings, paths: Paths) -> LocalHive:
    from rbee.errors import RbeeError
    from rbee.queen.local_hive import LocalHive

    local = LocalHive(
        paths, port=settings.local_hive_port, environ=os.environ, start_timeout_s=settings.hive_start_timeout_s
    )
    try:
        local.launch()
    except RbeeError as error:
        # The queen serves other nodes all the same; whoever needs this one hears the reason then.
        print(f"queen-rbee: {error.message}", file=sys.stderr)  # noqa: T201
    return local


def _aliases() -> dict[str, str]:
    from rbee.config import file

    named = {name: value for name, value in file.find(os.environ).table("models").items() if isinstance(value, str)}
    return {**file.BUILT_IN_ALIASES, **named}


if __name__ == "__main__":
    main()
