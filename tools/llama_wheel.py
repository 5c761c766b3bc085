"""Find or build the llama-cpp-python wheel for this kind of machine, and show the progress.

`rbee.fleet.llama_build` builds and caches it, for all checkouts and for the machines of a fleet.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rbee.errors import RbeeError
from rbee.fleet import llama_build
from rbee.fleet.build_target import LLAMA, BuildTarget, find_wheel, wheel_folder
from rbee.fleet.pins import Pin
from tools.longstep import StepError, run_with_progress, say


def ensure(found: Mapping[str, Pin]) -> Path:
    """Return the wheel for this kind of machine, of the version in *found*; build it if it does not exist.

    Raises StepError if the build fails or a build tool is missing.
    """
    kind = BuildTarget.of_this_machine(found[LLAMA].version)
    if (wheel := find_wheel(kind)) is not None:
        say(f"  llama.cpp: using the cached wheel {wheel}")
        return wheel
    log = wheel_folder(kind).with_name(f"{kind.folder}.log")

    def run_build(command: list[str | Path], env: Mapping[str, str]) -> None:
        log.unlink(missing_ok=True)
        say(f"  llama.cpp: building {LLAMA} {kind.version} for this kind of machine ({kind.machine}, {kind.backend}).")
        say("    This is the only long step: 5 to 9 minutes on 2 cores. Later checkouts use the cached wheel.")
        say(f"    Log: {log}")
        # pip shows ninja's steps, which are read from the log, only if it is verbose.
        run_with_progress("building llama.cpp", [*command, "--verbose"], log=log, env=env)

    def waiting() -> None:
        say("  llama.cpp: another process is building the wheel; waiting for it.")

    try:
        wheel = llama_build.build(kind, found, run_build=run_build, waiting=waiting)
    except RbeeError as error:
        raise StepError(f"{error.message}\n{error.hint}") from error
    say(f"    Cached as {wheel}")
    return wheel
