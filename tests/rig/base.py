"""Make the tree that all hosts share: a small Debian with systemd and sshd, built once and kept in the cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rbee.fleet.build_target import cache_home
from tests.rig.commands import RigError, RigUnavailable, attempt, call
from tests.rig.mounts import remove_tree, unmount_below
from tools.longstep import StepError, run_with_progress, say

SUITE = "bookworm"
# What a small server of a careful person has, and nothing that rbee would have to bring itself.
PACKAGES = (
    "ca-certificates",
    "dbus",
    "git",
    "iproute2",
    "libfaketime",
    "openssh-server",
    "procps",
    "python3",
    "python3-venv",
    "sudo",
    "systemd",
    "systemd-sysv",
)
# Counts up when `_furnish` changes, so that an older tree is not taken for a new one.
RECIPE = 1
# The one user that every host has: no privilege but what sudo gives.
ADMIN = "rbee-admin"
_PROGRAMS = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "git": "git",
    "nsenter": "util-linux",
}
# Timers that would reach for the internet or the disks of the machine below, and a login prompt on no terminal.
_MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "e2scrub_all.timer",
    "fstrim.timer",
)


def why_not() -> str | None:
    """Say why there can be no rig on this machine, or None if there can."""
    if not sys.platform.startswith("linux"):
        return f"the rig needs Linux, this is {sys.platform}"
    if os.geteuid() != 0:
        return "the rig needs root (namespaces, mounts, containers); run it as root"
    if (missing := _missing_packages()) and shutil.which("apt-get") is None:
        return f"the rig needs {', '.join(missing)}, and there is no apt-get to install them"
    if not _has_overlay():
        return "the rig needs overlay mounts, which this kernel has not"
    return None


def ensure_programs() -> None:
    """Install what the rig is made of, if it is missing. Raises RigUnavailable if that does not work."""
    missing = _missing_packages()
    if not missing:
        return
    say(f"rig: installing {', '.join(missing)} with apt (half a minute)")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        call("apt-get", "update", "-qq", env=quiet, within=300)
        call("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=quiet, within=600)
    except RigError as failure:
        raise RigUnavailable(f"the rig needs {', '.join(missing)}, and apt cannot install them: {failure}") from None


def ensure_base(more: Sequence[str] = ()) -> Path:
    """Give the shared tree, with *more* packages in it; its first call on a machine makes it, in about two minutes."""
    home = cache_home() / "rig"
    home.mkdir(parents=True, exist_ok=True)
    packages = sorted({*PACKAGES, *more})
    recipe = repr((RECIPE, SUITE, packages))
    base = home / f"base-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    # Two first runs take turns: the second finds the tree ready.
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not base.exists():
            _build(base, packages)
    return base


def _build(base: Path, packages: Sequence[str]) -> None:
    aside = base.with_name(f"{base.name}.unfinished")
    log = base.with_name(f"{base.name}.log")
    # debootstrap mounts /proc and /sys in it, and an interrupted one leaves them there.
    unmount_below(aside)
    remove_tree(aside)
    log.unlink(missing_ok=True)
    say(f"rig: building the Debian tree that all hosts share, once on this machine (about 2 minutes): {base}")
    began = time.monotonic()
    try:
        # No mirror is named: debootstrap's default serves, or what the machine's owner set up for it.
        argv = ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", SUITE, str(aside)]
        run_with_progress("debootstrap", argv, log=log)
    except StepError as failure:
        raise RigUnavailable(f"the Debian tree could not be built: {failure}") from None
    _furnish(aside)
    aside.rename(base)
    say(f"rig: the tree is ready in {time.monotonic() - began:.0f} s")


def _furnish(tree: Path) -> None:
    """Take away what must differ from host to host, and what makes no sense in a container."""
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (tree / "etc/machine-id").write_text("")
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists"):
        for path in (tree / folder).iterdir():
            if path.is_file():
                path.unlink()
    for unit in _MASKED:
        (tree / "etc/systemd/system" / unit).unlink(missing_ok=True)
        (tree / "etc/systemd/system" / unit).symlink_to("/dev/null")
    # No name server is there to ask, and no one should wait for it.
    (tree / "etc/resolv.conf").write_text("options timeout:1 attempts:1\n")
    call("chroot", tree, "useradd", "--create-home", "--shell", "/bin/bash", ADMIN)


def _has_overlay() -> bool:
    known = Path("/proc/filesystems")
    if "overlay" not in known.read_text(encoding="ascii") and shutil.which("modprobe"):
        attempt("modprobe", "overlay")
    return "overlay" in known.read_text(encoding="ascii")


def _missing_packages() -> list[str]:
    return sorted({package for program, package in _PROGRAMS.items() if shutil.which(program) is None})
