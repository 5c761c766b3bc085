#!/usr/bin/python
"""Ansible module: collect, in one step, all facts of a machine that the rbee roles use.

One module instead of the general fact gathering: a run costs tasks times machines, and this one replaces
about ten. It changes nothing, needs no root, and also tells whether sudo would let the later tasks work.
Runs on Python 3.8, so that a machine whose Python is too old can be told so.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import platform
import pwd
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: rbee_machine
short_description: Collect the facts of a machine that the rbee roles use
description:
  - Returns the fact C(rbee_machine). Changes nothing and needs no root.
options:
  install_path:
    description: Folder of the checkout and the releases.
    type: path
    required: true
  state_path:
    description: Folder of models, databases and logs.
    type: path
    required: true
  user:
    description: The system user of the daemons.
    type: str
    required: true
  folders:
    description: Folders with the owner and the mode that they should have.
    type: list
    elements: dict
    default: []
  files:
    description: Files to tell owner, mode and sha256 of, where they are and can be read, if need be by sudo.
    type: list
    elements: path
    default: []
author:
  - The rbee project
"""

UNITS = (
    "/etc/systemd/system/rbee-hive.service",
    "/etc/systemd/system/queen-rbee.service",
    "/Library/LaunchDaemons/org.rbee.hive.plist",
)
_PROPERTIES = "LoadState,ActiveState,UnitFileState,NeedDaemonReload,Environment"


def main():
    """Collect the facts."""
    module = AnsibleModule(
        argument_spec={
            "install_path": {"type": "path", "required": True},
            "state_path": {"type": "path", "required": True},
            "user": {"type": "str", "required": True},
            "folders": {"type": "list", "elements": "dict", "default": []},
            "files": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    install = Path(module.params["install_path"])
    facts = {
        "system": sys.platform,
        "machine": platform.machine(),
        "libc": list(platform.libc_ver()),
        "os": _os_release(),
        "python": {"executable": sys.executable, "version": platform.python_version()},
        "cpu": {"flags": _cpu_flags(), "count": os.cpu_count() or 1},
        "clock": time.time(),
        "sudo": _sudo(),
        "programs": {name: shutil.which(name, path=_path()) for name in ("git", "cc", "c++", "gcc", "g++", "nvcc")},
        "cuda": _cuda(),
        "groups": _groups(),
        "user": _user(module.params["user"]),
        "wrong_folders": [folder for folder in module.params["folders"] if not _is_right(folder)],
        "files": {path: seen for path in module.params["files"] for seen in [_file(path)] if seen},
        "taken": _taken(install, Path(module.params["state_path"])),
        "packages": _packages(install / "packages"),
        "free_mb": {key: _free_mb(Path(module.params[key])) for key in ("install_path", "state_path")},
        "listening": _listening(),
        "units": {name: _unit(name) for name in ("rbee-hive", "queen-rbee")},
        "releases": _releases(install / "releases"),
        "current": _current(install / "current"),
    }
    module.exit_json(changed=False, ansible_facts={"rbee_machine": facts})


def _path():
    """Return the search path of a daemon: an SSH session without a login shell misses the sbin folders and CUDA's."""
    return os.pathsep.join(
        [os.environ.get("PATH", ""), "/usr/local/bin", "/usr/sbin", "/sbin", "/usr/local/cuda/bin", "/opt/homebrew/bin"]
    )


def _run(command, seconds=10):
    """Run a short command; return its exit code and output, or None where it is absent, hangs or may not be run."""
    program = shutil.which(command[0], path=_path())
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.returncode, done.stdout.decode(errors="replace")


def _read(path):
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _os_release():
    found = dict(re.findall(r'^(ID|VERSION_ID|ID_LIKE)="?([^"\n]*)"?$', _read("/etc/os-release"), re.MULTILINE))
    return {
        "id": found.get("ID", sys.platform),
        "like": found.get("ID_LIKE", ""),
        "version": found.get("VERSION_ID", ""),
    }


def _cpu_flags():
    if sys.platform == "darwin":
        answer = _run(["sysctl", "-n", "machdep.cpu.brand_string"])
        return [answer[1].strip()] if answer else []
    for line in _read("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return sorted(value.split())
    return []


def _sudo():
    """Return whether tasks can run as root: root, free, refused (a password or no permission), or missing."""
    if os.geteuid() == 0:
        return "root"
    if shutil.which("sudo", path=_path()) is None:
        return "missing"
    answer = _run(["sudo", "-n", "true"])
    return "free" if answer and answer[0] == 0 else "refused"


def _cuda():
    """Return driver, devices and toolkit; a driver that hangs or fails is reported as a fault."""
    driver = re.search(r"(\d+\.\d+(?:\.\d+)?)", _read("/proc/driver/nvidia/version"))
    found = {"driver": driver.group(1) if driver else "", "devices": [], "fault": "", "toolkit": ""}
    if driver:
        answer = _run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
        if answer is None or answer[0] != 0:
            found["fault"] = answer[1].strip()[-300:] if answer else "nvidia-smi is missing or does not respond"
        else:
            found["devices"] = [line.strip() for line in answer[1].splitlines() if line.strip()]
    answer = _run(["nvcc", "--version"])
    toolkit = re.search(r"release (\d+\.\d+)", answer[1]) if answer else None
    found["toolkit"] = toolkit.group(1) if toolkit else ""
    return found


def _groups():
    """List which of the groups that guard GPU devices there are."""
    names = {line.partition(":")[0] for line in _read("/etc/group").splitlines()}
    return sorted(names & {"video", "render"})


def _user(name):
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    groups = sorted(group.gr_name for group in grp.getgrall() if name in group.gr_mem)
    return {"uid": entry.pw_uid, "home": entry.pw_dir, "shell": entry.pw_shell, "groups": groups}


def _is_right(folder):
    """Return whether a folder is as it should be, so that one that is costs no task.

    Below a folder that nobody else may look into, nothing can be seen: it was made together with that one.
    """
    try:
        seen = os.stat(folder["path"])  # noqa: PTH116 - what a playbook gives are plain strings
        return pwd.getpwuid(seen.st_uid).pw_name == folder["owner"] and stat.S_IMODE(seen.st_mode) == int(
            folder["mode"], 8
        )
    except PermissionError:
        return True
    except (OSError, KeyError):
        return False


def _file(path):
    """Return owner, mode and sha256 of a file in one line, so that one that is as it should be costs no task."""
    try:
        seen = os.stat(path)  # noqa: PTH116 - what a playbook gives are plain strings
        digest = hashlib.sha256(_content(path)).hexdigest()
        return f"{pwd.getpwuid(seen.st_uid).pw_name} {stat.S_IMODE(seen.st_mode):04o} {digest}"
    except (OSError, KeyError):
        return ""


def _content(path):
    """Return the bytes of a file, read by sudo where only root may and sudo asks for nothing."""
    try:
        return Path(path).read_bytes()
    except PermissionError:
        answer = _run(["sudo", "-n", "cat", path])
        if answer is None or answer[0] != 0:
            raise
        return answer[1].encode()


def _taken(install, state):
    """List which of the two folders are rbee's: by the mark in them, or because a unit of ours names them."""
    found = []
    units = "".join(_read(unit) for unit in UNITS)
    names = {install: [f"{install}/releases/"], state: [f"RBEE_HOME={state}\n", f"<string>{state}</string>"]}
    for path, named in names.items():
        # The folder of the state may be closed to us; then it was made by a run that has also made a unit.
        if os.path.lexists(str(path / ".rbee")) or any(name in units for name in named):
            found.append(str(path))
    return found


def _packages(folder):
    """Return the distributions that carry models, each with its version: they are not part of any release."""
    names = (path.name[: -len(".dist-info")].rsplit("-", 1) for path in folder.glob("*.dist-info"))
    return {re.sub(r"[-_.]+", "-", parts[0]).lower(): parts[1] for parts in names if len(parts) == 2}


def _free_mb(path):
    """Return the free space, in MB, where *path* is or will be."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(str(path)).free // (1024 * 1024)
    except OSError:
        return 0


def _listening():
    """List the TCP ports that something listens on (Linux; elsewhere the daemon itself will say so)."""
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in _read(table).splitlines()[1:]:
            fields = line.split()
            if len(fields) > 3 and fields[3] == "0A":
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return sorted(ports)


def _unit(name):
    """Return whether systemd knows the unit, its state, whether all is as its file says, and which release it runs."""
    answer = _run(["systemctl", "show", "-p", _PROPERTIES, name + ".service"])
    found = dict(re.findall(r"^(\w+)=(.*)$", answer[1], re.MULTILINE)) if answer else {}
    release = re.search(r"RBEE_RELEASE=(\S+)", found.get("Environment", ""))
    return {
        "known": found.get("LoadState") == "loaded",
        "active": found.get("ActiveState", "unknown"),
        "settled": (found.get("ActiveState"), found.get("UnitFileState"), found.get("NeedDaemonReload"))
        == ("active", "enabled", "no"),
        "release": release.group(1) if release else "",
    }


def _releases(folder):
    """Return the manifests of the whole releases; one without a manifest was interrupted and does not count."""
    found = {}
    for manifest in sorted(folder.glob("*/release.json")):
        try:
            found[manifest.parent.name] = json.loads(manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
    return found


def _current(link):
    try:
        return Path(os.readlink(str(link))).name  # noqa: PTH115 - Path.readlink is Python 3.9
    except OSError:
        return ""


if __name__ == "__main__":
    main()
