"""A reference to a repository means one model of it: all of its parts, and the right quantisation."""

from __future__ import annotations

import re

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.hive.models.file_selection import choose_files, explain_choice
from rbee.model_reference import HubRef, parse_reference

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
# As repositories of large models have them: a folder for each quantisation, and one name for all.
FOLDERS = [
    "BF16/big-00001-of-00002.gguf",
    "BF16/big-00002-of-00002.gguf",
    "Q8_0/big-00001-of-00002.gguf",
    "Q8_0/big-00002-of-00002.gguf",
    "UD/big-Q5_K_M.gguf",
    "old/big-Q5_K_M.gguf",
    "extra/small.gguf",
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
        (f"hf:a/b:{NAMES[-1]}", NAMES[-2:]),
        ("hf:a/b@v1.0:Q8_0", ["tiny.q8_0.gguf"]),
    ],
)
def test_the_reference_says_which(text: str, files: list[str]) -> None:
    """A quantisation, a file or the default picks one model, and a split one whole."""
    assert chosen(text) == files


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["m-BF16.gguf", "m-Q2_K.gguf", "m-Q5_K_M.gguf", "m-Q8_0.gguf"], "m-Q5_K_M.gguf"),
        (["m-BF16.gguf", "m-IQ4_XS.gguf", "m-UD-Q4_K_XL.gguf", "m-Q4_0.gguf"], "m-UD-Q4_K_XL.gguf"),
        (["m-Q3_K_M.gguf", "m-Q8_0.gguf", "m-Q6_K.gguf"], "m-Q6_K.gguf"),
        (["m-F32.gguf", "m-BF16.gguf", "m-F16.gguf", "m.gguf"], "m.gguf"),
        (["m-F32.gguf", "m-BF16.gguf"], "m-BF16.gguf"),
        (["z.gguf", "a.Q8_0.gguf", "readme"], "a.Q8_0.gguf"),
        (["BF16/m-Q4_K_S.gguf", "m-F16.gguf"], "BF16/m-Q4_K_S.gguf"),
    ],
)
def test_without_the_default_the_nearest_is_taken(names: list[str], expected: str) -> None:
    """A repository without Q4_K_M gives the model whose quantisation is the first of a list that it has."""
    assert chosen("hf:a/b", names) == [expected]


@pytest.mark.parametrize(
    "other",
    [
        "mmproj-tiny-Q4_K_M.gguf",
        "tiny-Q4_K_M-mmproj.gguf",
        "tiny.imatrix-Q4_K_M.gguf",
        "imatrix_Q4_K_M.gguf",
        "adapter-LoRA-Q4_K_M.gguf",
        "lora/tiny-Q4_K_M.gguf",
        "mtp-tiny-Q4_K_M.gguf",
        "extra/MTP_tiny-Q4_K_M.gguf",
        "ggml-vocab-tiny-Q4_K_M.gguf",
    ],
)
def test_what_belongs_to_a_model_is_not_the_model(other: str) -> None:
    """Projectors, importance matrices, adapters, draft heads and vocabularies are taken only where they are named."""
    split = ["tiny-Q4_K_M-00001-of-00002.gguf", "tiny-Q4_K_M-00002-of-00002.gguf"]

    for text in ("hf:a/b", "hf:a/b:Q4_K_M"):
        assert chosen(text, [other, *split]) == split
        with pytest.raises(RbeeError, match=re.escape(other)) as caught:
            chosen(text, [other])
        assert caught.value.code is ErrorCode.MODEL_NOT_FOUND
    assert chosen(f"hf:a/b:{other}", [other, *split]) == [other]


@pytest.mark.parametrize("name", ["explora-Q4_K_M.gguf", "GLM-MTP-Q4_K_M.gguf", "Vocabulary-Q4_K_M.gguf"])
def test_a_model_may_have_such_letters_in_its_name(name: str) -> None:
    """Only whole words of a name say that a file is no model."""
    assert chosen("hf:a/b", [name]) == [name]


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("hf:a/b", ["UD/big-Q5_K_M.gguf"]),
        ("hf:a/b:BF16", FOLDERS[:2]),
        ("hf:a/b:q8_0", FOLDERS[2:4]),
        ("hf:a/b:Q8_0/big-00002-of-00002.gguf", FOLDERS[2:4]),
        ("hf:a/b:BF16/big-00001-of-00002.gguf", FOLDERS[:2]),
        ("hf:a/b:old/Q5_K_M", ["old/big-Q5_K_M.gguf"]),
        ("hf:a/b:UD", ["UD/big-Q5_K_M.gguf"]),
        ("hf:a/b:extra/small.gguf", ["extra/small.gguf"]),
        ("hf:a/b:small.gguf", ["extra/small.gguf"]),
    ],
)
def test_a_folder_is_a_part_of_the_choice(text: str, files: list[str]) -> None:
    """A file is named with its folder, a quantisation may be that of a folder, and parts are of one folder."""
    assert chosen(text, FOLDERS) == files


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("hf:a/b:big-Q5_K_M.gguf", "has big-Q5_K_M.gguf in 2 folders; it has: UD/big-", "hf:a/b:UD/big-Q5_K_M.gguf"),
        ("hf:a/b:big-00002-of-00002.gguf", "in 2 folders; it has: BF16/big-00001", "BF16/big-00001-of-00002.gguf"),
        ("hf:a/b:new/small.gguf", "has no file new/small.gguf", "hf:a/b:BF16/big-00001-of-00002.gguf"),
        ("hf:a/b:old/Q8_0", "has in old no quantisation Q8_0; it has: Q5_K_M", "hf:a/b:Q5_K_M"),
        ("hf:a/b@v2:Q2_K", "has no quantisation Q2_K", "hf:a/b@v2:BF16"),
    ],
)
def test_what_no_folder_has_or_several_have_is_said(text: str, says: str, hint: str) -> None:
    """A name that is in several folders is not guessed; the hint is a reference that this repository has."""
    with pytest.raises(RbeeError, match=re.escape(says)) as caught:
        chosen(text, FOLDERS)

    assert hint in caught.value.hint
    assert "00002-of" not in caught.value.message.partition(";")[2]


def test_the_quantisation_of_a_file_goes_before_that_of_its_folder() -> None:
    """A file that tells its own quantisation is not taken for that of the folder it lies in."""
    with pytest.raises(RbeeError, match="no quantisation BF16; it has: Q4_K_S"):
        chosen("hf:a/b:BF16", ["BF16/m-Q4_K_S.gguf"])


@pytest.mark.parametrize("text", ["hf:a/b", "hf:a/b:G/x-00002-of-00002.gguf", "hf:a/b:F/x-00001-of-00002.gguf"])
def test_parts_of_two_folders_are_no_model(text: str) -> None:
    """A part that only another folder has is missing, whichever part was named."""
    with pytest.raises(RbeeError, match=r"lacks a part of this model: [FG]/x-0000"):
        chosen(text, ["F/x-00001-of-00002.gguf", "G/x-00002-of-00002.gguf"])


def test_a_repository_without_a_model_says_what_it_has() -> None:
    """Files that are no models are named as what they are, and the advice is not to take one of them."""
    with pytest.raises(RbeeError) as caught:
        chosen("hf:a/b", ["README.md", "mmproj-f16.gguf", "imatrix.gguf", "x-lora.gguf"])
    assert "none of them is a model; it has: imatrix.gguf (an importance matrix), mmproj-f16.gguf (a pro" in str(
        caught.value
    )
    assert caught.value.hint.startswith("Name a repository that has the model")

    with pytest.raises(RbeeError, match="has no GGUF file; it has: adapter, imatrix") as caught:
        chosen("hf:a/b", ["imatrix", "adapter"])
    assert caught.value.hint.startswith("Name a repository that has the model")


def test_the_choice_is_explained() -> None:
    """What was taken is told by its name, and why where that is not the default."""
    assert explain_choice(HubRef("a/b"), ["m-Q5_K_M.gguf"]) == "taking m-Q5_K_M.gguf, because a/b has no Q4_K_M"
    assert explain_choice(HubRef("a/b"), ["m-Q4_K_M.gguf"]) == "taking m-Q4_K_M.gguf"
    assert explain_choice(HubRef("a/b", quant="Q6_K"), NAMES[-2:]) == f"taking {NAMES[-2]}, 2 parts"


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
