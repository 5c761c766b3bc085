"""A model whose loading has begun before the settings are known: which one, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.engine import llama_library, llama_load, preload
from rbee.worker.engine.protocol import EngineOptions
from tests.support.models import smollm2_path

pytestmark = pytest.mark.engine


def argv(path: Path, backend: str = "cpu") -> list[str]:
    return ["--worker-id", "bees", "--model-path", str(path), "--backend", backend, "--device", "0"]


def options(path: Path) -> EngineOptions:
    return EngineOptions(path, Backend.CPU, 0, 1, context=64)


@pytest.fixture(name="loads")
def _loads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count the files that llama.cpp has loaded."""
    lib = llama_library.functions()
    load = lib.llama_model_load_from_file
    count = 0

    def counted(path: bytes, params: Any) -> Any:
        nonlocal count
        count += 1
        return load(path, params)

    monkeypatch.setattr(lib, "llama_model_load_from_file", counted)
    return lambda: count


def test_a_model_is_loaded_once(loads: Callable[[], int]) -> None:
    """What was loaded early is what the engine works with."""
    begun = preload.start_preload(argv(smollm2_path()), {})
    assert begun is not None

    engine = llama_load.load(options(smollm2_path()), lambda _share, _layers: True, begun)

    assert engine.tokenize("bees", special=False)
    assert loads() == 1
    engine.close()


def test_a_model_that_is_not_wanted_so_is_loaded_as_it_is_wanted(loads: Callable[[], int]) -> None:
    """A guess that the settings do not bear out costs nothing but its time."""
    begun = preload.start_preload(argv(smollm2_path()), {})

    unmapped = replace(options(smollm2_path()), mmap=False)
    llama_load.load(unmapped, lambda _share, _layers: True, begun).close()

    assert loads() == 2


def test_what_is_wrong_with_a_file_is_still_said(tmp_path: Path) -> None:
    """A load that failed early fails once more, with its reason."""
    path = tmp_path / "model.gguf"
    path.write_bytes(smollm2_path().read_bytes()[:100_000])
    begun = preload.start_preload(argv(path), {})
    assert begun is not None

    with pytest.raises(RbeeError) as caught:
        llama_load.load(options(path), lambda _share, _layers: True, begun)

    assert caught.value.code is ErrorCode.MODEL_INVALID
    assert "llama.cpp reports" in caught.value.message


def test_a_load_that_is_called_off_keeps_nothing(loads: Callable[[], int]) -> None:
    """Who no longer wants a model gets CANCELED, also where it is there already."""
    begun = preload.start_preload(argv(smollm2_path()), {})

    with pytest.raises(RbeeError) as caught:
        llama_load.load(options(smollm2_path()), lambda _share, _layers: False, begun)

    assert caught.value.code is ErrorCode.CANCELED
    assert loads() == 1


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (argv(Path("/nowhere/model.gguf")), {}),
        (argv(Path(__file__), "cuda"), {}),
        (["--model-path", __file__], {}),
        ([*argv(Path(__file__)), "--engine", "fake"], {}),
        (argv(Path(__file__)), {"RBEE_WORKER_ENGINE": "fake"}),
        (["--help"], {}),
    ],
    ids=["no file", "a GPU", "no backend", "another engine", "another engine by environment", "no model"],
)
def test_nothing_begins_early_on_a_doubt(arguments: list[str], environ: dict[str, str]) -> None:
    """Only a file that is there, for the CPU and for llama.cpp, is worth the guess."""
    assert preload.start_preload(arguments, environ) is None


def test_a_large_model_shows_its_progress_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long is loaded by whoever tells how far it is, and can be called off."""
    monkeypatch.setattr(llama_library, "PROGRESS_WORTH_BYTES", 1000)

    assert preload.start_preload(argv(smollm2_path()), {}) is None
