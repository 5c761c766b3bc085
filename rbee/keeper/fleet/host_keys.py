"""Ask a person whether the key of a machine that SSH has never seen is the machine's own, and remember that it is."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rbee.config.paths import storage_error
from rbee.fleet.inventory import Node
from rbee.keeper.ui.output import Output

_SCAN_S = 5
_PROGRAM_S = 15.0
_TYPES = "ed25519,ecdsa,rsa"
_OPTIONS = ("ansible_ssh_common_args", "ansible_ssh_extra_args")


class Destination(NamedTuple):
    """Where ssh goes for a machine, and in which file it looks for its key."""

    host: str
    port: int
    known_hosts: Path


def accept(out: Output, nodes: Sequence[Node]) -> bool:
    """Ask for each machine, showing the fingerprints of its keys; return whether any was accepted.

    Without a terminal, or with --json, nothing is asked and nothing accepted.
    """
    if out.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    accepted = [node for node in nodes if _accept_one(out, node)]
    return bool(accepted)


def _accept_one(out: Output, node: Node) -> bool:
    at = destination(node)
    keys = scan(at) if at is not None else ""
    if at is None or not keys:
        return False
    told = [
        f"SSH has never seen {node.name} ({at.host} port {at.port}). It shows these keys:",
        *(f"  {line}" for line in fingerprints(keys)),
        "On the machine itself, ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub prints the right one.",
    ]
    if not out.ask(told, f"Are they the keys of {node.name}?"):
        return False
    remember(keys, at.known_hosts)
    out.say(f"Wrote them to {at.known_hosts}", "🔑")
    return True


def remember(keys: str, file: Path) -> None:
    """Append keys to a known_hosts file. Raises RbeeError where it cannot be written."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        before = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
        with file.open("a", encoding="utf-8") as known:
            known.write(("\n" if before and not before.endswith("\n") else "") + keys)
    except OSError as error:
        raise storage_error(error, file) from error


def destination(node: Node) -> Destination | None:
    """Return where ssh goes, by ssh's own account with all of its files and options; None where it does not tell."""
    words = ["ssh", "-G", *(["-p", str(node.port)] if node.port else [])]
    for name in _OPTIONS:
        value = node.variables.get(name)
        words += shlex.split(value) if isinstance(value, str) and "{{" not in value else []
    said = _output([*words, node.address])
    settings = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
    files = settings.get("userknownhostsfile", "").split()
    if not files or files[0] == "none" or "hostname" not in settings:
        return None
    return Destination(settings["hostname"], int(settings.get("port", 22)), Path(files[0]).expanduser())


def scan(at: Destination) -> str:
    """Return the lines of a machine's keys for a known_hosts file, the name hashed; empty where it shows none."""
    return _output(["ssh-keyscan", "-H", "-T", str(_SCAN_S), "-t", _TYPES, "-p", str(at.port), at.host])


def fingerprints(keys: str) -> list[str]:
    """Return kind and fingerprint of each key, the strongest kind first: `ED25519 SHA256:...`."""
    found = []
    for line in _output(["ssh-keygen", "-lf", "-"], keys).splitlines():
        parts = line.split()
        if len(parts) >= 4:  # bits, fingerprint, comment, (kind)
            found.append(f"{parts[-1].strip('()')} {parts[1]}")
    return sorted(found, key=_rank)


def _rank(line: str) -> int:
    kinds = ("ED25519", "ECDSA", "RSA")
    return next((index for index, kind in enumerate(kinds) if line.startswith(kind)), len(kinds))


def _output(command: list[str], given: str | None = None) -> str:
    """Return what a program of OpenSSH prints; empty where it is not there or takes too long."""
    try:
        done = subprocess.run(
            command, input=given or "", capture_output=True, text=True, timeout=_PROGRAM_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
