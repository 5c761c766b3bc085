#!/usr/bin/python
"""Ansible module: install packages that carry models, once a machine, for all its releases.

They are files only: each wheel is checked by the hash that the commit pins and unpacked beside the releases, whose
Python looks there too. Nothing of them runs.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: rbee_packages
short_description: Install packages that carry models
description:
  - Replaces other versions of the same packages. A worker that has a replaced file open keeps it.
options:
  checkout:
    description: The clone, at the commit that pins the packages.
    type: path
    required: true
  archive:
    description: The packages, as C(rbee.fleet.wheelhouse) packs them; removed at the end.
    type: path
    required: true
  sha256:
    description: The SHA-256 of the archive, which is checked before anything of it is used.
    type: str
    required: true
  target:
    description: The folder of the packages.
    type: path
    required: true
author:
  - The rbee project
"""


def main():
    """Install what the archive holds."""
    module = AnsibleModule(
        argument_spec={
            "checkout": {"type": "path", "required": True},
            "archive": {"type": "path", "required": True},
            "sha256": {"type": "str", "required": True},
            "target": {"type": "path", "required": True},
        }
    )
    archive, target = Path(module.params["archive"]), Path(module.params["target"])
    if module.sha256(str(archive)) != module.params["sha256"]:
        module.fail_json(msg=f"CHECKSUM_MISMATCH: {archive} is not the archive that the controller packed; not used.")
    # Readable by the account, whatever root's umask is.
    os.umask(0o022)
    work = target / ".work"
    shutil.rmtree(str(work), ignore_errors=True)
    work.mkdir(parents=True)
    pins = (Path(module.params["checkout"]) / "constraints.txt").read_text(encoding="utf-8")
    try:
        with tarfile.open(str(archive)) as tar:
            tar.extractall(str(work), filter="data") if hasattr(tarfile, "data_filter") else tar.extractall(str(work))  # noqa: S202
        archive.unlink()
        installed = [_install(wheel, pins, target, work / "unpacked") for wheel in sorted(work.glob("*.whl"))]
    except (OSError, ValueError, tarfile.TarError, zipfile.BadZipFile) as error:
        module.fail_json(msg=f"RELEASE_FAILED: the packages with models could not be installed in {target}: {error}")
    finally:
        shutil.rmtree(str(work), ignore_errors=True)
        if archive.exists():
            archive.unlink()
    module.exit_json(changed=True, installed=installed)


def _install(wheel, pins, target, unpacked):
    """Unpack a wheel and put its folders into place, the one that tells the version last."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if f"--hash=sha256:{digest}" not in pins:
        raise ValueError(f"{wheel.name} is not a file that constraints.txt of the commit pins")
    shutil.rmtree(str(unpacked), ignore_errors=True)
    with zipfile.ZipFile(str(wheel)) as content:
        content.extractall(str(unpacked))  # noqa: S202 - checked by its hash
    wheel.unlink()
    name = wheel.name.split("-")[0]
    for old in target.glob("*.dist-info"):
        if _normal(old.name.split("-")[0]) == _normal(name):
            shutil.rmtree(str(old))
    for entry in sorted(unpacked.iterdir(), key=lambda path: path.name.endswith(".dist-info")):
        place = target / entry.name
        if place.is_dir():
            shutil.rmtree(str(place))
        entry.replace(place)
    return wheel.name


def _normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
