"""Install pinned packages, verified by hash, from the indexes that this machine's pip is configured for.

uv installs them, in seconds instead of pip's minute; pip installs uv, verified by hash. uv does not read pip's
configuration, so it is translated; if uv fails, pip installs the packages.
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
    """An installer of requirement files, every line of which is pinned by hash."""

    def __init__(self, python: Path, found: Mapping[str, Pin]) -> None:
        """Install uv into the environment of *python* unless the pinned version is there."""
        self._uv = python.parent / "uv"
        if not self._uv.exists() or found["uv"].version not in run_quietly([self._uv, "--version"]):
            with tempfile.TemporaryDirectory() as folder:
                only_uv = pins.write(Path(folder) / "uv.txt", [found["uv"]])
                run_quietly([python, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes", "-r", only_uv])
        self._env = os.environ | _uv_settings(python)

    def install(self, python: Path, requirements: Path) -> None:
        """Install exactly the packages of a file. Raises StepError."""
        try:
            # If Python cannot write bytecode, a command-line program would compile its libraries at every start.
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
            # The lock file must not contain hashes from this machine's extra indexes.
            env = {key: value for key, value in self._env.items() if key not in ("UV_INDEX", "UV_FIND_LINKS")}
            run_quietly([*command, *arguments], env=env)
            return constraints.pinned(target)

    def _uv_pip(self, python: Path, *arguments: str | Path) -> None:
        run_quietly([self._uv, "pip", "install", "-q", "--python", python, "--no-deps", *arguments], env=self._env)


def _uv_settings(python: Path) -> dict[str, str]:
    """Return pip's configuration as uv's variables; those that are set already are kept."""
    pip: dict[str, str] = {}
    for line in run_quietly([python, "-m", "pip", "config", "list"]).splitlines():
        key, separator, value = line.partition("=")
        if separator and not line.startswith(" "):
            # pip lists files first and its variables last; later ones take precedence.
            pip[key.removeprefix(":env:.").rpartition(".")[2]] = str(ast.literal_eval(value))
    settings = {
        "UV_DEFAULT_INDEX": pip.get("index-url", ""),
        "UV_INDEX": " ".join(pip.get("extra-index-url", "").split()),
        "UV_FIND_LINKS": ",".join(pip.get("find-links", "").split()),
        "UV_INSECURE_HOST": " ".join(pip.get("trusted-host", "").split()),
        "UV_NO_INDEX": "1" if pip.get("no-index", "").lower() in ("1", "true", "yes", "on") else "",
        "SSL_CERT_FILE": pip.get("cert", ""),
        # As pip does; it is safe because the hash of every file is verified.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
    }
    return {name: value for name, value in settings.items() if value and not os.environ.get(name)}


def _last_line(failure: StepError) -> str:
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def make_environment(root: Path) -> Path:
    """Return the python of the checkout's `.venv`; create it if it is missing or has another Python version.

    Raises StepError if this Python cannot create environments.
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
            say("  .venv is broken; creating it again.")
    say(f"  python: creating .venv with Python {wanted}")
    try:
        run_quietly([sys.executable, "-m", "venv", "--clear", folder])
    except StepError as failure:
        raise StepError(
            f"{failure}\nThis Python cannot create virtual environments. On Debian: apt-get install python3-venv"
        ) from failure
    return python
