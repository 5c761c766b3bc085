"""Where rbee keeps its state: everything below one home."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError


@dataclass(frozen=True, slots=True)
class Paths:
    """The files and folders below *home* (`$RBEE_HOME`, else `~/.rbee`)."""

    home: Path

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Paths:
        """Read the home from the environment."""
        text = environ.get("RBEE_HOME")
        return cls(Path(text).expanduser().absolute() if text else Path.home() / ".rbee")

    @property
    def run(self) -> Path:
        """PID files and locks."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        """One log file a daemon."""
        return self.home / "logs"

    @property
    def secrets(self) -> Path:
        """Keys, each in a file of mode 0600."""
        return self.home / "secrets"

    @property
    def models(self) -> Path:
        """Downloaded models."""
        return self.home / "models"

    @property
    def partial(self) -> Path:
        """Answers that broke off in mid-stream."""
        return self.home / "partial"

    @property
    def queen_pid(self) -> Path:
        """The PID file of a queen from `daemon start`."""
        return self.run / "queen-rbee.pid"

    def make(self, folder: Path) -> Path:
        """Make *folder* and its parents, mode 0700. Raises RbeeError where the system refuses."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        except OSError as error:
            raise storage_error(error, folder) from error
        return folder


def storage_error(error: OSError, path: Path) -> RbeeError:
    """Turn a refusal of the file system into an error that names the path and the next step."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RbeeError(ErrorCode.DISK_FULL, f"No space is left for {path}.", details={"path": str(path)})
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return RbeeError(
            ErrorCode.PERMISSION_DENIED, f"{path} cannot be written: {error.strerror}.", details={"path": str(path)}
        )
    return RbeeError(
        ErrorCode.PERMISSION_DENIED, f"{path} cannot be used: {error.strerror}.", details={"path": str(path)}
    )
