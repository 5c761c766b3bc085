"""Set up `.venv` in this checkout: pinned packages, the llama.cpp wheel and rbee, unless nothing has changed."""

from __future__ import annotations

import fcntl
import hashlib
import sys
import time
from pathlib import Path

from tools.constraints import CONSTRAINTS, ROOT, pinned

STAMP = ROOT / ".venv" / ".rbee-setup"
_INPUTS = (
    "constraints.txt",
    "pyproject.toml",
    "rbee/fleet/build_target.py",
    "rbee/fleet/llama_build.py",
    "tools/setup_env.py",
    "tools/packages.py",
    "tools/llama_wheel.py",
)


def main() -> int:
    """Set up the environment and print the steps; a run without changes does nothing."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this runs before anything has checked
        print(f"rbee needs Python 3.11 or newer, this is {sys.version.split()[0]}. Try: make PYTHON=python3.11 setup")
        return 1
    # Only one setup of a checkout runs at a time; the second one then has nothing to do.
    with CONSTRAINTS.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if STAMP.exists() and STAMP.read_text(encoding="utf-8") == _fingerprint():
            return 0
        return _set_up()


def _set_up() -> int:
    # Imported here: an unchanged setup must be fast.
    from rbee.fleet import pins
    from rbee.fleet.build_target import LLAMA
    from rbee.fleet.llama_build import ONLY_FOR_BUILDS
    from tools import llama_wheel
    from tools.longstep import StepError, say
    from tools.packages import Installer, make_environment

    start = time.monotonic()
    say("Setting up rbee in .venv")
    try:
        python = make_environment(ROOT)
        STAMP.unlink(missing_ok=True)
        found = pinned()
        installer = Installer(python, found)
        wanted = [pin for pin in found.values() if pin.name not in (LLAMA, *ONLY_FOR_BUILDS)]
        say(f"  packages: {len(wanted)}, each verified by its hash")
        installer.install(python, pins.write(STAMP.with_name(".requirements.txt"), wanted))
        installer.install_wheel(python, llama_wheel.ensure(found))
        installer.install_checkout(python, ROOT)
    except StepError as failure:
        print(f"\nSetup stopped: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nSetup was interrupted; run it again to continue.", file=sys.stderr)
        return 130
    STAMP.write_text(_fingerprint(), encoding="utf-8")
    say(f"  ready in {time.monotonic() - start:.0f} s")
    return 0


def _fingerprint() -> str:
    digest = hashlib.sha256(sys.version.encode())
    for path in (*(ROOT / name for name in _INPUTS), *sorted((ROOT / "rbee" / "native").iterdir())):
        digest.update(path.read_bytes())
    # An environment contains its own path, so a checkout that was moved is set up again.
    digest.update(str(Path(ROOT).resolve()).encode())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
