"""A reference to a repository means one model of it: all of its parts, and the right quantisation."""

from __future__ import annotations

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.hive.models.file_selection import choose_files
from rbee.hive.models.reference import HubRef, parse_reference

NAMES = [
    "README.md",
    "mmproj-model-f16.gguf",
    "tiny-IQ4_XS.gguf",
    "tiny-Q2_K.gguf",
    "tiny-Q4_K_M.gguf",
    "tiny-Q4_K_S.gguf",
    "tiny.q8_0.gguf",
    "Q6_K/tiny-Q6_K-00001-of-00002.gguf",
    "Q6_K/tiny-Q6_K-00002-of-00002.gguf",
]


def chosen(text: str, names: list[str] | None = None) -> list[str]:
    ref = parse_reference(text)
    assert isinstance(ref, HubRef)
    return choose_files(ref, NAMES if names is None else names)


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("hf:a/b", ["tiny-Q4_K_M.gguf"]),
        ("hf:a/b:q4_k_s", ["tiny-Q4_K_S.gguf"]),
        ("hf:a/b:Q8_0", ["tiny.q8_0.gguf"]),
        ("hf:a/b:tiny-Q2_K.gguf", ["tiny-Q2_K.gguf"]),
        ("hf:a/b:mmproj-model-f16.gguf", ["mmproj-model-f16.gguf"]),
        ("hf:a/b:Q6_K", NAMES[-2:]),
        (f"hf:a/b:{NAMES[-2]}", NAMES[-2:]),
    ],
)
def test_the_reference_says_which(text: str, files: list[str]) -> None:
    """A quantisation, a file or the default picks one model, and a split one whole."""
    assert chosen(text) == files


def test_without_the_default_the_first_is_taken() -> None:
    """A repository without Q4_K_M gives its first GGUF."""
    assert chosen("hf:a/b", ["z.gguf", "a.Q8_0.gguf", "readme"]) == ["a.Q8_0.gguf"]


@pytest.mark.parametrize("text", ["hf:a/b:Q4_K", "hf:a/b:Q5_K_M", "hf:a/b:none.gguf"])
def test_what_is_not_there_names_what_is(text: str) -> None:
    """A quantisation or file that is missing is MODEL_NOT_FOUND with what the repository has."""
    with pytest.raises(RbeeError) as caught:
        chosen(text)

    assert caught.value.code is ErrorCode.MODEL_NOT_FOUND
    assert "Q4_K_M" in caught.value.message


def test_a_lost_part_is_found_out_before_the_download() -> None:
    """A split model that lacks a part is refused before a byte is fetched."""
    with pytest.raises(RbeeError, match="00002-of-00002"):
        chosen("hf:a/b:Q6_K", NAMES[:-1])
