"""What is refused before it is begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.contracts.devices import Backend
from rbee.contracts.tasks import Sampling
from rbee.errors import RbeeError
from rbee.worker.engine import fake
from rbee.worker.engine.protocol import EngineOptions
from rbee.worker.generation_request import GenerationRequest
from rbee.worker.validation import check


@pytest.mark.parametrize(
    "request_",
    [
        GenerationRequest(Sampling(), tokens=(2**31,), param="prompt"),
        GenerationRequest(Sampling(), text="a", bias={2**31: 1.0}, param="logit_bias"),
    ],
)
def test_a_token_that_the_model_lacks_is_refused(request_: GenerationRequest) -> None:
    """A prompt or a bias with a token outside the vocabulary is INVALID_REQUEST."""
    engine = fake.load(EngineOptions(Path("fake.gguf"), Backend.CPU, 0, slots=2), lambda _share, _layers: True)

    with pytest.raises(RbeeError, match="outside the vocabulary"):
        check([request_], engine)
