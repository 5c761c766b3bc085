"""Stand in for NVIDIA's driver: a small C library that the real pynvml loads as `libnvidia-ml.so.1`.

    gpus = Gpus.build(tmp_path)                                        # two devices of 24 GB
    run(["rbee-hive", "detect", "--json"], env={**os.environ, **gpus.environ()})   # {"cuda": 2, "cpu": 1}

    gpus.set(Gpu(total_mb=24576, used_mb=20000), Gpu(total_mb=8192))   # also while a hive runs
    gpus.set(mode="hang")                                              # the detection's time limit must strike
    gpus.set(mode="mismatch")                                          # a driver that was upgraded under our feet
    gpus.environ(without=True)                                         # a machine where the library is not found

It proves detection, preflight and fail-fast. No model can run on it: a worker that is asked to fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Mode = Literal["ok", "no-graphics", "hang", "hang-memory", "crash", "no-driver", "mismatch", "error", "lost"]

_SOURCE = Path(__file__).with_name("nvml_stub.c")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device, memory in MiB; `energy_mj` are the millijoules that it has taken, None where it does not tell."""

    total_mb: int = 24576
    used_mb: int = 512
    name: str = "NVIDIA GeForce RTX 4090"
    energy_mj: int | None = None


@dataclass(frozen=True, slots=True)
class Gpus:
    """The library in its folder, and the file that says what the machine has."""

    folder: Path

    @classmethod
    def build(cls, folder: Path, *gpus: Gpu, mode: Mode = "ok") -> Gpus:
        """Compile the library below *folder* and set what the machine has; two devices unless said otherwise.

        Raises FileNotFoundError if there is no C compiler: `make setup` asks for one.
        """
        here = cls(folder / "nvml")
        here.folder.mkdir(parents=True, exist_ok=True)
        compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
        if compiler is None:
            raise FileNotFoundError("no C compiler (cc or gcc) on the path")
        target = here.folder / "libnvidia-ml.so.1"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(target), str(_SOURCE)],
            check=True,
            timeout=60,
        )
        here.set(*gpus, mode=mode)
        return here

    def set(
        self,
        *gpus: Gpu,
        mode: Mode = "ok",
        holders: Mapping[int, int] | None = None,
        graphics: Mapping[int, int] | None = None,
    ) -> None:
        """Change what the machine has, at once for every process; without devices: two of 24 GB.

        *holders* are the processes that compute on every device, *graphics* those that draw there, with the MiB that
        each holds.
        """
        lines = [f"mode {mode}"]
        for gpu in gpus or (Gpu(), Gpu()):
            lines.append(f"device {gpu.total_mb} {gpu.used_mb} {gpu.name}")
            lines += [] if gpu.energy_mj is None else [f"energy {gpu.energy_mj}"]
        lines += [f"process {pid} {size_mb}" for pid, size_mb in (holders or {}).items()]
        lines += [f"graphics {pid} {size_mb}" for pid, size_mb in (graphics or {}).items()]
        aside = self._file.with_suffix(".new")
        aside.write_text("\n".join(lines) + "\n", encoding="utf-8")
        aside.replace(self._file)

    def environ(self, *, without: bool = False) -> dict[str, str]:
        """Give the variables that make a process see these devices, or (*without*) none at all."""
        if without:
            return {"LD_LIBRARY_PATH": ""}
        return {"LD_LIBRARY_PATH": str(self.folder), "NVML_STUB_FILE": str(self._file)}

    @property
    def _file(self) -> Path:
        return self.folder / "machine.txt"
