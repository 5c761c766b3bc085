"""The program `queen-rbee`.

The local hive is started before anything else where a keeper waits for both, and before most of the queen's own
imports in any case, so that both start at the same time.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

from rbee import lifeline

if TYPE_CHECKING:
    from rbee.config.paths import Paths
    from rbee.queen.database import Database
    from rbee.queen.keys.store import ClientKeys
    from rbee.queen.local_hive.prestart import PrestartedHive
    from rbee.queen.local_hive.process import HiveLauncher, HiveProcess
    from rbee.queen.settings import QueenSettings


def main() -> None:
    """Serve until a signal or the shutdown route ends the queen."""
    owner = lifeline.attach()
    # Until the server runs: the collector would scan everything that is being imported, again and again.
    gc.disable()
    prestarted = _prestart(owner)

    from rbee.config.paths import Paths
    from rbee.daemonkit.cli import reported_failures
    from rbee.queen.settings import PROGRAM

    settings = PROGRAM.parse(sys.argv[1:], os.environ, owner)
    with reported_failures(PROGRAM.name, owner):
        paths = Paths(settings.home.expanduser().absolute()) if settings.home else Paths.of(os.environ)
        _serve(settings, paths, owner, prestarted)


def _prestart(owner: lifeline.OwnerLink) -> PrestartedHive | None:
    """Start a hive for a queen whose keeper waits; any other queen may need none, and has time."""
    if not owner.owned:
        return None
    from rbee.queen.local_hive.prestart import prestart

    return prestart(os.environ)


def _serve(settings: QueenSettings, paths: Paths, owner: lifeline.OwnerLink, prestarted: PrestartedHive | None) -> None:
    from rbee.config.credentials import ensure_api_key
    from rbee.daemonkit import systemd
    from rbee.daemonkit.home_lock import HomeLock
    from rbee.daemonkit.own_files import configure_log, make_folders
    from rbee.daemonkit.sockets import bind
    from rbee.observe.redaction import secrets_in_url
    from rbee.queen.settings import PROGRAM

    make_folders(paths, (paths.run, paths.logs))
    key = ensure_api_key(paths, os.environ, settings.api_key_file)
    secret = settings.database_url
    database = secret.get_secret_value() if secret is not None else None
    own_log, secrets = paths.logs / "queen-rbee.log", (key, *secrets_in_url(database or ""))
    redactor = configure_log(
        PROGRAM.name, own_log, level=settings.log_level, max_mb=settings.log_max_mb, secrets=secrets
    )
    lock = HomeLock(paths, PROGRAM.name)
    sock = systemd.restored_socket(settings.host, settings.port) or bind(settings.host, settings.port)
    launcher = _launcher(paths, ephemeral=owner.owned) if settings.local_hive else None
    launched = _launched(launcher, settings.local_hive_port, prestarted) if launcher is not None else None
    if launcher is None and prestarted is not None:
        prestarted.abort()

    import asyncio

    from rbee.daemonkit.server import serve
    from rbee.queen.app import create_app
    from rbee.queen.daemon import Queen
    from rbee.queen.database import Database
    from rbee.queen.keys.store import ClientKeys
    from rbee.queen.local_hive.supervisor import LocalHive

    local = None
    if launcher is not None:
        local = LocalHive(
            launcher, launched, port=settings.local_hive_port, start_timeout_s=settings.hive_start_timeout_s
        )
    store = Database(database, paths)
    client_keys = ClientKeys(store, paths)
    asyncio.run(_open(store, client_keys))
    queen = Queen(
        settings,
        paths,
        store,
        client_keys,
        local,
        key=key,
        aliases=_aliases(),
        ephemeral=owner.owned,
        on_key=redactor.add,
    )
    address = f"{settings.host}:{sock.getsockname()[1]}"
    serve(
        create_app(queen, key, address, cors_origins=settings.cors_origins),
        sock,
        lambda: queen.drain,
        owner,
        successor=systemd.store_socket(sock),
        max_connections_per_address=settings.max_connections_per_address,
    )
    lock.release()


async def _open(database: Database, client_keys: ClientKeys) -> None:
    """Open the database if there is one, and read the keys in it."""
    await database.open()
    await client_keys.load()


def _launcher(paths: Paths, *, ephemeral: bool) -> HiveLauncher:
    from rbee.config.credentials import new_key
    from rbee.queen.local_hive.process import HiveLauncher

    return HiveLauncher(paths, new_key(), os.environ, ephemeral)


def _launched(launcher: HiveLauncher, port: int, prestarted: PrestartedHive | None) -> HiveProcess | None:
    from rbee.errors import RbeeError
    from rbee.queen.local_hive.process import free_port

    try:
        return launcher.launch(free_port(port), prestarted)
    except RbeeError:
        if prestarted is not None:
            prestarted.abort()
        # The queen serves other nodes all the same, and tries again once it serves, with the reason in its log.
        return None


def _aliases() -> dict[str, str]:
    from rbee.config import file

    named = {name: value for name, value in file.find(os.environ).table("models").items() if isinstance(value, str)}
    return {**file.BUILT_IN_ALIASES, **named}


if __name__ == "__main__":
    main()
