#!/usr/bin/python
"""Ansible module: make a release of rbee from a checkout and an archive of packages, without any network.

A release is a folder with an environment of its own; its manifest is written last, so that one that was interrupted
(a full disk, a power cut) is known as such and made anew. What runs is not touched.

Root unpacks and installs, which runs nothing of the release; before that, every file is checked by its hash. What is
run of it, to build the checkout and to prove that it loads, runs as the account of the daemons.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pwd
import re
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: rbee_release
short_description: Build a release of rbee
description:
  - Makes C(releases/name) with an environment of its own, installs the packages of the archive and the checkout into
    it, proves as the daemons' user that it loads, and writes its manifest.
options:
  checkout:
    description: The clone, at the commit to install.
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
  user:
    description: The user of the daemons, as which the checkout is built and the release is tried.
    type: str
    required: true
  releases:
    description: The folder of all releases.
    type: path
    required: true
  name:
    description: The name of the release.
    type: str
    required: true
  wants:
    description: What the release is made with; kept in the manifest.
    type: dict
    required: true
  packages:
    description: The folder of packages with models, which every release looks into besides its own.
    type: path
    required: true
  keep:
    description: How many releases stay, this one and those that serve among them.
    type: int
    default: 2
author:
  - The rbee project
"""

UNITS = (
    "/etc/systemd/system/rbee-hive.service",
    "/etc/systemd/system/queen-rbee.service",
    "/Library/LaunchDaemons/org.rbee.hive.plist",
)
# The one package that constraints.txt pins by its source: its wheel was built, and the archive's hash holds it.
BUILT = "llama-cpp-python"
PROGRAMS = {"queen": "queen-rbee", "hive": "rbee-hive", "worker": "llm-worker-rbee"}


class StepError(Exception):
    """Raised when a step fails; carries its output."""


def main():
    """Build the release, or fail with the reason."""
    module = AnsibleModule(
        argument_spec={
            "checkout": {"type": "path", "required": True},
            "archive": {"type": "path", "required": True},
            "sha256": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "releases": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "wants": {"type": "dict", "required": True},
            "packages": {"type": "path", "required": True},
            "keep": {"type": "int", "default": 2},
        },
        supports_check_mode=True,
    )
    _end_with_the_connection()
    name, wants = module.params["name"], module.params["wants"]
    releases, archive = Path(module.params["releases"]), Path(module.params["archive"])
    if module.check_mode:
        module.exit_json(changed=True, release=name)
    if module.sha256(str(archive)) != module.params["sha256"]:
        module.fail_json(
            msg=f"CHECKSUM_MISMATCH: {archive} is not the archive that the controller packed; nothing of it was used."
        )
    # Readable by the account, whatever root's umask is.
    os.umask(0o022)
    work = releases / ".work"
    shutil.rmtree(str(work), ignore_errors=True)
    release, moved = _free_name(releases, name)
    try:
        work.mkdir(parents=True)
        _make(release, Path(module.params["checkout"]), wants["commit"], archive, work, module.params["user"])
        _look_into(Path(module.params["packages"]), release)
        _prove(release, wants["extras"], module.params["user"])
        manifest = work / "release.json"
        manifest.write_text(json.dumps({"wants": wants}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        manifest.replace(release / "release.json")
    except (OSError, StepError, tarfile.TarError, zipfile.BadZipFile) as error:
        full = _is_full(releases, error)
        shutil.rmtree(str(release), ignore_errors=True)
        if full:
            reason = f"DISK_FULL: the disk of {releases} filled up while the release was built"
        else:
            reason = f"RELEASE_FAILED: the release {name} could not be built"
        module.fail_json(msg=f"{reason}; nothing of it is left, and the running release is unchanged. {error}")
    finally:
        shutil.rmtree(str(work), ignore_errors=True)
        if archive.exists():
            archive.unlink()
    removed = _forget(releases, release.name, module.params["keep"])
    module.exit_json(changed=True, release=release.name, removed=removed, rebuilt=moved)


def _free_name(releases, name):
    """Return the folder for the release; one of the same name that may be running is never touched."""
    release, number = releases / name, 1
    while (release / "release.json").exists():
        number += 1
        release = releases / (f"{name}.{number}")
    shutil.rmtree(str(release), ignore_errors=True)
    return release, number > 1


def _end_with_the_connection():
    """End at once, with all that was started, when nobody reads the output any more: the run was cancelled.

    What was begun has no manifest, so the next run makes it anew.
    """

    def watch():
        # Nothing is asked for: that the reader is gone is always told.
        poller = select.poll()
        poller.register(sys.stdout.fileno(), 0)
        poller.poll()
        os.killpg(0, signal.SIGKILL)

    os.setpgid(0, 0)
    threading.Thread(target=watch, daemon=True).start()


def _look_into(packages, release):
    """Have the release's Python find the packages with models, of which a machine has one copy for all releases."""
    packages.mkdir(exist_ok=True)
    site = next((release / "lib").glob("python*/site-packages"))
    (site / "rbee-packages.pth").write_text(f"{packages}\n", encoding="utf-8")


def _make(release, checkout, commit, archive, work, user):
    with tarfile.open(str(archive)) as tar:
        tar.extractall(str(work), filter="data") if hasattr(tarfile, "data_filter") else tar.extractall(str(work))  # noqa: S202
    source = _source(checkout, commit, work)
    _check(work, (source / "constraints.txt").read_text(encoding="utf-8"))
    archive.unlink()
    uv = _uv(work)
    env = dict(os.environ)
    env.update(UV_CACHE_DIR=str(work / "cache"), UV_PYTHON_DOWNLOADS="never", UV_OFFLINE="1", UV_NO_CONFIG="1")
    _run([uv, "venv", "-q", "--python", sys.executable, release], env)
    install = [uv, "pip", "install", "-q", "--python", release / "bin" / "python", "--no-deps", "--no-index"]
    install += ["--find-links", work]
    _run([*install, "--compile-bytecode", "--require-hashes", "-r", work / "requirements.txt"], env)
    _run([*install, "--compile-bytecode", _build(release, source, work, user)], env)


def _source(checkout, commit, work):
    """Take the commit itself out of the clone, whatever its work tree has by now."""
    tree, packed = work / "source", work / "source.tar"
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/bin", "/opt/homebrew/bin"])
    _run([shutil.which("git", path=search) or "git", "-C", checkout, "archive", "-o", packed, commit])
    tree.mkdir()
    with tarfile.open(str(packed)) as tar:
        tar.extractall(str(tree), filter="data") if hasattr(tarfile, "data_filter") else tar.extractall(str(tree))  # noqa: S202
    return tree


def _check(work, constraints):
    """Compare every wheel with the hashes that the commit pins: one of them is run as root to install the others."""
    pinned = {}
    for line in constraints.splitlines():
        begun = re.match(r"([A-Za-z0-9._-]+)==", line)
        if begun:
            hashes = pinned.setdefault(_normal(begun.group(1)), set())
        if line and not line.startswith("#"):
            hashes.update(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
    for wheel in sorted(work.glob("*.whl")):
        name = _normal(wheel.name.split("-")[0])
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if name != BUILT and digest not in pinned.get(name, ()):
            raise StepError(f"{wheel.name} is not the file that constraints.txt of the commit pins; it was not used")


def _normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def _build(release, checkout, work, user):
    """Build the wheel of the checkout as *user*, whose code it is that a build runs; return where it is for root."""
    built = work / "built"
    built.mkdir()
    _own(built, user)
    # Isolated: not from the folder it is in, nor from what the environment names.
    _run(
        [release / "bin" / "python", "-I", "-m", "hatchling", "build", "-t", "wheel", "-d", built],
        user=user,
        cwd=checkout,
    )
    names = [path.name for path in built.glob("*.whl")]
    if len(names) != 1:
        raise StepError(f"the build of {checkout} left {len(names)} wheels")
    # The folder is the account's: a link there must not make root read another file.
    source = os.open(str(built / names[0]), os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(source, "rb") as content:
        (work / names[0]).write_bytes(content.read())
    return work / names[0]


def _own(folder, user):
    if os.geteuid() == 0:
        shutil.chown(str(folder), user)


def _uv(work):
    """Take the program out of its wheel: it is needed before there is any environment."""
    wheel = next(iter(work.glob("uv-*.whl")), None)
    if wheel is None:
        raise StepError("the archive has no uv, which makes the environment")
    with zipfile.ZipFile(str(wheel)) as content:
        member = next(name for name in content.namelist() if name.endswith("/scripts/uv"))
        target = work / "uv"
        target.write_bytes(content.read(member))
    target.chmod(0o755)
    return target


def _prove(release, extras, user):
    """Load what native code there is and start each program: what fails here would fail as a daemon."""
    if "worker" in extras:
        _run([release / "bin" / "python", "-c", "import llama_cpp"], user=user)
    for extra in extras:
        _run([release / "bin" / PROGRAMS[extra], "--version"], user=user)


def _run(command, env=None, user=None, cwd=None):
    """Run a step, as *user* and with nothing of root's environment if there is one and this is root."""
    options = {}
    if user is not None and os.geteuid() == 0:
        account = pwd.getpwnam(user)
        options = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent", "LANG": "C.UTF-8"}
        env.update({name: os.environ[name] for name in ("RBEE_RUN",) if name in os.environ})
    try:
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=str(cwd or "/"),
            timeout=900,
            check=False,
            **options,
        )
    except subprocess.TimeoutExpired as error:
        raise StepError(f"{command[0]} did not end within 15 minutes") from error
    if done.returncode:
        output = done.stdout.decode(errors="replace").strip().splitlines()
        # A signal has no output: an illegal instruction means a wheel of another kind of machine.
        ended = f"was ended by signal {-done.returncode}" if done.returncode < 0 else "failed"
        shown = " ".join(str(part) for part in command[:3])
        raise StepError(f"{shown} ... {ended}: {' | '.join(output[-6:])}")


def _is_full(folder, error):
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # A program that we ran met the full disk: its words differ, the free space does not.
    try:
        return shutil.disk_usage(str(folder)).free < 16 * 1024 * 1024
    except OSError:
        return False


def _forget(releases, made, keep):
    """Keep that many releases, the one just made and those that the link or a service names in any case."""
    needed = {made}
    link = releases.parent / "current"
    if link.is_symlink():
        needed.add(link.readlink().name)
    for unit in UNITS:
        if Path(unit).exists():
            needed |= set(re.findall(r"/releases/([^/]+)/bin/", Path(unit).read_text(encoding="utf-8")))
    there = [path for path in releases.iterdir() if path.is_dir() and path.name != ".work"]
    others = [path for path in there if path.name not in needed]
    # One without a manifest was never whole.
    others.sort(key=lambda path: ((path / "release.json").exists(), path.stat().st_mtime), reverse=True)
    spare = others[max(0, keep - (len(there) - len(others))) :]
    for path in spare:
        shutil.rmtree(str(path), ignore_errors=True)
    return [path.name for path in spare]


if __name__ == "__main__":
    main()
