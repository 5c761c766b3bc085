"""What daemons do on a disk that is full: say so, keep what they have, and let room be made."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import Result
from tests.support.gguf_files import write_gguf
from tests.support.hives import StartHive
from tests.support.hub import Hub
from tests.support.machine import Machine
from tests.support.queens import QueenProcess, machine_with_fake

pytestmark = pytest.mark.process
REPO = "bees/tiny-GGUF"


@contextlib.contextmanager
def small_file_system(place: Path, size: str) -> Iterator[None]:
    """Mount a real file system of *size* at *place*."""
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes=200,mode=700", "tmpfs", str(place)]
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


def fill_names(folder: Path) -> Path:
    """Leave no room for another file either; give the folder that has them."""
    others = folder / "somebody-elses-too"
    others.mkdir()
    with contextlib.suppress(OSError):
        for number in itertools.count():
            (others / str(number)).touch()
    return others


def infer(machine: Machine, model: Path) -> Result:
    """Ask the fake engine for an answer."""
    return machine.run("rbee-keeper", "--json", "infer", "--model", f"file://{model}", "--prompt", "hello")


def code_of(result: Result) -> str:
    """Give the code of the error that a command with --json printed."""
    return str(json.loads(result.stdout.splitlines()[-1])["error"]["code"])


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


def test_a_model_in_its_place_is_listed_on_a_full_disk(start_hive: StartHive, tmp_path: Path) -> None:
    """A file that is used where it lies needs no row to be found, for as long as the hive runs."""
    with small_file_system(tmp_path / "home", "6m"):
        hive = start_hive()
        assert hive.get("/v1/models/list")["models"] == []
        fill(tmp_path / "home")
        model = f"file://{write_gguf(tmp_path / 'model.gguf')}"

        hive.post("/v1/models/download", {"model": model})

        assert hive.get("/v1/models/show", model=model)["reference"] == model
        assert [row["reference"] for row in hive.get("/v1/models/list")["models"]] == [model]
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


def test_daemons_start_on_a_disk_without_a_byte(tmp_path: Path) -> None:
    """Where the disk was filled after the key was made, queen, hive and worker start and answer, without a log."""
    with machine_with_fake(tmp_path) as machine, small_file_system(machine.home, "6m"):
        model = write_gguf(tmp_path / "model.gguf")
        assert infer(machine, model).code == 0
        machine.writes_config = False
        shutil.rmtree(machine.home / "run")
        shutil.rmtree(machine.home / "logs")
        filler = fill(machine.home)

        answered = infer(machine, model)

        assert answered.code == 0, answered.stderr
        filler.unlink()


@pytest.mark.parametrize("missing", ["run/queen-rbee.lock", "run/rbee-hive.lock", "logs/rbee-hive.log"])
def test_a_daemon_that_a_full_disk_stops_says_so(missing: str, tmp_path: Path) -> None:
    """A queen or hive that cannot start, nor write into its log, for want of room is told as DISK_FULL."""
    with machine_with_fake(tmp_path) as machine, small_file_system(machine.home, "6m"):
        model = write_gguf(tmp_path / "model.gguf")
        assert infer(machine, model).code == 0
        machine.writes_config = False
        (machine.home / missing).unlink()
        filler, others = fill(machine.home), fill_names(machine.home)

        refused = infer(machine, model)

        assert (refused.code, code_of(refused)) == (1, "DISK_FULL"), refused

        filler.unlink()
        shutil.rmtree(others)
        assert infer(machine, model).code == 0


def test_a_queen_that_is_left_running_is_recorded(tmp_path: Path) -> None:
    """`daemon start` on a full disk says DISK_FULL, whether the queen or its PID file has no room; no queen is left."""
    with machine_with_fake(tmp_path) as machine, small_file_system(machine.home, "6m"):
        model = write_gguf(tmp_path / "model.gguf")
        assert infer(machine, model).code == 0
        machine.writes_config = False
        filler = fill(machine.home)

        no_pid_file = machine.run("rbee-keeper", "--json", "daemon", "start")
        left = machine.processes("queen-rbee")
        (machine.home / "run" / "queen-rbee.lock").unlink()
        others = fill_names(machine.home)
        no_lock = machine.run("rbee-keeper", "--json", "daemon", "start")

        assert (no_pid_file.code, code_of(no_pid_file), left) == (1, "DISK_FULL", []), no_pid_file
        assert (no_lock.code, code_of(no_lock)) == (1, "DISK_FULL"), no_lock

        filler.unlink()
        shutil.rmtree(others)
        assert machine.run("rbee-keeper", "daemon", "start").code == 0
        assert machine.run("rbee-keeper", "daemon", "stop").code == 0
