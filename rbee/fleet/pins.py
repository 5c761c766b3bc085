"""Read a constraints file: what may be installed, pinned by version and hash. Needs the standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rbee.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Pin:
    """One distribution: its version, the hashes that its files may have, and its lines as they stand."""

    name: str
    version: str
    hashes: frozenset[str]
    lines: str


def normalize(name: str) -> str:
    """Return a distribution's name in its normalized form."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read(text: str, source: str = "constraints.txt") -> dict[str, Pin]:
    """Parse a constraints file. Raises ConfigError if it pins nothing."""
    blocks: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if found := re.match(r"([A-Za-z0-9._-]+)==", line):
            name = normalize(found[1])
        if name:
            blocks.setdefault(name, []).append(line)
    pins = {}
    for key, lines in blocks.items():
        version = re.match(r"[A-Za-z0-9._-]+==([^\s;\\]+)", lines[0])
        if version is None:
            raise ConfigError(f"no version in: {lines[0]}", path=source)
        hashes = frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", "\n".join(lines)))
        pins[key] = Pin(key, version[1], hashes, "\n".join(lines) + "\n")
    if not pins:
        raise ConfigError("pins no packages", path=source)
    return pins


def versions_only(pins: Iterable[Pin]) -> str:
    """Return the pins as constraints without hashes, which the resolver of pip needs to look at alternatives."""
    return "".join(f"{pin.name}=={pin.version}\n" for pin in pins)


def write(target: Path, wanted: Iterable[Pin]) -> Path:
    """Write a requirements file of these distributions, hashes included, and return its path."""
    target.write_text("".join(pin.lines for pin in wanted), encoding="utf-8")
    return target
