"""Prepare on the controller what a machine without internet access installs: one archive for each build target.

The role `rbee_runtime` calls it as `python -m rbee.fleet.wheelhouse`: the request as JSON on standard input, the result
as JSON on standard output. An archive that exists is used again. Every file is checked against the hashes that the
installed commit pins; the llama.cpp wheel, which no index has, comes from the cache of `rbee.fleet.build_target`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rbee.config.file_lock import file_lock
from rbee.contracts.errors import ErrorCode
from rbee.errors import ConfigError, RbeeError
from rbee.fleet import llama_build, pins
from rbee.fleet.build_target import LLAMA, NATIVE, BuildTarget, cache_home, find_wheel, wheel_folder
from rbee.fleet.pins import Pin, normalize

# What makes the environment on the machine and builds rbee there from its clone.
TOOLS: Final = ("hatchling", "uv")
_KEEP: Final = 4


@dataclass(frozen=True, slots=True)
class WheelhouseRequest:
    """The facts of a machine, the parts it runs, and the two files of the commit that pin the versions.

    Without parts only *packages* are wanted: those that carry models, which are not part of a release.
    """

    machine: Mapping[str, Any]
    variant: str
    toolkit: str
    extras: tuple[str, ...]
    packages: tuple[str, ...]
    pyproject: str
    constraints: str
    build_on: str

    @classmethod
    def parse(cls, text: str) -> WheelhouseRequest:
        """Parse the request that the role sends."""
        raw = json.loads(text)
        return cls(
            machine=raw["machine"],
            variant=raw["variant"],
            toolkit=raw["toolkit"],
            extras=tuple(sorted(raw["extras"])),
            packages=tuple(sorted(normalize(name) for name in raw["packages"])),
            pyproject=raw["pyproject"],
            constraints=raw["constraints"],
            build_on=raw["build_on"],
        )

    def direct(self) -> list[str]:
        """List what the commit's project file requires for these parts, without llama.cpp. Raises ConfigError."""
        if not self.extras:
            return []
        project = tomllib.loads(self.pyproject)["project"]
        extras = project.get("optional-dependencies", {})
        wanted = list(project.get("dependencies", []))
        for extra in self.extras:
            if extra not in extras:
                raise ConfigError(f"this commit has no part called {extra!r}; it has: {', '.join(extras)}.")
            wanted += extras[extra]
        ours = {line for line in wanted if normalize(re.split(r"[<>=!~ \[;]", line)[0]) != LLAMA}
        return sorted(ours | set(TOOLS))


def main() -> int:
    """Serve one request; an expected failure is one line on standard error and exit code 1."""
    try:
        answer = ensure(WheelhouseRequest.parse(sys.stdin.read()))
    except RbeeError as error:
        sys.stderr.write(f"{error.code.value}: {error.message} {error.hint}\n")
        return 1
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def ensure(request: WheelhouseRequest) -> dict[str, Any]:
    """Return the archive for the request; build it if it is the first of its kind.

    Returns:
        `archive`, its `sha256`, `changed`, and `needed_mb`, what the machine must have free for it; or `archive` empty
        and `build` with what the machine needs to build the llama.cpp wheel itself: `kind`, `kit` (an archive) with its
        `sha256`, `flags` and `keep_in`, the folder to bring the wheel back to.
    """
    found = pins.read(request.constraints)
    wheel = None
    if "worker" in request.extras:
        target = BuildTarget.of_facts(found[LLAMA].version, request.machine, request.variant, request.toolkit)
        wheel = find_wheel(target)
        if wheel is None and llama_build.build_location(target, request.build_on) == "host":
            return {"archive": "", "sha256": "", "changed": True, "build": _build_on_host(request, target, found)}
        if wheel is None:
            wheel = llama_build.build(target, found)
    direct = request.direct()
    key = _digest(
        direct, sorted(pin.lines for pin in found.values()), platforms(request.machine), request.packages, wheel
    )
    archive = _folder() / f"{key}.tar"
    # Ten machines of one kind cause one download.
    with file_lock(_lock(key)):
        if archive.exists():
            archive.touch()
            return {**_described(archive), "changed": False, "build": None}
        with tempfile.TemporaryDirectory(prefix=f".{key}.", dir=_folder()) as name:
            files = Path(name) / "wheels"
            if direct:
                _download(request, files, [*direct, *([str(wheel)] if wheel else [])], found)
            if request.packages:
                _download(request, files, list(request.packages), found, "--no-deps")
            _check(files, found, wheel)
            _pack(files, Path(name) / "archive.tar").replace(archive)
        _delete_old_archives()
    return {**_described(archive), "changed": True, "build": None}


def _described(archive: Path) -> dict[str, Any]:
    """Return an archive with its hash, and the space in MB that a machine must have for it.

    That is the archive, what it holds, and this installed, to which compiled Python adds up to two fifths.
    """
    installed = 0
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.endswith(".whl") and (content := tar.extractfile(member)) is not None:
                with zipfile.ZipFile(content) as wheel:
                    installed += sum(entry.file_size for entry in wheel.infolist())
    needed = 2 * archive.stat().st_size + installed * 7 // 5
    return {"archive": str(archive), "sha256": _sha256(archive), "needed_mb": needed // (1024 * 1024) + 1}


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


def _download(
    request: WheelhouseRequest, target: Path, wanted: list[str], found: Mapping[str, Pin], *options: str
) -> None:
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
    python = ".".join(request.machine["python"]["version"].split(".")[:2])
    architecture = request.machine["machine"]
    tags = [part for tag in platforms(request.machine) for part in ("--platform", tag)]
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
            f"The packages for Python {python} on {architecture} could not be downloaded: {_last(run.stdout)}",
            hint="The controller needs its package index once; later runs use ~/.cache/rbee.",
        )


def _check(files: Path, found: Mapping[str, Pin], wheel: Path | None) -> None:
    """Compare every file with the pinned hashes, and write the list by which the machine installs and checks again."""
    lines = []
    for file in sorted(files.glob("*.whl")):
        name, version = file.name.split("-")[:2]
        digest = _sha256(file)
        built_here = wheel is not None and file.name == wheel.name
        if not built_here and digest not in found[normalize(name)].hashes:
            raise RbeeError(
                ErrorCode.CHECKSUM_MISMATCH,
                f"{file.name} is not the file that constraints.txt pins.",
                details={"sha256": digest},
                hint="Check the package index of the controller; the file was not used.",
            )
        lines.append(f"{normalize(name)}=={version} --hash=sha256:{digest}\n")
    (files / "requirements.txt").write_text("".join(lines), encoding="utf-8")


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _pack(files: Path, archive: Path) -> Path:
    # Wheels are compressed already.
    with tarfile.open(archive, "w") as tar:
        for file in sorted(files.iterdir()):
            tar.add(file, arcname=file.name)
    return archive


def _build_on_host(request: WheelhouseRequest, target: BuildTarget, found: Mapping[str, Pin]) -> dict[str, Any]:
    key = _digest("kit", target.folder, platforms(request.machine), request.machine["python"]["version"])
    kit = _folder() / f"{key}.tar"
    with file_lock(_lock(key)), tempfile.TemporaryDirectory(prefix=f".{key}.", dir=_folder()) as name:
        if not kit.exists():
            files = Path(name) / "wheels"
            _download(request, files, [*llama_build.BUILDERS, "uv"], found)
            _check(files, found, None)
            python = llama_build.build_environment(Path(name), found)
            llama_build.fetch_source(python, found[LLAMA], files)
            shutil.copytree(NATIVE, files / NATIVE.name)
            _pack(files, Path(name) / "kit.tar").replace(kit)
    keep_in = str(wheel_folder(target))
    return {
        "kind": target.folder,
        "kit": str(kit),
        "sha256": _sha256(kit),
        "flags": " ".join(target.flags),
        "keep_in": keep_in,
    }


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()[:16]


def _folder() -> Path:
    folder = cache_home() / "wheelhouses"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _lock(key: str) -> Path:
    return _folder() / f".{key}.lock"


def _delete_old_archives() -> None:
    archives = sorted(_folder().glob("*.tar"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in archives[_KEEP:]:
        file.unlink(missing_ok=True)


def _last(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["pip printed nothing"])[0]


if __name__ == "__main__":
    sys.exit(main())
