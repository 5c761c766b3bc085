#!/usr/bin/python
"""Ansible module: take a folder for rbee, or remove from it what is rbee's, without touching what is somebody else's.

A folder is rbee's if it bears a mark, which is set when it is taken: where it was absent or empty. Everything else is
refused. A removal takes away the entries that rbee makes, and the folder itself only once nothing is left in it.
"""

from __future__ import annotations

import fnmatch
import os
import pwd
import shutil
import stat
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: rbee_folder
short_description: Take a folder for rbee, or remove from it what is rbee's
description:
  - With C(state=taken) makes the folder, or takes an empty one, and marks it; fails for one that holds anything else.
    All folders are looked at before the first is changed.
  - With C(state=absent) removes the named entries and those of the account, then the mark and, if nothing is left, the
    folder.
options:
  folders:
    description: The folders, each with C(path) and optionally C(proof), the file in it that shows whose it is, where
      that is not the mark but made by whoever fills the folder; for C(taken) optionally C(known), true if the machine's
      units name it, and C(setting), the variable to name in an error; for C(absent) optionally C(entries), the names to
      remove (with wildcards), C(owner), whose entries go too, C(keep), the names that stay, and C(shared), true if
      another daemon goes on to use the folder.
    type: list
    elements: dict
    required: true
  state:
    description: What to do with them.
    type: str
    choices: [taken, absent]
    required: true
author:
  - The rbee project
"""

MARK = ".rbee"
WORDS = "This folder belongs to rbee, which removes from it what it has made.\n"
# A file system of its own has this in its top folder.
IGNORED = {MARK, "lost+found"}


def main():
    """Take or remove the folders."""
    module = AnsibleModule(
        argument_spec={
            "folders": {"type": "list", "elements": "dict", "required": True},
            "state": {"type": "str", "choices": ["taken", "absent"], "required": True},
        },
        supports_check_mode=True,
    )
    folders = module.params["folders"]
    if module.params["state"] == "taken":
        for folder in folders:
            foreign = _foreign(folder)
            if foreign:
                module.fail_json(msg=foreign)
        own = [folder["path"] for folder in folders if not folder.get("proof")]
        changed = [path for path in own if _take(Path(path), dry=module.check_mode)]
        module.exit_json(changed=bool(changed), taken=changed)
    removed, left = [], []
    for folder in folders:
        _remove(folder, removed, left, dry=module.check_mode)
    module.exit_json(changed=bool(removed), removed=removed, left=left)


def _foreign(folder):
    """Return why the folder must not be taken, or an empty text."""
    path, setting = Path(folder["path"]), folder.get("setting", "another path")
    if path.is_symlink() and not path.exists():
        return (
            f"INVALID_REQUEST: {path} is a link that leads nowhere; nothing was changed. Remove it, or set {setting}."
        )
    if path.exists() and not path.is_dir():
        return f"INVALID_REQUEST: {path} is not a folder; nothing was changed. Remove it, or set {setting}."
    if not path.is_dir() or folder.get("known") or _is_there(path / (folder.get("proof") or MARK)):
        return ""
    found = sorted({entry.name for entry in path.iterdir()} - IGNORED)
    if not found:
        return ""
    shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    return (
        f"INVALID_REQUEST: {path} holds what is not rbee's ({shown}), and an installation would take the folder over; "
        f"nothing was changed. Set {setting} to a folder of rbee's own, such as {path}/rbee."
    )


def _take(path, dry):
    """Make the folder and its mark; return whether anything had to be."""
    mark = path / MARK
    if _is_there(mark):
        return False
    if dry:
        return True
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(0o755)
    # Never through a link: the folder may be the account's.
    handle = os.open(str(mark), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(handle, "w") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(WORDS)
    return True


def _remove(folder, removed, left, dry):
    path, keep = Path(folder["path"]), set(folder.get("keep") or [])
    if path.is_symlink() and path.lstat().st_uid != 0:
        # The account may have placed it, to have root remove what it cannot.
        return
    try:
        entries = sorted(path.iterdir())
    except OSError:
        return
    if folder.get("proof") and not _is_there(path / folder["proof"]):
        left.append(str(path))
        return
    account = _account(folder.get("owner"))
    ours = [entry for entry in entries if entry.name not in keep and _is_ours(entry, folder, account)]
    for entry in ours:
        removed.append(str(entry))
        if not dry:
            _delete(entry)
    others = [entry for entry in entries if entry not in ours and entry.name not in IGNORED]
    if folder.get("shared"):
        return
    if keep.intersection(entry.name for entry in others):
        # What stays because it was asked to is still rbee's, and can be taken again.
        _take(path, dry)
        return
    left += [str(entry) for entry in others]
    if not dry:
        _give_back(path, account)
    if not others and path / "lost+found" not in entries and not path.is_symlink():
        removed.append(str(path))
        if not dry:
            path.rmdir()


def _give_back(path, account):
    """Remove the mark, and leave no folder to an account that is about to go."""
    mark = path / MARK
    if _is_there(mark):
        mark.unlink()
    if account is not None and path.stat().st_uid == account:
        os.chown(str(path), 0, 0)


def _is_there(path):
    """Return whether there is a file or a link, wherever that leads."""
    return os.path.lexists(str(path))


def _is_ours(path, folder, account):
    if path.name in IGNORED:
        return False
    if any(fnmatch.fnmatch(path.name, entry) for entry in folder.get("entries") or []):
        return True
    return account is not None and path.lstat().st_uid == account


def _account(name):
    try:
        return pwd.getpwnam(name).pw_uid if name else None
    except KeyError:
        return None


def _delete(path):
    if stat.S_ISDIR(path.lstat().st_mode):
        shutil.rmtree(str(path))
    else:
        path.unlink()


if __name__ == "__main__":
    main()
