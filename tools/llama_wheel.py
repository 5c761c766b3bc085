"""Find or build the llama-cpp-python wheel for this kind of machine, and show the person how far it is.

`rbee.fleet.llama_build` builds and keeps it, once for all checkouts and for the machines of a fleet.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rbee.errors import RbeeError
from rbee.fleet import llama_build
from rbee.fleet.build_target import LLAMA, BuildTarget, find_wheel, wheel_folder
from rbee.fleet.pins import Pin
from tools.longstep import StepError, long, say


def ensure(found: Mapping[str, Pin]) -> Path:
    """Give the wheel of this machine's kind, of the version in *found*; build it if it is the first time.

    Raises StepError if the build fails or the machine lacks what it takes.
    """
    kind = BuildTarget.of_this_machine(found[LLAMA].version)
    if (wheel := find_wheel(kind)) is not None:
        say(f"  llama.cpp: using the wheel built before, {wheel}")
        return wheel
    log = wheel_folder(kind).with_name(f"{kind.folder}.log")

    def run_build(command: list[str | Path], env: Mapping[str, str]) -> None:
        log.unlink(missing_ok=True)
        say(f"  llama.cpp: building {LLAMA} {kind.version} for this kind of machine ({kind.machine}, {kind.backend}).")
        say(
            "    This is the one long step: 4 to 7 minutes on 2 cores. It is done once; later checkouts find the wheel."
        )
        say(f"    Log: {log}")
        # Only a talkative pip passes on the steps of ninja, which are counted from the log.
        long("building llama.cpp", [*command, "--verbose"], log=log, env=env)

    def waiting() -> None:
        say("  llama.cpp: another process is building the wheel; waiting for it.")

    try:
        wheel = llama_build.build(kind, found, run_build=run_build, waiting=waiting)
    except RbeeError as error:
        raise StepError(f"{error.message}\n{error.hint}") from error
    say(f"    Kept as {wheel}")
    return wheel
