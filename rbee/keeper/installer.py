"""Link the programs into a folder, make the folders, write a first config; a second run changes nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rbee.config.paths import storage_error
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.keeper import default_config
from rbee.keeper.queen.process import require_program

PROGRAMS = ("rbee-keeper", "rbee", "queen-rbee", "rbee-hive", "llm-worker-rbee")
_PRIVATE = 0o700
_SHARED = 0o755
_FOLDERS = ("logs", "run", "models", "secrets")


class Target(NamedTuple):
    """The places of an installation."""

    programs: Path
    config: Path
    data: Path
    system: bool


def user_target(home: Path, data: Path) -> Target:
    """Return the places of an installation for one user."""
    return Target(home / ".local" / "bin", data / "config.toml", data, system=False)


def system_target(root: Path) -> Target:
    """Return the places of an installation for all users, below *root*."""
    return Target(root / "usr/local/bin", root / "etc/rbee/config.toml", root / "var/lib/rbee", system=True)


def install(target: Target) -> Iterator[str]:
    """Install step by step; yield a line for each change. Raises RbeeError where the file system refuses."""
    for folder in (target.programs, target.config.parent, target.data):
        yield from _make_folder(folder, _private(folder, target), target)
    for name in _FOLDERS:
        yield from _make_folder(target.data / name, _SHARED if target.system and name == "models" else _PRIVATE, target)
    for name in PROGRAMS:
        yield from _link_program(name, target)
    yield from _write_config(target)


def _private(folder: Path, target: Target) -> int:
    return _PRIVATE if folder == target.data and not target.system else _SHARED


def _make_folder(folder: Path, mode: int, target: Target) -> Iterator[str]:
    if folder.is_dir():
        return
    try:
        folder.mkdir(parents=True, mode=mode)
        folder.chmod(mode)  # whatever the umask is
    except OSError as error:
        raise _storage_error(error, folder, target) from error
    yield f"Created {folder}"


def _link_program(name: str, target: Target) -> Iterator[str]:
    source = Path(require_program(name)).absolute()
    link = target.programs / name
    if source == link or (link.is_symlink() and link.readlink() == source):
        return
    if link.exists() and not link.is_symlink():
        raise RbeeError(
            ErrorCode.PERMISSION_DENIED,
            f"{link} exists and is not a link of rbee, so it is left unchanged.",
            details={"path": str(link)},
            hint=f"Move it away and run install again; the program is {source}.",
        )
    try:
        aside = Path(tempfile.mktemp(dir=target.programs, prefix=f".{name}."))  # noqa: S306 - symlink_to is exclusive
        aside.symlink_to(source)
        aside.replace(link)
    except OSError as error:
        raise _storage_error(error, link, target) from error
    yield f"Linked {link} to {source}"


def _write_config(target: Target) -> Iterator[str]:
    try:
        handle = os.open(target.config, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return
    except OSError as error:
        raise _storage_error(error, target.config, target) from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(default_config.text())
    except OSError as error:
        target.config.unlink(missing_ok=True)
        raise _storage_error(error, target.config, target) from error
    yield f"Wrote {target.config}, with every setting commented out"


def _storage_error(error: OSError, path: Path, target: Target) -> RbeeError:
    refusal = storage_error(error, path)
    if target.system and refusal.code is ErrorCode.PERMISSION_DENIED:
        refusal.hint = f"Run it as root: sudo {require_program('rbee-keeper')} install --system"
    return refusal
