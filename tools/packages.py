"""Install pinned packages, checked by hash, from wherever this machine's pip is set to look.

uv does the work, itself installed by pip and checked by its hash, because it takes seconds where pip takes a minute.
It does not read pip's configuration, so that is handed over; where uv cannot follow, pip does the work.
"""

from __future__ import annotations

import ast
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rbee.fleet import pins
from rbee.fleet.pins import Pin
from tools import constraints
from tools.longstep import StepError, run_quietly, say


class Installer:
    """Installs requirement files, every line of which is pinned by hash, into environments."""

    def __init__(self, python: Path, found: Mapping[str, Pin]) -> None:
        """Put uv into the environment of *python* if it is not there in the pinned version."""
        self._uv = python.parent / "uv"
        if not self._uv.exists() or found["uv"].version not in run_quietly([self._uv, "--version"]):
            with tempfile.TemporaryDirectory() as folder:
                only_uv = pins.write(Path(folder) / "uv.txt", [found["uv"]])
                run_quietly([python, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes", "-r", only_uv])
        self._env = os.environ | _uv_settings(python)

    def install(self, python: Path, requirements: Path) -> None:
        """Install exactly what a file lists. Raises StepError."""
        try:
            # A command-line program must not compile its libraries at every start where Python may not write bytecode.
            self._uv_pip(python, "--compile-bytecode", "--require-hashes", "--no-build", "-r", requirements)
        except StepError as failure:
            say(f"  uv could not install everything ({_last_line(failure)}); trying pip.")
            pip: list[str | Path] = [python, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes"]
            run_quietly([*pip, "--only-binary=:all:", "-r", requirements])

    def install_wheel(self, python: Path, wheel: Path) -> None:
        """Install one wheel that was built here. Raises StepError."""
        self._uv_pip(python, "--offline", "--reinstall", wheel)

    def install_checkout(self, python: Path, root: Path) -> None:
        """Install the checkout itself, editable, with the build tools that *python* already has. Raises StepError."""
        self._uv_pip(python, "--offline", "--no-build-isolation", "--editable", root)
        run_quietly([python, "-m", "compileall", "-q", root / "rbee"])

    def compile(self, arguments: list[str | Path], preferred: Path) -> dict[str, Pin]:
        """Resolve requirements for every platform, keeping the versions that *preferred* has. Raises StepError."""
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "resolved.txt"
            if preferred.exists():
                target.write_bytes(preferred.read_bytes())
            form = ["--universal", "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url"]
            command: list[str | Path] = [
                self._uv,
                "pip",
                "compile",
                "-q",
                "--python-version",
                "3.11",
                *form,
                "--output-file",
                target,
            ]
            # A machine's own extra indexes must not get into everybody's hashes.
            env = {key: value for key, value in self._env.items() if key not in ("UV_INDEX", "UV_FIND_LINKS")}
            run_quietly([*command, *arguments], env=env)
            return constraints.pinned(target)

    def _uv_pip(self, python: Path, *arguments: str | Path) -> None:
        run_quietly([self._uv, "pip", "install", "-q", "--python", python, "--no-deps", *arguments], env=self._env)


def _uv_settings(python: Path) -> dict[str, str]:
    """Say in uv's words where pip is set to look; what the person set for uv itself stays."""
    pip: dict[str, str] = {}
    for line in run_quietly([python, "-m", "pip", "config", "list"]).splitlines():
        key, separator, value = line.partition("=")
        if separator and not line.startswith(" "):
            # pip lists files first and its variables last, in the order in which they win.
            pip[key.removeprefix(":env:.").rpartition(".")[2]] = str(ast.literal_eval(value))
    settings = {
        "UV_DEFAULT_INDEX": pip.get("index-url", ""),
        "UV_INDEX": " ".join(pip.get("extra-index-url", "").split()),
        "UV_FIND_LINKS": ",".join(pip.get("find-links", "").split()),
        "UV_INSECURE_HOST": " ".join(pip.get("trusted-host", "").split()),
        "UV_NO_INDEX": "1" if pip.get("no-index", "").lower() in ("1", "true", "yes", "on") else "",
        "SSL_CERT_FILE": pip.get("cert", ""),
        # pip takes the best version of all indexes; every file's hash is checked, so nothing can be slipped in.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
    }
    return {name: value for name, value in settings.items() if value and not os.environ.get(name)}


def _last_line(failure: StepError) -> str:
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def make_environment(root: Path) -> Path:
    """Return the python of `.venv` in the checkout; make it, or make it anew if it is another version of Python's.

    Raises StepError if this Python cannot make environments.
    """
    folder = root / ".venv"
    python = folder / "bin" / "python"
    wanted = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python.exists():
        ask = "import sys; print(f'{sys.version_info.major}.{sys.version_info.minor}')"
        try:
            if run_quietly([python, "-c", ask]).strip() == wanted:
                return python
        except (StepError, OSError):
            say("  .venv is broken; making it anew.")
    say(f"  python: making .venv with Python {wanted}")
    try:
        run_quietly([sys.executable, "-m", "venv", "--clear", folder])
    except StepError as failure:
        raise StepError(
            f"{failure}\nThis Python cannot make environments. On Debian: apt-get install python3-venv"
        ) from failure
    return python
