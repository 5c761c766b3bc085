#!/usr/bin/python
"""Ansible module: let one run at a time work on a machine.

The lock is a file below /run, so that a restart of the machine frees it. It names its run: the operator, the
controller and the process of Ansible there. A later run from the same controller knows whether that process still
lives; for others a lock counts as abandoned after a while. What an abandoned run still has at work on the machine is
ended, known by the mark in its environment, never by its name.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: rbee_lock
short_description: Take or free the lock of a machine
description:
  - With C(state=taken) takes the lock and returns the mark of the run; fails if another run holds it.
  - With C(state=free) frees it if this run holds it.
options:
  state:
    description: What to do.
    type: str
    choices: [taken, free]
    required: true
  operator:
    description: Who runs, as user@controller.
    type: str
    required: true
  process:
    description: The process of Ansible on the controller.
    type: str
    required: true
  living:
    description: All processes of Ansible on the controller; without C(process) among them, nothing is known of others.
    type: list
    elements: str
    default: []
  abandoned_after_s:
    description: Seconds after which the lock of another operator counts as abandoned.
    type: int
    default: 1800
  checkout:
    description: The clone, whose own locks only an ended run can have left.
    type: path
    default: ""
  path:
    description: The file of the lock.
    type: path
    default: /run/rbee-run.json
author:
  - The rbee project
"""

# In the environment of what a run does on the machine.
VARIABLE = "RBEE_RUN"
ENDS_WITHIN_S = 10


def main():
    """Take or free the lock."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["taken", "free"], "required": True},
            "operator": {"type": "str", "required": True},
            "process": {"type": "str", "required": True},
            "living": {"type": "list", "elements": "str", "default": []},
            "abandoned_after_s": {"type": "int", "default": 1800},
            "checkout": {"type": "path", "default": ""},
            "path": {"type": "path", "default": "/run/rbee-run.json"},
        },
        supports_check_mode=True,
    )
    asked = module.params
    mark = f"{asked['operator']}:{asked['process']}"
    if module.check_mode:
        module.exit_json(changed=False, mark=mark)
    path = Path(asked["path"])
    if not path.parent.is_dir():
        path = Path("/var/run") / path.name
    with _opened(path) as file:
        holder = _read(file)
        if asked["state"] == "free":
            # An empty file is what opening it has made.
            if holder.get("mark", mark) == mark:
                path.unlink()
            module.exit_json(changed=False, mark=mark)
        ended = []
        if holder and holder["mark"] != mark:
            if not _is_abandoned(holder, asked):
                module.fail_json(msg=_refusal(holder))
            ended = _end(holder["mark"])
        _write(file, {"mark": mark, "operator": asked["operator"], "process": asked["process"], "since": time.time()})
        if asked["checkout"]:
            _unlock_clone(Path(asked["checkout"]) / ".git")
    module.exit_json(changed=False, mark=mark, ended=ended)


def _opened(path):
    """Open the file and hold it; again, if somebody removed it meanwhile."""
    while True:
        file = path.open("a+", encoding="utf-8")
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        except FileNotFoundError:
            pass
        file.close()


def _read(file):
    file.seek(0)
    try:
        holder = json.loads(file.read() or "{}")
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _write(file, holder):
    file.seek(0)
    file.truncate()
    file.write(json.dumps(holder))


def _is_abandoned(holder, asked):
    if time.time() - holder["since"] > asked["abandoned_after_s"]:
        return True
    # Of the processes of another controller nothing is known, nor of this one's where they cannot be listed.
    known = holder["operator"].partition("@")[2] == asked["operator"].partition("@")[2]
    return known and asked["process"] in asked["living"] and holder["process"] not in asked["living"]


def _refusal(holder):
    minutes = int((time.time() - holder["since"]) // 60)
    return (
        f"MACHINE_BUSY: another run works on this machine: that of {holder['operator']} "
        f"(process {holder['process']} there), for {minutes} min. Wait until it ends, or end it there; "
        "if it is gone: -e rbee_base_abandoned_after_s=0"
    )


def _end(mark):
    """End what an abandoned run still does here; return how many processes that were."""
    ended = {}
    deadline = time.monotonic() + ENDS_WITHIN_S
    while time.monotonic() < deadline:
        living = list(_marked(mark))
        if not living:
            break
        for pid in living:
            ended[pid] = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    return sorted(ended)


def _marked(mark):
    """List the processes with the mark in their environment, but for this one."""
    wanted = f"{VARIABLE}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            content = (folder / "environ").read_bytes()
        except OSError:
            continue
        if wanted in content.split(b"\0") and int(folder.name) != os.getpid():
            yield int(folder.name)


def _unlock_clone(git):
    """Remove the locks that a git which was killed has left: with this lock held, none is at work."""
    for left in [*git.glob("*.lock"), *git.glob("refs/**/*.lock")]:
        with contextlib.suppress(OSError):
            left.unlink()


if __name__ == "__main__":
    main()
