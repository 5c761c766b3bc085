"""Check what rbee needs on this machine; each finding names what was found and what to do about it."""

from __future__ import annotations

import platform
import shutil
import stat
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from rbee import landlock
from rbee.config.credentials import api_key_file
from rbee.errors import RbeeError
from rbee.keeper.installer import PROGRAMS
from rbee.keeper.queen.lifecycle import probe
from rbee.keeper.queen.process import require_program
from rbee.keeper.settings import Settings
from rbee.keeper.ui.output import size_text
from rbee.programs import find_program

_LOW_DISK_BYTES = 5_000_000_000


class Verdict(StrEnum):
    """The outcome of a check; only a problem fails the command."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """One check and its outcome; `advice` is empty where there is nothing to do."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def run_checks(settings: Settings) -> list[Finding]:
    """Run every check."""
    return [
        Finding("python", Verdict.OK, platform.python_version()),
        *_programs(),
        *_tools(),
        _home(settings),
        _disk(settings),
        _key(settings),
        *_confinement(),
        Finding("config", Verdict.OK, str(settings.file.path or "none; the defaults apply")),
        _queen(settings),
    ]


def _programs() -> Iterator[Finding]:
    for name in PROGRAMS:
        try:
            yield Finding(name, Verdict.OK, require_program(name))
        except RbeeError as error:
            yield Finding(name, Verdict.PROBLEM, error.message, error.hint)


def _tools() -> Iterator[Finding]:
    for name, hint in (("ssh", "the OpenSSH client"), ("ansible-playbook", "pip install 'rbee[fleet]'")):
        # ansible-runner looks beside the interpreter too, so that an environment need not be on PATH.
        found = find_program(name)
        if found is not None:
            yield Finding(name, Verdict.OK, str(found))
        else:
            yield Finding(name, Verdict.NOTE, "not installed", f"Install it to manage other machines: {hint}")


def _home(settings: Settings) -> Finding:
    try:
        settings.paths.make(settings.paths.home)
    except RbeeError as error:
        return Finding("home", Verdict.PROBLEM, error.message, error.hint)
    return Finding("home", Verdict.OK, str(settings.paths.home))


def _disk(settings: Settings) -> Finding:
    try:
        free = shutil.disk_usage(settings.paths.home).free
    except OSError as error:
        return Finding("disk", Verdict.PROBLEM, f"cannot be read: {error.strerror}")
    found = f"{size_text(free)} free"
    if free < _LOW_DISK_BYTES:
        return Finding("disk", Verdict.NOTE, found, "A model takes 0.1 to 50 GB. To use another disk, set RBEE_HOME.")
    return Finding("disk", Verdict.OK, found)


def _key(settings: Settings) -> Finding:
    file = settings.keeper.api_key_file or api_key_file(settings.paths)
    try:
        if settings.api_key() is None:
            return Finding("api key", Verdict.OK, "none yet; the first queen creates one")
        if file.exists() and stat.S_IMODE(file.stat().st_mode) & 0o077:
            return Finding("api key", Verdict.PROBLEM, f"other users can read {file}", f"Run: chmod 600 {file}")
    except RbeeError as error:
        return Finding("api key", Verdict.PROBLEM, error.message, error.hint)
    return Finding("api key", Verdict.OK, str(file) if file.exists() else "from the environment")


def _confinement() -> Iterator[Finding]:
    if sys.platform != "linux":
        return
    version = landlock.abi_version()
    if version:
        yield Finding("confinement", Verdict.OK, f"workers read nothing but their model (Landlock {version})")
    else:
        advice = "Workers can read what the hive can. Use Linux 5.13 or newer, with landlock among its modules (lsm=)."
        yield Finding("confinement", Verdict.NOTE, "the kernel has no Landlock", advice)


def _queen(settings: Settings) -> Finding:
    try:
        version = probe(settings)
    except RbeeError as error:
        return Finding("queen", Verdict.PROBLEM, error.message, error.hint)
    if version is None:
        return Finding("queen", Verdict.OK, f"not running; infer starts one at {settings.queen_url}")
    return Finding("queen", Verdict.OK, f"version {version} at {settings.queen_url}")
