"""The paths of rbee's state, all below one home."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import ConfigError, RbeeError

NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The numbers of errors of a file system that is full."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The files and folders below *home* (`$RBEE_HOME`, else `~/.rbee`)."""

    home: Path

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Paths:
        """Return the paths below the home that the environment names. Raises ConfigError where there is none."""
        text = environ.get("RBEE_HOME")
        if text:
            return cls(expand(text).absolute())
        try:
            return cls(Path.home() / ".rbee")
        except RuntimeError as error:
            raise ConfigError(
                "Neither HOME nor RBEE_HOME is set; set RBEE_HOME to a folder for rbee's state."
            ) from error

    @property
    def run(self) -> Path:
        """Return the folder of PID files and locks."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        """Return the folder of log files, one for each daemon."""
        return self.home / "logs"

    @property
    def secrets(self) -> Path:
        """Return the folder of keys, each in a file of mode 0600."""
        return self.home / "secrets"

    @property
    def models(self) -> Path:
        """Return the folder of downloaded models."""
        return self.home / "models"

    @property
    def partial(self) -> Path:
        """Return the folder of incomplete answers, whose stream failed."""
        return self.home / "partial"

    @property
    def queen_pid(self) -> Path:
        """Return the PID file of a queen started by `daemon start`."""
        return self.run / "queen-rbee.pid"

    def make(self, folder: Path) -> Path:
        """Create *folder* and its parents, and let nobody else into it. Raises RbeeError if it cannot be written."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _keep_others_out(folder)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        except OSError as error:
            raise storage_error(error, folder) from error
        return folder


def expand(text: str) -> Path:
    """Return the path with `~` expanded; as it is where there is no home directory, which then is not found."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 -- Path.expanduser raises RuntimeError there


def _keep_others_out(folder: Path) -> None:
    """Set the mode of a folder to 0700, unless it is another's, or more than ours: a user's home, or /tmp."""
    status = folder.stat()
    if status.st_mode & 0o077 and status.st_uid == os.geteuid() and not status.st_mode & stat.S_ISVTX:
        home = expand("~")
        if not home.exists() or not folder.samefile(home):
            folder.chmod(0o700)


def storage_error(error: OSError, path: Path) -> RbeeError:
    """Return an error of the file system as an RbeeError that names the path."""
    if error.errno in NO_SPACE:
        return RbeeError(ErrorCode.DISK_FULL, f"No space left on the device for {path}.", details={"path": str(path)})
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return RbeeError(
            ErrorCode.PERMISSION_DENIED, f"{path} cannot be written: {error.strerror}.", details={"path": str(path)}
        )
    return RbeeError(
        ErrorCode.PERMISSION_DENIED, f"{path} cannot be used: {error.strerror}.", details={"path": str(path)}
    )
