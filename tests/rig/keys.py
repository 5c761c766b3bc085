"""Make SSH keys, and the list of host keys that the controller trusts."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.rig.commands import call


def make_key(path: Path, *, comment: str) -> Path:
    """Make a pair of keys at *path* and *path*.pub; an older pair there is replaced."""
    path.unlink(missing_ok=True)
    public_key(path).unlink(missing_ok=True)
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path)
    return path


def public_key(path: Path) -> Path:
    """Give the path of the public half."""
    return path.with_name(f"{path.name}.pub")


def copy_key(source: Path, target: Path, *, mode: int) -> Path:
    """Copy the private half, with a mode of its own: ssh refuses one that others may read."""
    shutil.copyfile(source, target)
    target.chmod(mode)
    return target


def known_hosts_line(address: str, host_key: Path) -> str:
    """Say in one line of a known_hosts file that *address* has this key."""
    kind, key = public_key(host_key).read_text(encoding="ascii").split()[:2]
    return f"{address} {kind} {key}\n"
