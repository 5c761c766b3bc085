"""What a host is like before anybody installs anything on it: its users, its keys, and its bad luck."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.rig.base import ADMIN
from tests.rig.commands import call
from tests.rig.keys import public_key

# Of the hosts whose sudo asks for one.
ADMIN_PASSWORD = "honey-and-wax"
_OLD_PYTHON = """\
# A stand-in: this Python says that it is an old one, to everybody who asks it at run time.
import sys
sys.version_info = type("version_info", (tuple,), {
    "major": 3, "minor": 7, "micro": 3, "releaselevel": "final", "serial": 0,
})((3, 7, 3, "final", 0))
sys.version = "3.7.3 (default)"
sys.hexversion = 0x030703F0
"""


@dataclass(frozen=True, slots=True)
class HostSpec:
    """How a host differs from a good one.

    `sudo`: "free" needs no password, "password" asks for `ADMIN_PASSWORD`, "none" allows nothing.
    `python`: "old" says it is 3.7 to everybody who asks it (a stand-in: its code stays that of the real one).
    `key`: whether the admin lets the rig's key in.
    `clock_offset_s`: how far its clock is ahead, for its services and logins (process 1 itself keeps the true time).
    """

    sudo: Literal["free", "password", "none"] = "free"
    python: Literal["present", "absent", "old"] = "present"
    key: bool = True
    clock_offset_s: int = 0


def prepare(root: Path, spec: HostSpec, *, name: str, host_key: Path, admin_key: Path, hosts: dict[str, str]) -> None:
    """Write what makes a fresh disk the disk of one host; *hosts* are the addresses it knows by name."""
    _write(root / "etc/hostname", f"{name}\n")
    _write(root / "etc/hosts", "127.0.0.1 localhost\n" + "".join(f"{a} {n}\n" for n, a in hosts.items()))
    _write(root / "etc/machine-id", f"{secrets.token_hex(16)}\n")
    for source, mode in ((host_key, 0o600), (public_key(host_key), 0o644)):
        target = root / "etc/ssh" / f"ssh_host_ed25519_key{source.suffix if source.suffix == '.pub' else ''}"
        _write(target, source.read_text(encoding="ascii"), mode=mode)
    if spec.key:
        _authorize(root, admin_key)
    _sudo(root, spec)
    _python(root, spec)
    # As in tests/conftest.py: all hosts share the processors of this machine.
    _write(root / "etc/systemd/system.conf.d/rig-threads.conf", "[Manager]\nDefaultEnvironment=RBEE_WORKER_THREADS=1\n")
    if spec.clock_offset_s:
        _clock(root, spec.clock_offset_s)


def _authorize(root: Path, key: Path) -> None:
    home = root / "home" / ADMIN
    _write(home / ".ssh/authorized_keys", public_key(key).read_text(encoding="ascii"), mode=0o600)
    (home / ".ssh").chmod(0o700)
    call("chroot", root, "chown", "-R", f"{ADMIN}:{ADMIN}", f"/home/{ADMIN}/.ssh")


def _sudo(root: Path, spec: HostSpec) -> None:
    rule = {"free": "ALL=(ALL:ALL) NOPASSWD: ALL", "password": "ALL=(ALL:ALL) ALL"}.get(spec.sudo)
    if rule is not None:
        _write(root / "etc/sudoers.d/rig", f"{ADMIN} {rule}\n", mode=0o440)
    if spec.sudo == "password":
        call("chroot", root, "chpasswd", stdin=f"{ADMIN}:{ADMIN_PASSWORD}\n")


def _python(root: Path, spec: HostSpec) -> None:
    if spec.python == "absent":
        for path in (root / "usr/bin").glob("python3*"):
            path.unlink()
    elif spec.python == "old":
        for path in root.glob("usr/lib/python3.*/sitecustomize.py"):
            path.unlink()
            _write(path, _OLD_PYTHON)


def _clock(root: Path, offset_s: int) -> None:
    """Let a library answer for the kernel; a clock of its own is not in a container's gift."""
    library = next(root.glob("usr/lib/*/faketime/libfaketime.so.1"))
    wrong = {
        "LD_PRELOAD": f"/{library.relative_to(root)}",
        "FAKETIME": f"{offset_s:+d}s",
        # Waits and deadlines stay right: only the time of day is wrong.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    words = " ".join(f'"{name}={value}"' for name, value in wrong.items())
    _write(root / "etc/systemd/system.conf.d/rig-clock.conf", f"[Manager]\nDefaultEnvironment={words}\n")
    _write(root / "etc/environment", "".join(f"{name}={value}\n" for name, value in wrong.items()))
    with (root / "etc/pam.d/sudo").open("a", encoding="ascii") as pam:
        pam.write("session required pam_env.so readenv=1\n")


def _write(path: Path, text: str, *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
