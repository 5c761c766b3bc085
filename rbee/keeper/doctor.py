"""Look at this machine the way a first-time user's run will: each finding says what was found and what to do."""

from __future__ import annotations

import platform
import shutil
import stat
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from rbee.config.credentials import api_key_file
from rbee.errors import RbeeError
from rbee.keeper.installer import PROGRAMS
from rbee.keeper.queen.lifecycle import probe
from rbee.keeper.queen.process import find_program
from rbee.keeper.settings import Settings
from rbee.keeper.ui.output import size_text

_LOW_DISK_BYTES = 5_000_000_000


class Verdict(StrEnum):
    """How it is: right, worth knowing, or wrong."""

    RIGHT = "right"
    NOTE = "note"
    WRONG = "wrong"


class Finding(NamedTuple):
    """One line of the check-up."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def run_checks(settings: Settings) -> list[Finding]:
    """Make every check."""
    return [
        Finding("python", Verdict.RIGHT, platform.python_version()),
        *_programs(),
        *_tools(),
        _home(settings),
        _disk(settings),
        _key(settings),
        Finding("config", Verdict.RIGHT, str(settings.file.path or "none, defaults are used")),
        _queen(settings),
    ]


def _programs() -> Iterator[Finding]:
    for name in PROGRAMS:
        try:
            yield Finding(name, Verdict.RIGHT, find_program(name))
        except RbeeError as error:
            yield Finding(name, Verdict.WRONG, "not installed", error.hint)


def _tools() -> Iterator[Finding]:
    for name in ("ssh", "ansible-playbook"):
        found = shutil.which(name)
        advice = "" if found else f"{name} is needed for other machines only; this machine works without."
        yield Finding(name, Verdict.RIGHT if found else Verdict.NOTE, found or "not installed", advice)


def _home(settings: Settings) -> Finding:
    try:
        settings.paths.make(settings.paths.home)
    except RbeeError as error:
        return Finding("home", Verdict.WRONG, error.message, error.hint)
    return Finding("home", Verdict.RIGHT, str(settings.paths.home))


def _disk(settings: Settings) -> Finding:
    try:
        free = shutil.disk_usage(settings.paths.home).free
    except OSError as error:
        return Finding("disk", Verdict.WRONG, f"cannot be read: {error.strerror}")
    found = f"{size_text(free)} free"
    if free < _LOW_DISK_BYTES:
        return Finding("disk", Verdict.NOTE, found, "Models take from 0.1 to 50 GB; RBEE_HOME moves everything.")
    return Finding("disk", Verdict.RIGHT, found)


def _key(settings: Settings) -> Finding:
    file = settings.key_file or api_key_file(settings.paths)
    try:
        if settings.api_key() is None:
            return Finding("api key", Verdict.RIGHT, "none yet; one is made with the first queen")
        if file.exists() and stat.S_IMODE(file.stat().st_mode) & 0o077:
            return Finding("api key", Verdict.WRONG, f"others can read {file}", f"Run: chmod 600 {file}")
    except RbeeError as error:
        return Finding("api key", Verdict.WRONG, error.message, error.hint)
    return Finding("api key", Verdict.RIGHT, str(file) if file.exists() else "from the environment")


def _queen(settings: Settings) -> Finding:
    try:
        version = probe(settings)
    except RbeeError as error:
        return Finding("queen", Verdict.WRONG, error.message, error.hint)
    if version is None:
        return Finding("queen", Verdict.RIGHT, f"none at {settings.queen_url}; infer starts one when it needs it")
    return Finding("queen", Verdict.RIGHT, f"version {version} at {settings.queen_url}")
