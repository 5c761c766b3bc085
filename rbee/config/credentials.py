"""Read and store API keys: created on first use, kept with mode 0600, never printed."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from rbee.config.atomic_write import atomic_write
from rbee.config.paths import Paths
from rbee.errors import ConfigError


def new_key() -> str:
    """Return a new key of 256 random bits; it begins with a letter or digit, not as an option of a command does."""
    import secrets  # imports hashlib and more, which a program that only reads keys does not need

    while not (key := secrets.token_urlsafe(32))[0].isalnum():
        pass
    return key


def api_key_file(paths: Paths) -> Path:
    """Return the path of the key that keeper and queen share."""
    return paths.secrets / "api-key"


def find_api_key(paths: Paths, environ: Mapping[str, str], file: Path | None = None) -> str | None:
    """Return the key of the queen, if any, from `RBEE_API_KEY`, the credentials directory, *file* or the home.

    Raises ConfigError for a key file that other users can read, or a named one that cannot be read.
    """
    if environ.get("RBEE_API_KEY"):
        return environ["RBEE_API_KEY"].strip()
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if folder and (Path(folder) / "api-key").is_file():
        return read_credential(Path(folder) / "api-key")
    if file is not None:
        return read_key(file)
    default = api_key_file(paths)
    return read_key(default) if default.exists() else None


def ensure_api_key(paths: Paths, environ: Mapping[str, str], file: Path | None = None) -> str:
    """Return the key of the queen, or create one in the home; concurrent callers get the same one."""
    found = find_api_key(paths, environ, file)
    if found:
        return found
    paths.make(paths.secrets)
    return store_key(api_key_file(paths), new_key(), replace=False)


def read_credential(path: Path) -> str:
    """Read a file of the credentials directory. Raises ConfigError if it is empty, not UTF-8 or cannot be read."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the credential cannot be read: {error}", path=str(path)) from error
    if not text:
        raise ConfigError("the credential is empty", path=str(path))
    return text


def read_key(path: Path) -> str:
    """Read a key file. Raises ConfigError if other users can read it, if it is empty or cannot be read."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"the key file cannot be read: {error.strerror}", path=str(path)) from error
    if mode & 0o077:
        raise ConfigError(f"other users can read this key (mode {mode:o}); run: chmod 600 {path}", path=str(path))
    if not text:
        raise ConfigError("the key file is empty; remove it, and a new key is created", path=str(path))
    return text


def store_key(path: Path, key: str, *, replace: bool) -> str:
    """Write a key atomically, mode 0600; without *replace* an existing key is kept and returned."""
    try:
        atomic_write(path, key + "\n", replace=replace)
    except FileExistsError:
        return read_key(path)
    return key
