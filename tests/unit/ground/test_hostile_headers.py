"""Whatever a file says of itself, reading its header takes bounded time and memory, and ends in words."""

from __future__ import annotations

import asyncio
import math
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.gguf import prefix
from rbee.gguf.fields import MAX_HEADER_BYTES, describe, parse
from rbee.gguf.header import read_header
from rbee.gguf.reader import HeaderError, ShortHeaderError
from rbee.hive.memory import LoadOptions, memory_need
from rbee.hive.models.headers import HeaderReader
from tests.support.gguf_files import write_gguf
from tests.support.waiting import slowness

# Type number -> layout, as the format has them.
LAYOUTS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
MIB = 1024 * 1024


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def value(kind: int, content: Any) -> bytes:
    """Encode a typed value; a list is (type, items), a string its text."""
    if kind == 8:
        return struct.pack("<I", kind) + text(content)
    if kind == 9:
        inner, items = content
        encoded = b"".join(text(item) if inner == 8 else struct.pack("<" + LAYOUTS[inner], item) for item in items)
        return struct.pack("<IIQ", kind, inner, len(items)) + encoded
    return struct.pack("<I" + LAYOUTS[kind], kind, content)


SOUND: dict[str, tuple[int, Any]] = {
    "general.architecture": (8, "llama"),
    "llama.block_count": (4, 4),
    "llama.context_length": (4, 2048),
    "llama.embedding_length": (4, 64),
    "llama.attention.head_count": (4, 4),
    "llama.attention.head_count_kv": (4, 4),
    "tokenizer.ggml.tokens": (9, (8, ["a", "b"])),
}


def header(**changed: tuple[int, Any] | None) -> bytes:
    """Build a sound header, with some keys changed, added or left out (None); `_` in a name stands for a dot."""
    keys = {**SOUND, **{name.replace("__", "."): given for name, given in changed.items()}}
    kept = {name: given for name, given in keys.items() if given is not None}
    body = b"".join(text(name) + value(*given) for name, given in kept.items())
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(kept)) + body


def model(**changed: tuple[int, Any] | None) -> bytes:
    """Build a sound header with some keys changed, and one tensor."""
    start = header(**changed)
    whole = start[:8] + struct.pack("<Q", 1) + start[16:] + text("t") + struct.pack("<IQIQ", 1, 8, 0, 0)
    return whole + bytes(-len(whole) % 32 + 32)


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(RbeeError) as caught:
        read_header(path)
    assert caught.value.code is ErrorCode.MODEL_INVALID
    return caught.value.message


def test_a_sound_header_is_read(tmp_path: Path) -> None:
    """The header that the other tests spoil is a good one."""
    path = tmp_path / "m.gguf"
    path.write_bytes(model())

    assert read_header(path).layers == 4


WRONG: dict[str, list[tuple[int, Any]]] = {
    "general.architecture": [(8, ""), (8, "../x"), (4, 1), (9, (8, ["llama"]))],
    "general.name": [(4, 7)],
    "general.file_type": [(8, "7"), (6, 7.0)],
    "general.alignment": [(4, 0), (4, 33), (4, 1 << 31), (8, "32"), (7, True)],
    "llama.block_count": [(4, 1_500_000), (5, -1), (10, 1 << 63), (8, "x" * 1000), (6, 4.0), (7, True)],
    "llama.context_length": [(4, 0), (10, 1 << 60), (8, "4096"), (12, 1e300)],
    "llama.embedding_length": [(4, 0), (10, 1 << 40), (9, (4, [64]))],
    "llama.feed_forward_length": [(5, -5), (9, (6, [1.0])), (9, (4, [1 << 30]))],
    "llama.vocab_size": [(10, 1 << 50), (8, "x")],
    "llama.attention.head_count": [(8, "x" * 1000), (4, 1 << 20), (9, (4, [])), (9, (5, [-1])), (9, (4, [1] * 5000))],
    "llama.attention.head_count_kv": [(8, "x" * 1000), (12, 4.0), (9, (8, ["4"])), (9, (10, [1 << 60]))],
    "llama.attention.key_length": [(10, 1 << 60), (9, (4, [1]))],
    "llama.attention.value_length": [(5, -1)],
    "split.count": [(2, 3), (8, "1")],
    "tokenizer.ggml.tokens": [(8, "a"), (9, (4, [1])), (9, (8, []))],
    "tokenizer.ggml.scores": [(9, (6, [0.0])), (9, (4, [1, 2])), (9, (6, [0.0, math.nan]))],
    "tokenizer.ggml.token_type": [(9, (5, [1])), (9, (6, [0.0, 0.0]))],
    "tokenizer.ggml.eos_token_id": [(8, "2"), (10, 1 << 40)],
    "tokenizer.chat_template": [(9, (8, ["x"])), (7, True)],
    "llama.rope.freq_base": [(6, math.nan), (6, math.inf), (12, -math.inf)],
}


@pytest.mark.parametrize(("key", "wrong"), [(key, wrong) for key, all_ in WRONG.items() for wrong in all_])
def test_a_field_of_the_wrong_type_or_range_is_named(tmp_path: Path, key: str, wrong: tuple[int, Any]) -> None:
    """A wrong type, a number out of range, NaN and infinity are MODEL_INVALID with the name of the field."""
    message = refusal(tmp_path / "m.gguf", header(**{key: wrong}))

    assert f"'{key}'" in message
    assert len(message) < 600


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (text("t" * 64) + struct.pack("<IQIQ", 1, 8, 0, 0), "name"),
        (text("t") + struct.pack("<I5QIQ", 5, *[1] * 5, 0, 0), "dimensions"),
        (text("t") + struct.pack("<IQIQ", 1, 8, 0, 7), "multiple"),
        (text("t") + struct.pack("<IQIQ", 1, 33, 2, 0), "blocks"),
        (text("t") + struct.pack("<IQIQ", 1, 1 << 62, 0, 0), "truncated"),
        (text("t") + struct.pack("<I4QIQ", 4, *[(1 << 64) - 1] * 4, 0, 0), "truncated"),
        (text("t") + struct.pack("<IQIQ", 1, 8, 0, 1 << 63), "truncated"),
    ],
)
def test_a_tensor_that_cannot_be_is_refused(tmp_path: Path, tensor: bytes, why: str) -> None:
    """Names, dimensions, blocks and offsets of tensors are possible ones, and all tensors lie inside the file."""
    content = bytearray(header() + tensor + bytes(64))
    content[8:16] = struct.pack("<Q", 1)

    assert why in refusal(tmp_path / "m.gguf", bytes(content))


def test_a_key_counts_once(tmp_path: Path) -> None:
    """A header that says a thing twice is refused: readers would differ in which they believe."""
    content = bytearray(header() + text("llama.block_count") + value(4, 9))
    content[16:24] = struct.pack("<Q", len(SOUND) + 1)

    assert "twice" in refusal(tmp_path / "m.gguf", bytes(content))


def outcome(data: bytes) -> str:
    """Read as the hive does, and work with the result; the only other ends are the two errors of the reader."""
    try:
        facts = describe(parse(data, len(data))[0], 1)
    except HeaderError:
        return "refused"
    except ShortHeaderError:
        return "short"
    assert facts["kv_bytes_per_token"] < 1 << 80
    return "read"


KEYS = st.sampled_from([*SOUND, *WRONG, "x", "llama.x", ""])
SCALARS = st.one_of(
    *(st.tuples(st.just(kind), st.integers(-(1 << 7), (1 << 7) - 1)) for kind in (1, 3, 5, 11)),
    *(st.tuples(st.just(kind), st.integers(0, (1 << 8) - 1)) for kind in (0, 2, 4, 10)),
    st.tuples(st.just(10), st.integers(0, (1 << 64) - 1)),
    st.tuples(st.just(12), st.floats()),
    st.tuples(st.just(7), st.booleans()),
)
VALUES = st.one_of(
    SCALARS,
    st.tuples(st.just(8), st.one_of(st.text(max_size=40), st.binary(max_size=40))),
    st.tuples(st.just(9), st.tuples(st.just(8), st.lists(st.binary(max_size=8), max_size=8))),
    st.tuples(st.just(9), st.tuples(st.just(12), st.lists(st.floats(), max_size=8))),
    st.tuples(st.just(9), st.tuples(st.just(10), st.lists(st.integers(0, (1 << 64) - 1), max_size=8))),
)


@settings(max_examples=400, deadline=None)
@given(
    keys=st.dictionaries(KEYS, VALUES, max_size=12),
    spoil=st.lists(st.tuples(st.integers(4, 400), st.binary(max_size=9)), max_size=3),
)
def test_any_header_is_read_or_refused(keys: dict[str, tuple[int, Any]], spoil: list[tuple[int, bytes]]) -> None:
    """Any types and numbers under any key, with any bytes over them, give a header or a refusal, in little memory."""
    content = bytearray(header(**keys))
    for place, raw in spoil:
        content[place : place + len(raw)] = raw
    tracemalloc.start()
    try:
        outcome(bytes(content))
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300), start=st.booleans())
def test_any_bytes_are_read_or_refused(data: bytes, start: bool) -> None:
    """Bytes without any meaning are refused in words too."""
    outcome(b"GGUF\x03\0\0\0" + data if start else data)


def test_a_small_file_that_claims_much_costs_little(tmp_path: Path) -> None:
    """What 1,189 bytes claim, a text for a number and a million layers, costs no memory and is MODEL_INVALID."""
    content = header(**{"llama.attention.head_count_kv": (8, "x" * 900), "llama.block_count": (4, 1_500_000)})
    assert len(content) < 1300
    tracemalloc.start()
    refusal(tmp_path / "m.gguf", content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < MIB


@pytest.mark.parametrize(
    "filler",
    [
        (text("x") + value(9, (0, b"\1" * 4000)), 2000),
        (text("a.block_count") + value(9, (0, b"\1" * 4000)), 2000),
        (text("x") + value(9, (8, [""] * 500)), 2000),
        (text("x") + value(7, True), 65_000),
    ],
)
def test_a_large_header_costs_what_it_is_long(filler: tuple[bytes, int]) -> None:
    """Memory and time grow with the bytes of a header and with nothing that they claim."""
    piece, times = filler
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, times + 1) + piece * times + text("general.name") + value(8, "n")
    tracemalloc.start()
    began = time.process_time()
    assert outcome(data) == "refused"
    took, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 2 * len(data) + MIB
    assert took < 10 * slowness()


def test_a_header_has_a_largest_size(tmp_path: Path) -> None:
    """A header that goes on beyond the largest size is refused, not read on."""
    path = tmp_path / "m.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + text("x") + struct.pack("<IIQ", 9, 0, 1 << 40))
        file.truncate((1 << 40) + MIB)

    with pytest.raises(RbeeError, match=f"longer than {MAX_HEADER_BYTES}"):
        read_header(path)


def test_the_largest_numbers_fit_into_the_estimate(tmp_path: Path) -> None:
    """What passes the check gives an estimate of memory that is a number, however large."""
    largest = {
        "llama.block_count": (4, 4096),
        "llama.embedding_length": (4, 1 << 20),
        "llama.attention.key_length": (4, 1 << 20),
    }
    path = tmp_path / "m.gguf"
    path.write_bytes(model(**largest))

    assert memory_need(read_header(path), LoadOptions(Backend.CPU, 64, 1 << 20)) > 1 << 50


def test_a_worker_reads_the_layers_within_bounds(tmp_path: Path) -> None:
    """The number of layers is read from the first bytes; one that cannot be counts as unknown."""
    path = write_gguf(tmp_path / "m.gguf", layers=7)
    assert prefix.read_layer_count(path) == 7
    for wrong in ((4, 1_500_000), (8, "x"), (5, -1)):
        path.write_bytes(header(**{"llama.block_count": wrong}))
        assert prefix.read_layer_count(path) == 0


def checked(path: Path, **limits: float) -> Any:
    return asyncio.run(HeaderReader(**limits).check(path))


def test_a_child_reads_what_nobody_has_checked(tmp_path: Path) -> None:
    """The child finds the same as the reader in this process, names a wrong field, and is asked once for a file."""
    path = write_gguf(tmp_path / "m-00001-of-00002.gguf")
    write_gguf(tmp_path / "m-00002-of-00002.gguf")
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(header(**{"llama.block_count": (6, math.nan)}))

    async def twice() -> None:
        reader = HeaderReader()
        first = await reader.check(path)
        assert first == read_header(path)
        assert await reader.check(path) is first
        assert await reader.read(path) is first
        with pytest.raises(RbeeError, match=r"llama\.block_count"):
            await reader.check(bad)

    asyncio.run(twice())


def test_a_child_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """A header that is not read in time is MODEL_INVALID, and its child is gone."""
    path = write_gguf(tmp_path / "m.gguf")

    with pytest.raises(RbeeError, match="within 0 s") as caught:
        checked(path, limit_s=0.0)
    assert caught.value.code is ErrorCode.MODEL_INVALID


def test_a_child_has_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that needs more memory than it may have ends in words, and this process does not grow."""
    path = write_gguf(tmp_path / "m.gguf")
    monkeypatch.setattr(
        "rbee.hive.models.headers._PROGRAM",
        "import sys; sys.path.append(sys.argv.pop(1)); from rbee.hive.models import header_child as child; "
        "child.read_parts = lambda paths: bytearray(child.MEMORY_BYTES); child.main()",
    )

    with pytest.raises(RbeeError, match="more than 512 MB") as caught:
        checked(path)
    assert caught.value.code is ErrorCode.MODEL_INVALID
