"""What is checked of an archive before anything of it runs: by the modules themselves, without a machine."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkout import ROOT

LIBRARY = ROOT / "roles" / "rbee_runtime" / "library"
UV = b"the program that makes the environment"


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


def archive_at(path: Path, wheel: str = "uv-1.0-py3-none-any.whl") -> str:
    """Pack an archive with one wheel; return its hash."""
    with tarfile.open(path, "w") as tar:
        entry = tarfile.TarInfo(wheel)
        entry.size = len(UV)
        tar.addfile(entry, io.BytesIO(UV))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_archive_that_is_another_is_not_used(tmp_path: Path) -> None:
    """An archive whose hash is not the controller's is refused before it is unpacked."""
    archive = tmp_path / "wheels.tar"
    archive_at(archive)

    said = call(
        "rbee_release",
        checkout=str(tmp_path),
        archive=str(archive),
        sha256="0" * 64,
        user="root",
        releases=str(tmp_path / "releases"),
        name="1.0-abc",
        wants={"extras": []},
    )

    assert said["failed"]
    assert said["msg"].startswith("CHECKSUM_MISMATCH: ")
    assert not (tmp_path / "releases").exists()


def test_a_kit_that_is_another_is_not_used(tmp_path: Path) -> None:
    """The source and tools for a build of llama.cpp are checked as a whole before any of it runs."""
    kit = tmp_path / "kit.tar"
    archive_at(kit)

    said = call("rbee_llama", kit=str(kit), sha256="0" * 64, target=str(tmp_path / "wheel"), flags="")

    assert said["failed"]
    assert said["msg"].startswith("CHECKSUM_MISMATCH: ")
    assert not (tmp_path / "wheel").exists()


@pytest.mark.parametrize(
    ("name", "pinned", "right"),
    [
        ("uv-1.0-py3-none-any.whl", hashlib.sha256(UV).hexdigest(), True),
        ("uv-1.0-py3-none-any.whl", "0" * 64, False),
        ("stranger-1.0-py3-none-any.whl", hashlib.sha256(UV).hexdigest(), False),
        ("llama_cpp_python-1.0-py3-none-any.whl", "0" * 64, True),
    ],
    ids=["pinned", "another", "not pinned at all", "built for this kind of machine"],
)
def test_a_wheel_is_what_the_commit_pins(tmp_path: Path, name: str, pinned: str, right: bool) -> None:
    """Every wheel has a hash of constraints.txt of the commit, but for the one that is built, which has none there."""
    archive = tmp_path / "wheels.tar"
    constraints = f"# pins\nother==2.0 \\\n    --hash=sha256:{'1' * 64}\nuv==1.0 \\\n    --hash=sha256:{pinned}\n"
    (tmp_path / "constraints.txt").write_text(constraints)

    said = call(
        "rbee_release",
        checkout=str(tmp_path),
        archive=str(archive),
        sha256=archive_at(archive, name),
        user="root",
        releases=str(tmp_path / "releases"),
        name="1.0-abc",
        wants={"extras": []},
    )

    # None of these is a real program, so that what passes the check fails later, and by something else.
    assert said["failed"]
    assert (f"{name} is not the file that constraints.txt of the commit pins" in said["msg"]) is not right
