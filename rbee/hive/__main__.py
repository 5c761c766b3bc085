"""The program `rbee-hive`: serve (no subcommand), or `detect` what this machine computes with."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rbee import lifeline

if TYPE_CHECKING:
    from rbee.config.paths import Paths
    from rbee.hive.settings import HiveSettings

PROGRAM = "rbee-hive"
# A queen that comes back starts its hive again while the earlier one is still stopping.
LOCK_PATIENCE_S = 3.0
GIL_SWITCH_S = 0.0005


def main() -> None:
    """Run the program."""
    owner = lifeline.attach()
    # Until the server runs: the collector would scan everything that is being imported, again and again.
    gc.disable()
    # The database is loaded in a thread beside the first requests, which would wait 5 ms for their turn each time.
    sys.setswitchinterval(GIL_SWITCH_S)
    argv = sys.argv[1:]
    if argv[:1] == ["detect"]:
        sys.exit(detect(argv[1:]))
    ordered = argv == [lifeline.ORDERED]
    if ordered:
        # What it takes to serve is imported before the arguments come.
        from rbee.hive import app, daemon, settings  # noqa: F401
    from rbee.daemonkit.cli import reported_failures

    with reported_failures(PROGRAM, owner):
        serve(owner.take_arguments() if ordered else argv, owner)


def detect(argv: list[str]) -> int:
    """Print backends, devices and memory, and the registry's form of both."""
    from rbee.hive.devices import probe
    from rbee.hive.devices.report import describe, format_backends

    parser = argparse.ArgumentParser("rbee-hive detect", description="Print what this machine computes with.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--timeout", type=float, default=probe.PROBE_LIMIT_S, help="seconds a GPU driver may take")
    options = parser.parse_args(argv)
    found = describe(asyncio.run(probe.detect(options.timeout)))
    sys.stdout.write((found.model_dump_json() if options.json else format_backends(found)) + "\n")
    return 0


def serve(argv: list[str], owner: lifeline.OwnerLink) -> None:
    """Serve until a signal, the shutdown route or the loss of every queen ends the hive."""
    from rbee.config.paths import Paths
    from rbee.daemonkit.cli import Program
    from rbee.hive.settings import HiveSettings

    program = Program(
        name=PROGRAM,
        settings=HiveSettings,
        description="Serves this machine: detects devices, keeps models, runs workers. Subcommand: detect.",
    )
    settings = program.parse(argv, os.environ, owner)
    paths = Paths(Path(settings.home).expanduser().absolute()) if settings.home else Paths.of(os.environ)
    _serve(settings, paths, owner)


def _serve(settings: HiveSettings, paths: Paths, owner: lifeline.OwnerLink) -> None:
    from rbee.daemonkit import server
    from rbee.daemonkit.home_lock import HomeLock
    from rbee.daemonkit.own_files import configure_log, make_folders
    from rbee.daemonkit.sockets import bind
    from rbee.hive.app import create_app
    from rbee.hive.daemon import Hive
    from rbee.hive.logs import HIVE_LOG
    from rbee.hive.models.catalog import check_database_file

    make_folders(paths, (paths.run, paths.logs, paths.models))
    key = api_key(settings, paths)
    own_log, secrets = paths.logs / HIVE_LOG, (key, *_database_secrets(settings))
    redactor = configure_log(PROGRAM, own_log, level=settings.log_level, max_mb=settings.log_max_mb, secrets=secrets)
    lock = HomeLock(paths, PROGRAM, LOCK_PATIENCE_S)
    if settings.models_db is None:
        check_database_file(paths.home / "models.db")
    sock = bind(settings.host, settings.port)
    port = int(sock.getsockname()[1])
    hive = Hive(settings, paths, port=port, on_key=redactor.add)
    app = create_app(hive, key, f"{settings.host}:{port}")
    most = settings.max_connections_per_address
    server.serve(app, sock, lambda: hive.drain, owner, max_connections_per_address=most)
    lock.release()


def _database_secrets(settings: HiveSettings) -> set[str]:
    from rbee.observe.redaction import secrets_in_url

    return set() if settings.models_db is None else secrets_in_url(settings.models_db.get_secret_value())


def api_key(settings: HiveSettings, paths: Paths) -> str:
    """Return the key that opens this hive.

    Raises ConfigError where others could reach a hive that was given no key.
    """
    from rbee.config.credentials import new_key, read_key, store_key
    from rbee.daemonkit.sockets import is_loopback
    from rbee.errors import ConfigError

    if settings.api_key is not None and settings.api_key.get_secret_value():
        return settings.api_key.get_secret_value()
    if not is_loopback(settings.host):
        raise ConfigError(
            f"host: {settings.host} can be reached by others and no key is set; "
            "set RBEE_HIVE_API_KEY or the credential hive-api-key."
        )
    file = paths.make(paths.secrets) / "hive-api-key"
    return read_key(file) if file.exists() else store_key(file, new_key(), replace=False)


if __name__ == "__main__":
    main()
