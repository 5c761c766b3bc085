"""The build of the llama.cpp wheel: once for each kind, from pinned files, with an end that is told."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.fleet import llama_build, pins
from rbee.fleet.build_target import NATIVE, BuildTarget, cmake_args, wheel_folder
from rbee.fleet.pins import Pin
from tests.support.checkout import ROOT

# A project that builds itself in no time, and writes down with which flags.
BACKEND = """
import os, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    if "BROKEN" in os.environ:
        raise SystemExit("ggml.c:1: error: expected ';'")
    name = "llama_cpp_python-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        wheel.writestr("flags", os.environ["CMAKE_ARGS"])
        info = "llama_cpp_python-1.0.dist-info/"
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: llama-cpp-python\\nVersion: 1.0\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return name
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@pytest.fixture(name="found")
def _found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Pin]:
    """Pin packages that pip finds in a folder, with an empty cache for what is built from them."""
    index = tmp_path / "index"
    index.mkdir()
    for name in llama_build.BUILDERS:
        plain = name.replace("-", "_")
        with zipfile.ZipFile(index / f"{plain}-1.0-py3-none-any.whl", "w") as wheel:
            info = f"{plain}-1.0.dist-info/"
            wheel.writestr(info + "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(info + "RECORD", "")
    with tarfile.open(index / "llama_cpp_python-1.0.tar.gz", "w:gz") as source:
        for file, text in {"backend.py": BACKEND, "pyproject.toml": PROJECT}.items():
            entry = tarfile.TarInfo(f"llama_cpp_python-1.0/{file}")
            entry.size = len(text.encode())
            source.addfile(entry, io.BytesIO(text.encode()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lines = ""
    for path in sorted(index.iterdir()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines += f"{path.name.split('-')[0]}==1.0 --hash=sha256:{digest}\n"
    return pins.read(lines)


def test_a_wheel_is_built_once_for_its_kind(found: dict[str, Pin]) -> None:
    """The wheel is built with the flags of the kind, kept with the kind written beside it, and not built again."""
    target = BuildTarget.of_this_machine("1.0")

    wheel = llama_build.build(target, found)

    assert wheel.parent == wheel_folder(target)
    assert _flags(wheel) == cmake_args(target.flags, NATIVE)
    written = json.loads((wheel.parent / "kind.json").read_text(encoding="utf-8"))
    assert written == dataclasses.asdict(target) | {"flags": list(target.flags)}
    assert llama_build.build(target, {}) == wheel


def test_other_flags_get_a_wheel_of_their_own(found: dict[str, Pin]) -> None:
    """A second kind is built from the same source anew, whatever pip remembers of the first."""
    target = BuildTarget.of_this_machine("1.0")
    other = dataclasses.replace(target, flags=("-DGGML_CUDA=ON",))

    llama_build.build(target, found)

    assert _flags(llama_build.build(other, found)).split()[0] == "-DGGML_CUDA=ON"


def test_a_failed_build_keeps_nothing(found: dict[str, Pin], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the compiler said last is in the message, and the next build begins anew."""
    target = BuildTarget.of_this_machine("1.0")
    monkeypatch.setenv("BROKEN", "1")

    with pytest.raises(RbeeError, match="expected ';'") as raised:
        llama_build.build(target, found)

    assert raised.value.code is ErrorCode.BACKEND_UNAVAILABLE
    assert [path.name for path in wheel_folder(target).parent.iterdir()] == [f".{target.folder}.lock"]


def test_a_missing_compiler_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with a C compiler but no C++ compiler is told what to install, before minutes pass."""
    (tmp_path / "gcc").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)

    with pytest.raises(RbeeError, match=r"needs a C\+\+ compiler") as raised:
        llama_build.check_compilers()

    assert "apt-get install g++" in raised.value.hint


def test_the_set_up_needs_nothing_that_it_installs() -> None:
    """All of `make setup` can be imported by a Python that has the standard library only."""
    modules = "tools.setup_env, tools.packages, tools.llama_wheel"

    done = subprocess.run([sys.executable, "-S", "-c", f"import {modules}"], cwd=ROOT, capture_output=True, check=False)

    assert done.stderr == b""
    assert done.returncode == 0


def _flags(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read("flags").decode()
