"""Prepare on the controller all that a machine without internet installs: one archive for each kind of machine.

Called by the role `rbee_runtime` as `python -m rbee.fleet.wheelhouse`: the wish as JSON on standard input, the answer
as JSON on standard output. What was prepared before costs one look. Every file is checked against the hashes that the
installed commit itself pins; the llama.cpp wheel, which no index has, comes from the cache of `rbee.fleet.kinds`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rbee.config.file_lock import file_lock
from rbee.contracts.errors import ErrorCode
from rbee.errors import ConfigError, RbeeError
from rbee.fleet import llama_build, pins
from rbee.fleet.kinds import LLAMA, Kind, cache_home, locate, wheel_folder
from rbee.fleet.pins import Pin, normal

# What makes the environment on the machine and builds rbee there from its clone.
TOOLS: Final = ("hatchling", "uv")
_KEEP: Final = 4


@dataclass(frozen=True, slots=True)
class Wish:
    """What a machine needs: its facts, the parts it runs, and the two files of the commit that say in which version."""

    machine: Mapping[str, Any]
    variant: str
    toolkit: str
    extras: tuple[str, ...]
    packages: tuple[str, ...]
    pyproject: str
    constraints: str
    build_on: str

    @classmethod
    def parse(cls, text: str) -> Wish:
        """Read the wish as the role sends it."""
        raw = json.loads(text)
        return cls(
            machine=raw["machine"],
            variant=raw["variant"],
            toolkit=raw["toolkit"],
            extras=tuple(sorted(raw["extras"])),
            packages=tuple(sorted(normal(name) for name in raw["packages"])),
            pyproject=raw["pyproject"],
            constraints=raw["constraints"],
            build_on=raw["build_on"],
        )

    def direct(self) -> list[str]:
        """List what the commit's project file asks for, for the wished parts, without llama.cpp. Raises ConfigError."""
        project = tomllib.loads(self.pyproject)["project"]
        extras = project.get("optional-dependencies", {})
        wanted = list(project.get("dependencies", []))
        for extra in self.extras:
            if extra not in extras:
                raise ConfigError(f"this commit has no part called {extra!r}; it has: {', '.join(extras)}.")
            wanted += extras[extra]
        return sorted({line for line in wanted if normal(re.split(r"[<>=!~ \[;]", line)[0]) != LLAMA})


def main() -> int:
    """Answer one wish; an expected failure is one line on standard error and exit code 1."""
    try:
        answer = ensure(Wish.parse(sys.stdin.read()))
    except RbeeError as error:
        sys.stderr.write(f"{error.code.value}: {error.message} {error.hint}\n")
        return 1
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def ensure(wish: Wish) -> dict[str, Any]:
    """Give the archive for the wish; make it if it is the first of its kind.

    Returns:
        `archive` and `changed`; or `archive` empty and `build` with what the machine needs to build the llama.cpp
        wheel itself: `kind`, `kit` (an archive), `flags` and `keep_in`, the folder to bring the wheel back to.
    """
    found = pins.read(wish.constraints)
    wheel = None
    if "worker" in wish.extras:
        kind = Kind.of_facts(found[LLAMA].version, wish.machine, wish.variant, wish.toolkit)
        wheel = locate(kind)
        if wheel is None and llama_build.place(kind, wish.build_on) == "host":
            return {"archive": "", "changed": True, "build": _build_on_host(wish, kind, found)}
        if wheel is None:
            wheel = llama_build.build(kind, found)
    direct = [*wish.direct(), *TOOLS]
    key = _digest(direct, sorted(pin.lines for pin in found.values()), platforms(wish.machine), wish.packages, wheel)
    archive = _folder() / f"{key}.tar"
    # Ten machines of one kind cause one download.
    with file_lock(_lock(key)):
        if archive.exists():
            archive.touch()
            return {"archive": str(archive), "changed": False, "build": None}
        with tempfile.TemporaryDirectory(prefix=f".{key}.", dir=_folder()) as name:
            files = Path(name) / "wheels"
            _download(wish, files, [*direct, *([str(wheel)] if wheel else [])], found)
            if wish.packages:
                _download(wish, files, list(wish.packages), found, "--no-deps")
            _check(files, found, wheel)
            _pack(files, Path(name) / "archive.tar").replace(archive)
        _forget_old()
    return {"archive": str(archive), "changed": True, "build": None}


def platforms(machine: Mapping[str, Any]) -> list[str]:
    """List the wheel platforms that a machine can use, the newest first."""
    if machine["system"] == "darwin":
        return [f"macosx_{major}_0_{machine['machine']}" for major in range(26, 10, -1)]
    name, version = machine["libc"]
    architecture = machine["machine"]
    if name != "glibc":
        raise RbeeError(
            ErrorCode.SSH_COMMAND_FAILED,
            f"The machine's C library is {name or 'unknown'}; wheels are made for glibc.",
            hint="Use a distribution with glibc (Debian, Ubuntu, Fedora, RHEL).",
        )
    newest = int(version.split(".")[1])
    return [
        *(f"manylinux_2_{minor}_{architecture}" for minor in range(newest, 4, -1)),
        *(f"{old}_{architecture}" for old in ("manylinux2014", "manylinux2010", "manylinux1", "linux")),
    ]


def _download(wish: Wish, target: Path, wanted: list[str], found: Mapping[str, Pin], *options: str) -> None:
    if importlib.util.find_spec("pip") is None:
        raise RbeeError(
            ErrorCode.CONFIG_INVALID,
            f"{sys.executable} has no pip, which fetches the packages.",
            hint="python -m ensurepip, or name another Python: rbee_runtime_controller_python",
        )
    target.mkdir(exist_ok=True)
    asked, limits = target.parent / "wanted.txt", target.parent / "limits.txt"
    asked.write_text("\n".join(wanted) + "\n", encoding="utf-8")
    # The llama.cpp wheel is named by its path, and pip refuses a version for it besides.
    limits.write_text(pins.versions_only(pin for pin in found.values() if pin.name != LLAMA), encoding="utf-8")
    python = ".".join(wish.machine["python"]["version"].split(".")[:2])
    tags = [part for tag in platforms(wish.machine) for part in ("--platform", tag)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", str(target)]
    command += ["--implementation", "cp", "--python-version", python, *tags, *options]
    run = subprocess.run(
        [*command, "--requirement", str(asked), "--constraint", str(limits)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if run.returncode:
        raise RbeeError(
            ErrorCode.DOWNLOAD_FAILED,
            f"The packages for Python {python} on {wish.machine['machine']} could not be fetched: {_last(run.stdout)}",
            hint="The controller needs its package index once; later runs use ~/.cache/rbee.",
        )


def _check(files: Path, found: Mapping[str, Pin], wheel: Path | None) -> None:
    """Compare every file with the pinned hashes, and write the list by which the machine installs and checks again."""
    lines = []
    for file in sorted(files.glob("*.whl")):
        name, version = file.name.split("-")[:2]
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        built_here = wheel is not None and file.name == wheel.name
        if not built_here and digest not in found[normal(name)].hashes:
            raise RbeeError(
                ErrorCode.CHECKSUM_MISMATCH,
                f"{file.name} is not the file that constraints.txt pins.",
                details={"sha256": digest},
                hint="Check the package index of the controller; the file was not used.",
            )
        lines.append(f"{normal(name)}=={version} --hash=sha256:{digest}\n")
    (files / "requirements.txt").write_text("".join(lines), encoding="utf-8")


def _pack(files: Path, archive: Path) -> Path:
    # Wheels are compressed already.
    with tarfile.open(archive, "w") as tar:
        for file in sorted(files.iterdir()):
            tar.add(file, arcname=file.name)
    return archive


def _build_on_host(wish: Wish, kind: Kind, found: Mapping[str, Pin]) -> dict[str, Any]:
    key = _digest("kit", kind.folder, platforms(wish.machine), wish.machine["python"]["version"])
    kit = _folder() / f"{key}.tar"
    with file_lock(_lock(key)), tempfile.TemporaryDirectory(prefix=f".{key}.", dir=_folder()) as name:
        if not kit.exists():
            files = Path(name) / "wheels"
            _download(wish, files, [*llama_build.BUILDERS, "uv"], found)
            _check(files, found, None)
            python = llama_build.build_environment(Path(name), found)
            llama_build.fetch_source(python, found[LLAMA], files)
            _pack(files, Path(name) / "kit.tar").replace(kit)
    keep_in = str(wheel_folder(kind))
    return {"kind": kind.folder, "kit": str(kit), "flags": " ".join(kind.flags), "keep_in": keep_in}


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()[:16]


def _folder() -> Path:
    folder = cache_home() / "wheelhouses"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _lock(key: str) -> Path:
    return _folder() / f".{key}.lock"


def _forget_old() -> None:
    archives = sorted(_folder().glob("*.tar"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in archives[_KEEP:]:
        file.unlink(missing_ok=True)


def _last(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["pip said nothing"])[0]


if __name__ == "__main__":
    sys.exit(main())
