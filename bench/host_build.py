"""How long it takes where the controller may not build: the first machine of its kind builds llama.cpp for all.

Real machines that have a compiler, and a controller whose cache is empty.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.rows import Row
from rbee.fleet.build_target import cache_home
from tests.ansible.machines import Controller
from tests.rig.commands import RigError, RigUnavailable
from tests.rig.rig import Rig

# Some six minutes of compiler on two cores, and what an installation takes anyway.
_WITHIN_S = 900.0


def host_build(_rounds: int) -> Iterator[Row]:
    """Install hives on two bare machines, of which the first builds; then once more, with what it built."""
    try:
        with Rig(2, packages=("g++",)) as rig, tempfile.TemporaryDirectory(prefix="rbee-bench-") as home:
            with _empty_cache(Path(home) / "cache"):
                controller = Controller(rig, Path(home))
                yield Row("host_build_first_run", _installed(controller), _WITHIN_S, "promised", "s", "<=1.0")
                wheels = list((cache_home() / "wheels").glob("*/*.whl"))
                if len(wheels) != 1:
                    raise RuntimeError(f"the controller keeps {len(wheels)} wheels after the build: {wheels}")
                again = _installed(controller, changes=False)
            yield Row("host_build_second_run", again, _WITHIN_S, "promised", "s", "<=1.0")
    except (RigUnavailable, RigError) as reason:
        raise RuntimeError(str(reason)) from reason


def _installed(controller: Controller, *, changes: bool = True) -> float:
    began = time.perf_counter()
    report = controller.play("deploy-hives", extra={"rbee_build_on": "host"}).report
    took = time.perf_counter() - began
    for name, host in report.hosts.items():
        if host.cause is not None or bool(host.changed) != changes:
            raise RuntimeError(f"{name} came out {host.verdict.value}, changed {host.changed}, because of {host.cause}")
    for host_ in controller.rig:
        host_.inside("systemctl", "is-active", "rbee-hive")
        if left := host_.inside("find", "/opt/rbee", "-name", ".llama*").stdout:
            raise RuntimeError(f"the build left on {host_.name}: {left}")
    return took


@contextmanager
def _empty_cache(folder: Path) -> Iterator[None]:
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before
