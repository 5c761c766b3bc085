"""What daemons do on a disk that is full: say so, keep what they have, and let room be made."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gguf_files import write_gguf
from tests.support.hives import StartHive
from tests.support.hub import Hub
from tests.support.queens import QueenProcess, machine_with_fake

pytestmark = pytest.mark.process
REPO = "bees/tiny-GGUF"


@contextlib.contextmanager
def small_file_system(place: Path, size: str) -> Iterator[None]:
    """Mount a real file system of *size* at *place*."""
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(place)]
    mount = subprocess.run(command, check=False, capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"no file system can be mounted here: {mount.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(folder: Path) -> Path:
    """Fill the file system below *folder* to the last byte; give the file that does."""
    filler = folder / "somebody-elses"
    for piece in (64 * 1024, 512):
        with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(piece))
    return filler


def test_a_full_disk_loses_no_catalog(start_hive: StartHive, tmp_path: Path) -> None:
    """On a full disk models are listed and used, also touched ones; DISK_FULL is said, and removing one makes room."""
    with small_file_system(tmp_path / "home", "6m"), Hub() as hub:
        for name, size in (("a", 300_000), ("b", 100_000)):
            hub.add(REPO, f"{name}.gguf", write_gguf(tmp_path / f"{name}.gguf", size=size).read_bytes())
        hive = start_hive(env=hub.environ(tmp_path), disk_reserve_gb=0)
        first, second = f"hf:{REPO}:a.gguf", f"hf:{REPO}:b.gguf"
        hive.post("/v1/models/download", {"model": first})
        hive.stream("/v1/models/download/progress", model=first)
        hive.terminate()

        fill(tmp_path / "home")
        hive = start_hive(env=hub.environ(tmp_path), disk_reserve_gb=0)
        (row,) = hive.get("/v1/models/list")["models"]
        Path(row["local_path"]).touch()
        hive.post("/v1/models/download", {"model": first})
        assert hive.stream("/v1/models/download/progress", model=first)[-1][1] == "[DONE]"
        hive.http.post("/v1/models/download", json={"model": second})
        (_, told) = hive.stream("/v1/models/download/progress", model=second)[-1]
        assert told["error"]["code"] == "DISK_FULL"

        assert hive.http.delete(f"/v1/models/{row['id']}").status_code == 204
        assert hive.get("/v1/models/list")["models"] == []
        hive.post("/v1/models/download", {"model": second})
        assert hive.stream("/v1/models/download/progress", model=second)[-1][1] == "[DONE]"
        hive.close()


def test_a_queen_on_a_full_disk_says_so(tmp_path: Path) -> None:
    """A queen that cannot store a key is refused with DISK_FULL, and goes on serving."""
    with machine_with_fake(tmp_path) as machine, small_file_system(machine.home, "6m"):
        queen = QueenProcess(machine)
        filler = fill(machine.home)

        status, error = queen.refused("POST", "/v2/keys/add", {"name": "ann"})

        assert (status, error["code"]) == (507, "DISK_FULL")
        filler.unlink()
        queen.post("/v2/keys/add", {"name": "ann"})
        queen.running.process.kill()
