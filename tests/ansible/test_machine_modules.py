"""Whose folders and whose turn it is on a machine: the modules themselves, without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from rbee.contracts.errors import ErrorCode
from tests.support.checkout import ROOT
from tests.support.waiting import eventually

LIBRARY = ROOT / "roles" / "rbee_base" / "library"
LOOK, MARK = "__rbee_base_look", "ansible-playbook"
ALICE, BOB = "alice@desk", "bob@lab"


def call(module_name: str, **arguments: Any) -> dict[str, Any]:
    """Run a module as Ansible does; return what it says."""
    run = subprocess.run(
        [sys.executable, str(LIBRARY / f"{module_name}.py")],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        check=False,
    )
    said: dict[str, Any] = json.loads(run.stdout)
    return said


def take(*folders: Path, **more: Any) -> dict[str, Any]:
    """Take folders for rbee."""
    return call("rbee_folder", state="taken", folders=[{"path": str(path), **more} for path in folders])


def remove(path: Path, *entries: str, **more: Any) -> dict[str, Any]:
    """Remove entries of rbee from a folder."""
    return call("rbee_folder", state="absent", folders=[{"path": str(path), "entries": entries, **more}])


def test_a_folder_of_others_is_not_taken(tmp_path: Path) -> None:
    """A folder that holds anything and bears no mark is refused with what it holds and what to set, and the folder
    beside it, which could be taken, is left alone too.
    """
    full, free = tmp_path / "data", tmp_path / "tools"
    full.mkdir()
    (full / "photos").write_text("mine")

    said = take(free, full, setting="rbee_state_path")

    assert said["failed"]
    assert said["msg"].startswith(f"{ErrorCode.INVALID_REQUEST}: {full} holds what is not rbee's (photos)")
    assert f"Set rbee_state_path to a folder of rbee's own, such as {full}/rbee" in said["msg"]
    assert not free.exists()
    assert [path.name for path in full.iterdir()] == ["photos"]


def test_an_empty_folder_is_taken_once(tmp_path: Path) -> None:
    """An absent or empty folder, a fresh file system too, is marked, and then taken again whatever is in it."""
    absent, empty = tmp_path / "a" / "b", tmp_path / "c"
    (empty / "lost+found").mkdir(parents=True)

    first = take(absent, empty)
    (absent / "models").mkdir()

    assert first["taken"] == [str(absent), str(empty)]
    assert not take(absent, empty)["changed"]


@pytest.mark.parametrize("kind", ["a file", "a link to nowhere"])
def test_what_is_no_folder_is_named(tmp_path: Path, kind: str) -> None:
    """A file or a dangling link where the folder should be is refused by its path."""
    path = tmp_path / "thing"
    path.write_text("") if kind == "a file" else path.symlink_to(tmp_path / "nowhere")

    said = take(path)

    assert said["failed"]
    assert str(path) in said["msg"]


def test_a_removal_takes_only_what_is_ours(tmp_path: Path) -> None:
    """Entries of ours go, what somebody else has put there since stays and is named; an empty folder goes too."""
    shared, own = tmp_path / "shared", tmp_path / "own"
    take(shared, own)
    for folder in (shared, own):
        (folder / "releases" / "1.0").mkdir(parents=True)
        (folder / "models.db-wal").write_text("")
    (shared / "notes").write_text("mine")

    said = remove(shared, "releases", "models.db*")
    gone = remove(own, "releases", "models.db*")

    assert said["left"] == [str(shared / "notes")]
    assert [path.name for path in shared.iterdir()] == ["notes"]
    assert gone["left"] == []
    assert not own.exists()


def test_what_is_kept_keeps_the_mark(tmp_path: Path) -> None:
    """A folder whose models were kept is still rbee's, one from before there were marks too: it can be taken again."""
    folder = tmp_path / "state"
    for name in ("models", "logs"):
        (folder / name).mkdir(parents=True)

    remove(folder, "logs", keep=["models"])

    assert sorted(path.name for path in folder.iterdir()) == [".rbee", "models"]
    assert "failed" not in take(folder)


def test_a_checkout_of_somebody_is_not_removed(tmp_path: Path) -> None:
    """A folder that must prove whose it is, and does not, is left as a whole."""
    (tmp_path / "src" / ".git").mkdir(parents=True)
    (tmp_path / "src" / "work.py").write_text("mine")

    said = remove(tmp_path / "src", "*", proof=".git/rbee")

    assert said["left"] == [str(tmp_path / "src")]
    assert (tmp_path / "src" / "work.py").exists()


def lock(path: Path, operator: str, process: str, *living: str, state: str = "taken", **more: Any) -> dict[str, Any]:
    """Ask for the lock of a machine."""
    return call(
        "rbee_lock", state=state, path=str(path), operator=operator, process=process, living=living or [process], **more
    )


def test_one_run_at_a_time_works_on_a_machine(tmp_path: Path) -> None:
    """A second run is told whose turn it is, until the first one frees the machine; what is freed leaves no file."""
    path = tmp_path / "run.json"

    assert lock(path, ALICE, "10")["mark"] == f"{ALICE}:10"
    refused = lock(path, BOB, "20")
    lock(path, BOB, "20", state="free")
    again = lock(path, ALICE, "11", "10", "11")
    lock(path, ALICE, "10", state="free")

    assert refused["msg"].startswith(f"{ErrorCode.MACHINE_BUSY}: ")
    assert ALICE in refused["msg"]
    assert "failed" in again
    assert not path.exists()
    assert "failed" not in lock(path, BOB, "20")


@pytest.mark.parametrize(
    ("asker", "process", "more"),
    [(ALICE, "11", {}), ("carol@desk", "12", {}), (BOB, "20", {"abandoned_after_s": -1})],
    ids=["the same operator", "another on the same controller", "after its time"],
)
def test_a_lock_whose_run_is_gone_is_taken_over(tmp_path: Path, asker: str, process: str, more: dict[str, Any]) -> None:
    """Who can see that the run no longer lives takes over at once, others after a while; what that run still does on
    the machine is ended first, and a lock that its git has left is removed.
    """
    path, git = tmp_path / "run.json", tmp_path / "clone" / ".git"
    git.mkdir(parents=True)
    (git / "index.lock").write_text("")
    mark = lock(path, ALICE, "10")["mark"]
    with subprocess.Popen(["/bin/sleep", "600"], env={"RBEE_RUN": mark}) as left:
        environ = Path(f"/proc/{left.pid}/environ")
        eventually(lambda: mark in environ.read_text(), within=10, because="the program runs with its own environment")

        said = lock(path, asker, process, checkout=str(git.parent), **more)

        assert left.wait(10) == -9
    assert said["ended"] == [left.pid]
    assert not (git / "index.lock").exists()


def test_processes_that_cannot_be_listed_say_nothing(tmp_path: Path) -> None:
    """Where the controller's own process is not among those that it lists, no other run is taken for dead."""
    path = tmp_path / "run.json"
    lock(path, ALICE, "10")

    assert "failed" in lock(path, ALICE, "11", "")


def test_a_build_ends_with_the_connection_of_its_run(tmp_path: Path) -> None:
    """A module that builds for minutes ends, with what it has started, once nobody reads its output any more."""
    script = tmp_path / "module.py"
    source = (ROOT / "roles/rbee_runtime/library/rbee_release.py").read_text(encoding="utf-8")
    started = tmp_path / "started"
    script.write_text(
        source.partition('if __name__ == "__main__":')[0]
        + "_end_with_the_connection()\nchild = subprocess.Popen(['/bin/sleep', '600'])\n"
        + f"Path({str(started)!r}).write_text(f'{{child.pid}}\\n')\nchild.wait()\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as run:
        eventually(lambda: started.exists() and started.read_text().endswith("\n"), within=10, because="it has begun")
        child = int(started.read_text())
        assert run.poll() is None
        assert run.stdout is not None
        run.stdout.close()

        assert run.wait(10) == -9
    eventually(lambda: not _lives(child), within=10, because="its program ends with it")


def _lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_a_run_knows_its_controller() -> None:
    """What a run looks at gives user and machine, its own process, and that among all others."""
    variables = YAML(typ="safe").load((ROOT / "roles/rbee_base/vars/main.yml").read_text(encoding="utf-8"))

    # As Ansible has it: a process of its own between this one and the shell.
    command = [sys.executable, "-c", f"import subprocess; subprocess.run(['/bin/sh', '-c', {variables[LOOK]!r}])", MARK]
    operator, process, *living = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert operator.endswith(f"@{os.uname().nodename}")
    assert process == str(os.getpid())
    assert living
