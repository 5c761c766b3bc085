"""The real engine with the real model: what it gives, and that the same fields gives the same tokens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.contracts.tasks import Sampling
from rbee.errors import RbeeError
from rbee.worker.chat.rendering import Chat
from rbee.worker.engine import llama_load
from rbee.worker.engine.llama_engine import LlamaEngine
from rbee.worker.engine.protocol import EngineFailedError, EngineOptions
from rbee.worker.scheduling.slots import SlotTable
from rbee.worker.text.sampling import PENALTY_WINDOW, SamplerChain, Stage, build_chain
from tests.support.models import smollm2_path, smollm2_q8_path

pytestmark = pytest.mark.engine
SLOTS = 4
CHANCE = Sampling(temperature=0.9, top_k=40, repeat_penalty=1.1)
GREEDY = Sampling(temperature=0, repeat_penalty=1)


def options(path: Path, context: int | None = 1024, backend: Backend = Backend.CPU, threads: int = 1) -> EngineOptions:
    return EngineOptions(path, backend, 0, SLOTS, context=context, threads=threads, batch_tokens=127)


def quiet(_share: float, _layers: int) -> bool:
    return True


@pytest.fixture(scope="module", name="engine")
def _engine() -> Iterator[LlamaEngine]:
    engine = llama_load.load(options(smollm2_path()), quiet)
    yield engine
    engine.close()


@pytest.fixture(name="bench")
def _bench(engine: LlamaEngine) -> Bench:
    return Bench(engine)


class Bench:
    """Run requests to their end on an engine, several at once, without a thread."""

    def __init__(self, engine: LlamaEngine) -> None:
        self.engine = engine
        self.table = SlotTable(
            SLOTS, engine.facts.context, chunk=engine.chunk_tokens, copies=engine.can_copy, tiles=engine.tiles
        )
        self.cached: list[int] = []
        for slot in range(SLOTS):
            engine.truncate(slot, 0)

    def tokens(
        self, prompts: Sequence[str], sampling: Sampling | SamplerChain, *, count: int, seed: int = 7
    ) -> list[list[int]]:
        chain = sampling if isinstance(sampling, SamplerChain) else build_chain(sampling, seed)
        given: dict[int, list[int]] = {}
        order = []
        for number, prompt in enumerate(prompts):
            tokens = self.engine.tokenize(prompt, special=True)
            assignment = self.table.admit(str(number), tokens)
            assert assignment is not None
            if assignment.copy_from is not None:
                self.engine.copy(assignment.copy_from, assignment.slot, assignment.keep)
            else:
                assert self.engine.truncate(assignment.slot, assignment.keep)
            self.engine.set_sampler(assignment.slot, chain, tokens)
            self.cached.append(assignment.keep)
            given[assignment.slot] = []
            order.append(assignment.slot)
        while plans := self.table.plan(128):
            for plan in plans:
                sampled = self.engine.step(plan)
                assert sampled is not None
                self.table.record_evaluated(plan)
                for row, token in zip(plan.outputs, sampled, strict=True):
                    self._take(plan.slots[row], token, given, count)
        self.table.check_invariants()
        return [given[slot] for slot in order]

    def _take(self, slot: int, token: int, given: dict[int, list[int]], count: int) -> None:
        if not self.engine.is_end(token):
            given[slot].append(token)
        if self.engine.is_end(token) or len(given[slot]) >= count:
            self.table.release(slot)
            self.engine.clear_sampler(slot)
        else:
            self.table.append_token(slot, token)

    def text(self, prompt: str, sampling: Sampling = GREEDY, *, count: int = 24, seed: int = 7) -> str:
        tokens = self.tokens([prompt], sampling, count=count, seed=seed)[0]
        return b"".join(self.engine.piece(token) for token in tokens).decode("utf-8", "replace")


def chat(engine: LlamaEngine, question: str) -> str:
    facts = engine.facts
    assert facts.chat_template is not None
    template = Chat(facts.chat_template, begin=facts.begin_text, end=facts.end_text)
    return str(template.render({"messages": [{"role": "user", "content": question}]})["prompt"])


@pytest.mark.B20
def test_facts_of_the_model(engine: LlamaEngine) -> None:
    """Layers, vocabulary, context, special tokens and chat template come from the file."""
    facts = engine.facts

    assert (facts.layers, facts.vocabulary, facts.train_context, facts.context) == (30, 49152, 8192, 1024)
    assert (facts.begin_text, facts.end_text) == ("<|im_start|>", "<|im_end|>")
    assert facts.chat_template is not None
    assert "Q4_1" in facts.description


def test_a_sensible_answer(bench: Bench) -> None:
    """The model answers a question through its own chat template and ends by itself."""
    assert "nectar" in bench.text(chat(bench.engine, "What is honey?"), count=60)


def test_the_same_seed_gives_the_same_tokens(bench: Bench) -> None:
    """Equal seeds give equal tokens, from an empty cache, from a full one, and in another slot; others differ."""
    prompt = chat(bench.engine, "Tell me a story about a bee.")

    first = bench.tokens([prompt], CHANCE, count=40)[0]
    cached = bench.tokens([prompt], CHANCE, count=40)[0]
    elsewhere = bench.tokens(["Something else", prompt], CHANCE, count=40)[1]
    other_seed = bench.tokens([prompt], CHANCE, count=40, seed=8)[0]

    assert bench.cached[1] > 0
    assert cached == first
    assert elsewhere == first
    assert other_seed != first


def test_two_threads_give_the_tokens_of_one(bench: Bench) -> None:
    """Threads share the rows of a step among them and give what one gives, so that every other test may use one."""
    prompt = chat(bench.engine, "What is honey?")
    one = bench.tokens([prompt], GREEDY, count=3)
    engine = llama_load.load(options(smollm2_path(), 512, threads=2), quiet)
    try:
        two = Bench(engine).tokens([prompt], GREEDY, count=3)
    finally:
        engine.close()

    assert two == one


def test_temperature_zero_is_the_same_beside_other_streams(bench: Bench) -> None:
    """At temperature 0 a request gives the same tokens alone and beside three others, however it is batched."""
    long = chat(bench.engine, "Repeat after me: " + "a busy bee sees the sea " * 30)
    questions = [chat(bench.engine, text) for text in ("Name three bees.", "Count to ten.", "What is honey?")]

    alone = [bench.tokens([prompt], GREEDY, count=30)[0] for prompt in (*questions, long)]
    together = bench.tokens([*questions, long], GREEDY, count=30)

    assert together == alone


def test_a_shared_prefix_is_copied(bench: Bench) -> None:
    """A request beside one with the same long beginning evaluates only the rest, and answers as if alone."""
    beginning = "You are a beekeeper and answer in one sentence. " * 12
    texts = ("What is wax? " * 20, "What is honey? " * 20)  # more than a tile: fewer tokens are rounded differently
    prompts = [chat(bench.engine, beginning + text) for text in texts]
    alone = [bench.tokens([prompt], GREEDY, count=20)[0] for prompt in prompts]
    fresh = Bench(bench.engine)
    fresh.tokens([prompts[0]], GREEDY, count=2)

    both = fresh.tokens(prompts, GREEDY, count=20)

    assert fresh.cached[1] > 100
    assert fresh.cached[2] > 100
    assert both == alone


def test_an_interrupted_step_leaves_no_trace(bench: Bench) -> None:
    """A step that is broken off gives nothing; cut back and done anew it gives what it would have given."""
    engine = bench.engine
    prompt = chat(engine, "Name three bees.")
    expected = bench.tokens([prompt], GREEDY, count=5)[0]
    fresh = Bench(engine)
    tokens = engine.tokenize(prompt, special=True)
    fresh.table.admit("x", tokens)
    engine.set_sampler(0, build_chain(GREEDY, 1), tokens)
    (plan,) = fresh.table.plan(128)

    engine.interrupt()
    broken = engine.step(plan)
    engine.resume()
    assert engine.truncate(0, 0)
    whole = engine.step(plan)
    engine.clear_sampler(0)

    assert broken is None
    assert whole == [expected[0]]


def test_penalties_change_the_answer(bench: Bench) -> None:
    """A repeat penalty reaches the engine's samplers."""
    prompt = "bee bee bee bee bee bee bee bee"

    assert "bee bee" in bench.text(prompt)
    assert "bee bee" not in bench.text(prompt, Sampling(temperature=0, repeat_penalty=5, presence_penalty=2))


def test_penalties_on_few_tokens_choose_as_on_all(bench: Bench) -> None:
    """The cut before the penalties changes no token."""
    prompt = chat(bench.engine, "Tell me a story about a bee.")
    fields = Sampling(temperature=0, repeat_penalty=1.2)
    uncut = SamplerChain(((Stage.PENALTIES, (PENALTY_WINDOW, 1.2, 0.0, 0.0)), (Stage.GREEDY, ())), PENALTY_WINDOW)

    cut = bench.tokens([prompt], fields, count=60)
    whole = bench.tokens([prompt], uncut, count=60)

    assert cut == whole


def test_tokens_and_text(engine: LlamaEngine) -> None:
    """Text survives its way through tokens, emoji over several tokens included; special tokens have no text."""
    text = "Grüße, 🐝 and 漢字!"
    tokens = engine.tokenize(text, special=False)

    assert b"".join(engine.piece(token) for token in tokens).decode() == text
    assert len(engine.tokenize("<|im_end|>", special=True)) == 1
    assert len(engine.tokenize("<|im_end|>", special=False)) > 1
    assert engine.piece(engine.tokenize("<|im_end|>", special=True)[0]) == b""


def test_progress_rises_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loading tells its progress and its layers, and ends when it is told to."""
    monkeypatch.setattr(llama_load, "PROGRESS_WORTH_BYTES", 0)
    seen: list[tuple[float, int]] = []

    def note(share: float, layers: int) -> bool:
        seen.append((share, layers))
        return True

    llama_load.load(options(smollm2_path(), 64), note).close()

    assert [share for share, _ in seen] == sorted(share for share, _ in seen)
    assert seen[-1] == (1.0, 30)
    assert len(seen) > 10
    with pytest.raises(RbeeError) as caught:
        llama_load.load(options(smollm2_path(), 64), lambda share, _: share < 0.5)
    assert caught.value.code is ErrorCode.CANCELED


@pytest.mark.B21
def test_another_quantisation_answers() -> None:
    """Q8_0 loads and answers like Q4_1."""
    engine = llama_load.load(options(smollm2_q8_path()), quiet)
    try:
        bench = Bench(engine)

        assert "Q8_0" in engine.facts.description
        assert "nectar" in bench.text(chat(engine, "What is honey?"), count=60)
    finally:
        engine.close()


@pytest.mark.B19
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path, _: path.write_bytes(b""), "empty"),
        (lambda path, _: path.write_bytes(b"PK\x03\x04 a zip file"), "not a GGUF file"),
        (lambda path, whole: path.write_bytes(whole[:12]), "within the GGUF header"),
        (lambda path, whole: path.write_bytes(whole[:100_000]), "llama.cpp reports"),
        (lambda path, whole: path.write_bytes(whole[: len(whole) // 2]), "llama.cpp reports"),
        (lambda path, whole: path.write_bytes(whole[:4] + b"\x63" + whole[5:100_000]), "version"),
        (lambda path, _: path.mkdir(), "directory"),
    ],
    ids=["empty", "zip", "header", "metadata", "half", "version", "folder"],
)
def test_a_file_that_is_no_model(tmp_path: Path, make: object, reason: str) -> None:
    """Empty, foreign and truncated files are MODEL_INVALID, with the file's name and what is wrong with it."""
    path = tmp_path / "model.gguf"
    assert callable(make)
    make(path, smollm2_path().read_bytes())

    with pytest.raises(RbeeError) as caught:
        llama_load.load(options(path), quiet)

    assert caught.value.code is ErrorCode.MODEL_INVALID
    assert str(path) in caught.value.message
    assert reason in caught.value.message


def test_no_token_comes_from_mixed_weights(tmp_path: Path) -> None:
    """A file that is written to under the model ends the engine at the next step; one that is exchanged does not."""
    path = tmp_path / "model.gguf"
    shutil.copy(smollm2_path(), path)
    engine = llama_load.load(options(path), quiet)
    try:
        bench = Bench(engine)
        before = bench.text("The bees")
        shutil.copy(path, tmp_path / "other.gguf")
        path.unlink()
        (tmp_path / "other.gguf").rename(path)
        assert bench.text("The bees") == before
    finally:
        engine.close()

    engine = llama_load.load(options(path), quiet)
    try:
        bench = Bench(engine)
        with path.open("r+b") as file:
            file.seek(-4096, os.SEEK_END)
            file.write(bytes(4096))
        with pytest.raises(EngineFailedError, match="changed while it was in use"):
            bench.text("The bees")
    finally:
        engine.close()


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    """A model file that is not there is MODEL_NOT_FOUND."""
    with pytest.raises(RbeeError) as caught:
        llama_load.load(options(tmp_path / "none.gguf"), quiet)

    assert caught.value.code is ErrorCode.MODEL_NOT_FOUND


@pytest.mark.parametrize(
    ("backend", "code"),
    [(Backend.CUDA, ErrorCode.CUDA_DEVICE_FAILED), (Backend.METAL, ErrorCode.BACKEND_UNAVAILABLE)],
)
def test_a_gpu_that_is_not_there_is_never_replaced(backend: Backend, code: ErrorCode) -> None:
    """A build of llama.cpp that sees no such device fails; nothing is moved to the CPU."""
    from rbee.worker.engine.llama import Llama

    if Llama().supports_gpu():
        pytest.skip("this llama.cpp can use a GPU")
    with pytest.raises(RbeeError) as caught:
        llama_load.load(options(smollm2_path(), backend=backend), quiet)

    assert caught.value.code is code
    assert "--backend cpu" in caught.value.hint


def test_too_little_memory_is_said() -> None:
    """A context that cannot be had is RAM_EXHAUSTED with need and have."""
    with pytest.raises(RbeeError) as caught:
        llama_load.load(options(smollm2_path(), 2**24), quiet)

    assert caught.value.code is ErrorCode.RAM_EXHAUSTED
    assert caught.value.details["required_mb"] > caught.value.details["available_mb"]


_WITH_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from rbee.contracts.devices import Backend
from rbee.errors import RbeeError
from rbee.worker.engine import llama_load
from rbee.worker.engine.llama import Llama
from rbee.worker.engine.protocol import EngineOptions

Llama()
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 64 * 2**20, resource.RLIM_INFINITY))
options = EngineOptions(Path(sys.argv[1]), Backend.CPU, 0, 1, context=256, threads=1, mmap=False)
try:
    llama_load.load(options, lambda _share, _layers: True)
except RbeeError as error:
    print(error.code)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is limited as Linux does it")
def test_weights_that_cannot_be_allocated_are_no_fault_of_the_file() -> None:
    """Where llama.cpp gets no memory for the weights, although there seemed to be enough, that is what is said."""
    command = [sys.executable, "-c", _WITH_LITTLE_MEMORY, str(smollm2_path())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert done.stdout == "RAM_EXHAUSTED\n", done.stderr
