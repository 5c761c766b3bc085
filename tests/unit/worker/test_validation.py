"""What is refused before it is begun, and what is let go instead."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rbee.contracts.devices import Backend
from rbee.contracts.tasks import Sampling
from rbee.errors import RbeeError
from rbee.worker.engine import fake
from rbee.worker.engine.protocol import EngineOptions
from rbee.worker.generation_request import GenerationRequest
from rbee.worker.validation import check

UNUSABLE = " "


def checked(*requests: GenerationRequest) -> list[GenerationRequest]:
    engine = fake.load(EngineOptions(Path("fake.gguf"), Backend.CPU, 0, slots=2), lambda _share, _layers: True)
    return list(asyncio.run(check(requests, engine)))


def test_a_grammar_that_was_asked_for_must_be_usable() -> None:
    """A grammar of the client's that the engine cannot use is refused."""
    with pytest.raises(RbeeError, match="grammar"):
        checked(GenerationRequest(Sampling(), text="a", grammar=UNUSABLE))


def test_a_grammar_that_nobody_asked_for_is_left_out() -> None:
    """A grammar that only tools brought along is no reason to refuse: every answer goes without it."""
    requests = [
        GenerationRequest(Sampling(), text="a", seed=seed, grammar=UNUSABLE, grammar_required=False) for seed in (1, 2)
    ]

    assert [(request.grammar, request.seed) for request in checked(*requests)] == [(None, 1), (None, 2)]
