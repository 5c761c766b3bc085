"""The parts of `make setup`: pinned packages, the kind of a machine, steps that fail with their reason."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rbee.fleet.kinds import cache_home
from tools import constraints, llama_wheel, packages
from tools.llama_wheel import Kind
from tools.longstep import StepError, long, quick

KIND = Kind("0.3.36", "linux", "x86_64", "glibc-2.36", "avx avx2 fma", "cpu", llama_wheel.FLAGS)


def test_pins_are_read_with_their_hashes(tmp_path: Path) -> None:
    """Each package's lines are found by its normalised name, markers and hashes included, comments left out."""
    file = tmp_path / "constraints.txt"
    file.write_text("# made by hand\nRuamel.YAML==0.19.1 ; python_version > '3' \\\n    --hash=sha256:00\nuv==1.0\n")

    blocks = constraints.pinned(file)

    assert list(blocks) == ["ruamel-yaml", "uv"]
    assert blocks["ruamel-yaml"].endswith("    --hash=sha256:00\n")
    assert constraints.version_of(blocks["ruamel-yaml"]) == "0.19.1"


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
def test_another_kind_of_machine_has_another_folder(change: dict[str, object]) -> None:
    """Whatever the wheel's machine code depends on makes a kind of its own."""
    assert replace(KIND, **change).folder != KIND.folder  # type: ignore[arg-type]


def test_the_same_kind_has_the_same_folder() -> None:
    """A later checkout on the same machine looks in the same place."""
    assert Kind.of_this_machine("0.3.36").folder == Kind.of_this_machine("0.3.36").folder


def test_a_wheel_in_the_cache_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cache lies outside the checkout, where XDG_CACHE_HOME says, and what is in it is used."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert llama_wheel.locate(KIND) is None

    wheel = cache_home() / "wheels" / KIND.folder / "llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl"
    wheel.parent.mkdir(parents=True)
    wheel.touch()

    assert llama_wheel.locate(KIND) == wheel


def test_a_missing_compiler_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with a C compiler but no C++ compiler is told what to install, before minutes pass."""
    (tmp_path / "gcc").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)

    with pytest.raises(StepError, match=r"needs a C\+\+ compiler.*\n.*apt-get install g\+\+"):
        llama_wheel.check_compilers()


def test_a_failed_step_shows_the_end_of_its_log(tmp_path: Path) -> None:
    """When a long step fails, what it printed last is in the message, with the place of the whole log."""
    log = tmp_path / "log"
    script = "print('all was well'); print('[3/7] then it broke'); raise SystemExit(3)"

    with pytest.raises(StepError, match="then it broke") as raised:
        long("building", [sys.executable, "-c", script], log=log)

    assert str(log) in str(raised.value)


def test_a_failed_command_shows_its_output() -> None:
    """When a short command fails, the message has the command and all it printed."""
    with pytest.raises(StepError, match="no such thing"):
        quick([sys.executable, "-c", "import sys; sys.exit('no such thing')"])


def test_pips_own_settings_are_handed_to_uv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where pip is set to look, uv looks too; what the person set for uv itself stays."""
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://mirror.example/simple\nextra-index-url = https://a.example\n  https://b.example\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_FIND_LINKS", "wheels more-wheels")
    monkeypatch.setenv("UV_INDEX_STRATEGY", "first-index")

    settings = packages._uv_settings(Path(sys.executable))

    assert settings["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert settings["UV_INDEX"].endswith("https://a.example https://b.example")
    assert settings["UV_FIND_LINKS"] == "wheels,more-wheels"
    assert "UV_INDEX_STRATEGY" not in settings
