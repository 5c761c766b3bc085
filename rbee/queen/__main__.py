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
    from rbee.config.file import ConfigFile
    from rbee.config.paths import Paths
    from rbee.queen.database import Database
    from rbee.queen.keys.store import ClientKeys
    from rbee.queen.local_hive.prestart import PrestartedHive
    from rbee.queen.local_hive.process import HiveLauncher, HiveProcess
    from rbee.queen.serving.sources import DeclarationSources
    from rbee.queen.settings import QueenSettings
    from rbee.queen.usage.store import UsageStore


def main() -> None:
    """Serve until a signal or the shutdown route ends the queen."""
    owner = lifeline.attach()
    # Until the server runs: the collector would scan everything that is being imported, again and again.
    gc.disable()
    prestarted = _prestart(owner)

    from rbee.config.paths import Paths
    from rbee.daemonkit.cli import reported_failures
    from rbee.queen.settings import PROGRAM

    settings = PROGRAM.parse(sys.argv[1:], os.environ, owner, check=_check_declared)
    with reported_failures(PROGRAM.name, owner):
        paths = Paths(settings.home.expanduser().absolute()) if settings.home else Paths.of(os.environ)
        _serve(settings, paths, owner, prestarted)


def _check_declared(config: ConfigFile, settings: QueenSettings | None) -> None:
    """Check the declared models of a config file; what comes by standard input is all that there is to check."""
    from rbee.config.file import STANDARD_INPUT
    from rbee.queen.serving.files import read_declared

    served_file = None if settings is None or config.path == STANDARD_INPUT else settings.served_file
    read_declared(config, served_file)


def _prestart(owner: lifeline.OwnerLink) -> PrestartedHive | None:
    """Start a hive for a queen whose keeper waits; any other queen may need none, and has time."""
    if not owner.owned:
        return None
    from rbee.queen.local_hive.prestart import prestart

    return prestart(os.environ)


def _serve(settings: QueenSettings, paths: Paths, owner: lifeline.OwnerLink, prestarted: PrestartedHive | None) -> None:
    from rbee.config import file
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
    from rbee.queen.serving.declarations import Declarations
    from rbee.queen.serving.files import read_declared
    from rbee.queen.serving.sources import DeclarationSources
    from rbee.queen.usage.store import UsageStore

    local = None
    if launcher is not None:
        local = LocalHive(
            launcher, launched, port=settings.local_hive_port, start_timeout_s=settings.hive_start_timeout_s
        )
    store = Database(database, paths)
    # A queen that ends with its keeper does not make it wait for a database that nothing else needs.
    usage = UsageStore(store, keep_days=settings.usage_keep_days, create=not owner.owned)
    client_keys = ClientKeys(store, paths, usage)
    served = DeclarationSources(
        Declarations(), store, lambda: read_declared(file.find(os.environ), settings.served_file)
    )
    asyncio.run(_open(store, client_keys, usage, served))
    queen = Queen(
        settings,
        paths,
        store,
        client_keys,
        usage,
        served,
        local,
        key=key,
        aliases=file.find(os.environ).aliases(),
        ephemeral=owner.owned,
        on_key=redactor.add,
    )
    address = f"{settings.host}:{sock.getsockname()[1]}"
    serve(
        create_app(queen, key, address, cors_origins=settings.cors_origins),
        sock,
        lambda: queen.drain,
        owner,
        on_reload=queen.reload,
        successor=systemd.store_socket(sock),
        max_connections_per_address=settings.max_connections_per_address,
    )
    lock.release()


async def _open(database: Database, client_keys: ClientKeys, usage: UsageStore, served: DeclarationSources) -> None:
    """Open the database if there is one, and read keys, what they used today, and declared models."""
    await database.open()
    await client_keys.load()
    await usage.load()
    await served.load()


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


if __name__ == "__main__":
    main()
