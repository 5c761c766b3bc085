"""How a hive's settings for the engine reach its workers (stand-ins, as real processes)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from rbee.contracts.devices import Backend
from rbee.contracts.engine import prompt_tokens
from rbee.contracts.workers import WorkerOptions
from rbee.hive.settings import HiveSettings
from rbee.worker.settings import WorkerSettings
from tests.support.gguf_files import write_gguf
from tests.support.hives import HiveProcess, StartHive

pytestmark = pytest.mark.process


def options(hive: HiveProcess, model: str, **asked: Any) -> dict[str, str]:
    """Spawn a worker and read its command line, once it serves: in the midst of exec a process has none."""
    worker = hive.spawn(model, **asked)["worker"]
    hive.serving(worker["worker_id"])
    words = psutil.Process(worker["pid"]).cmdline()
    return {name: value for name, value in pairwise(words) if name.startswith("--")}


def test_every_setting_of_the_engine_reaches_the_worker(start_hive: StartHive, tmp_path: Path) -> None:
    """What is set at the hive stands on the command line of its workers."""
    model = f"file://{write_gguf(tmp_path / 'wide.gguf', embedding=128, heads=4)}"
    fields = {"cache_type": "q8_0", "flash_attention": "true", "prompt_batch": 64, "speculate": 8}
    hive = start_hive(**fields, context_length=512, slots=2)

    given = options(hive, model)

    assert given["--cache-type"] == "q8_0"
    assert given["--flash-attention"] == "true"
    assert given["--prompt-batch"] == "64"
    assert given["--speculate"] == "8"
    assert given["--context-length"] == "512"
    assert given["--slots"] == "2"


def test_what_is_asked_for_a_worker_goes_before_the_settings_of_the_hive(start_hive: StartHive, tmp_path: Path) -> None:
    """Every option of a spawn request stands on the command line in place of the hive's, and in the list of workers."""
    model = f"file://{write_gguf(tmp_path / 'wide.gguf', embedding=128, heads=4)}"
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages }}")
    hive = start_hive(cache_type="bf16", prompt_batch=64, speculate=8, context_length=512, slots=2)
    asked = {
        "slots": 3,
        "context_length": 256,
        "cache_type": "q8_0",
        "flash_attention": True,
        "prompt_batch": 32,
        "speculate": 0,
        "threads": 1,
        "chat_template_file": str(template),
    }
    assert asked.keys() == WorkerOptions.model_fields.keys()

    given = options(hive, model, **asked)

    told = {f"--{name.replace('_', '-')}": str(value) for name, value in asked.items()}
    assert {name: given[name] for name in told} == told | {"--flash-attention": "true"}
    (row,) = hive.workers()
    assert row["options"] == asked
    assert (row["slots_total"], row["context_length"]) == (3, 256)


@pytest.mark.parametrize(
    ("asked", "settings", "option"),
    [
        ({"cache_type": "q8_0"}, {"flash_attention": "false"}, "cache_type"),
        ({"flash_attention": False}, {"cache_type": "q8_0"}, "flash_attention"),
        ({"cache_type": "q8_0", "flash_attention": False}, {}, None),
    ],
)
def test_an_option_that_conflicts_with_a_setting_is_refused(
    start_hive: StartHive, model: str, asked: dict[str, Any], settings: dict[str, Any], option: str | None
) -> None:
    """A cache that needs flash attention is refused without it, whoever said which, with the name of the option."""
    error = start_hive(**settings).refused("/v1/workers/spawn", {"model": model, **asked})

    assert (error["code"], error["param"]) == ("INVALID_REQUEST", option)
    assert all(name in error["message"] for name in ("cache_type q8_0", "flash attention", *asked))


def test_what_is_not_set_is_left_to_the_worker(start_hive: StartHive, model: str) -> None:
    """Without a fields the worker chooses what suits its device."""
    given = options(start_hive(), model)

    assert "--flash-attention" not in given
    assert "--prompt-batch" not in given
    assert (given["--cache-type"], given["--speculate"]) == ("f16", "0")


def test_a_cache_that_the_model_cannot_have_is_refused_by_the_hive(start_hive: StartHive, tmp_path: Path) -> None:
    """Heads that are no whole blocks of a quantised cache are refused before a worker is started."""
    model = f"file://{write_gguf(tmp_path / 'odd.gguf', embedding=160, heads=2)}"
    hive = start_hive(cache_type="q8_0")

    error = hive.refused("/v1/workers/spawn", {"model": model})

    assert error["code"] == "INVALID_REQUEST"
    assert "80 numbers" in error["message"]
    assert "cache_type" in error["hint"]
    assert hive.workers() == []


def test_hive_and_worker_mean_the_same() -> None:
    """Both take the same settings of the engine with the same bounds, words and defaults."""
    for name in ("cache_type", "flash_attention", "prompt_batch", "speculate"):
        ours, theirs = HiveSettings.model_fields[name], WorkerSettings.model_fields[name]

        assert repr(ours) == repr(theirs)
        assert ours.description


def test_a_round_of_prompts_suits_the_device() -> None:
    """A GPU reads more of a prompt at once than a CPU does, for which running streams would wait too long."""
    assert [prompt_tokens(backend, None) for backend in (Backend.CPU, Backend.CUDA, Backend.METAL)] == [128, 512, 512]
    assert prompt_tokens(Backend.CPU, 40) == 40
