"""An engine that computes nothing, with configurable speed and failures: for tests of everything around it."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.errors import ConfigError, RbeeError
from rbee.gguf import prefix
from rbee.worker.engine.protocol import (
    NO_TOKEN,
    EngineFailedError,
    EngineOptions,
    Grammar,
    LoadProgress,
    Logprob,
    ModelFacts,
)
from rbee.worker.scheduling.attention_tiles import AttentionTiles
from rbee.worker.scheduling.slots import StepPlan
from rbee.worker.text.sampling import SamplerChain

_END = 0
_LAYERS = 32
_ANSWER = "Honey bees, bumble bees and carpenter bees are three kinds of bees. "
_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


class FakeOptions(BaseModel):
    """The behaviour of the fake engine.

    `load_fails` ends the loading: "ram" and "vram" as out of memory, "model" as a bad file, "device" as a GPU that
    does not accept the model, "exit" as a process that dies. `load_hangs_at` hangs at that share of the layers.
    After so many tokens, counted over all requests: `hang_after` never returns from a step, `fail_after` fails as an
    engine, `exit_after` dies as a process. `eats_mb` allocates that much more memory with each token. `rubbish`
    generates bytes that are not text. A prompt with the text `dies_of` ends the process while it is being read.
    `replies` are answers to prompts that contain a text, whole and once; the first that fits goes before `text`.
    """

    model_config = ConfigDict(extra="forbid")

    text: str = _ANSWER
    replies: dict[str, str] = Field(default_factory=dict, description="answers by a text of the prompt")
    length: int | None = Field(default=None, ge=0, description="tokens of an answer; None generates up to the limit")
    tokens_per_s: float = Field(default=1000.0, gt=0, description="of each stream")
    prompt_tokens_per_s: float = Field(default=100_000.0, gt=0)
    context: int = Field(default=4096, ge=1)
    load_s: float = Field(default=0.0, ge=0)
    load_fails: Literal["ram", "vram", "model", "device", "exit"] | None = None
    load_hangs_at: float | None = Field(default=None, ge=0, le=1)
    hang_after: int | None = None
    fail_after: int | None = None
    exit_after: int | None = None
    eats_mb: int = Field(default=0, ge=0, description="memory to allocate with each token, never freed")
    reads: str | None = Field(default=None, description="a file; it answers whether it could read it")
    grammar_fails_after: int | None = Field(default=None, ge=0, description="tokens of an answer with a grammar")
    rubbish: bool = False
    dies_of: str | None = None
    recurrent: bool = Field(default=False, description="whether its cache cannot be truncated")
    embedding: int = Field(default=0, ge=0, description="length of its embeddings; 0 for a text model")
    ranks: bool = Field(default=False, description="it ranks documents by the words that they share with the query")
    template: str | None = _TEMPLATE
    check_file: bool = Field(default=False, description="check the model file as the real engine does")
    memory_mb: int = Field(default=0, ge=0, description="memory to hold, so that a test sees it freed")


class _Answer(NamedTuple):
    """Its tokens, said again and again until the length; None is up to the limit of the request."""

    tokens: list[int]
    length: int | None


def load(options: EngineOptions, progress: LoadProgress) -> FakeEngine:
    """Pretend to load."""
    try:
        behaviour = FakeOptions.model_validate(options.extra)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"fake.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if behaviour.check_file:
        prefix.check_file(options.model_path)
    if behaviour.reads is not None:
        behaviour.text = _try_to_read(behaviour.reads)
    for layer in range(_LAYERS + 1):
        share = layer / _LAYERS
        if behaviour.load_hangs_at is not None and share >= behaviour.load_hangs_at:
            threading.Event().wait()
        if not progress(share, _LAYERS):
            raise RbeeError(ErrorCode.CANCELED, "The loading was canceled before the model was loaded.")
        if behaviour.load_fails is not None and share >= 0.5:
            raise _failure(behaviour, options)
        time.sleep(behaviour.load_s / _LAYERS)
    return FakeEngine(behaviour, options)


def _failure(behaviour: FakeOptions, options: EngineOptions) -> RbeeError:
    memory: dict[str, Any] = {"required_mb": 6000, "available_mb": 4000}
    if behaviour.load_fails == "exit":
        os._exit(139)
    if behaviour.load_fails == "ram":
        return RbeeError(ErrorCode.RAM_EXHAUSTED, "Not enough memory: 6000 MB needed, 4000 MB free.", details=memory)
    if behaviour.load_fails == "vram":
        return RbeeError(
            ErrorCode.GPU_VRAM_EXHAUSTED, "Not enough memory on the GPU: 6000 MB needed, 4000 MB free.", details=memory
        )
    if behaviour.load_fails == "device":
        return RbeeError(
            ErrorCode.CUDA_DEVICE_FAILED, "The model is not on cuda device 0: only 12 of 32 layers were offloaded."
        )
    return prefix.invalid_model(
        options.model_path, "the fake engine is configured to refuse it", "Configure it otherwise."
    )


def _try_to_read(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except OSError as error:
        return type(error).__name__
    return "readable"


class FakeEngine:
    """The engine; see `engine.protocol.Engine`. A token is a word with the space before it."""

    can_copy = True

    def __init__(self, behaviour: FakeOptions, options: EngineOptions) -> None:
        self._behaviour = behaviour
        self.can_rewind = not behaviour.recurrent
        self.chunk_tokens = options.batch_tokens - 1
        self.tiles: AttentionTiles | None = None
        self.facts = ModelFacts(
            description="fake",
            context=min(options.context or behaviour.context, behaviour.context),
            train_context=behaviour.context,
            vocabulary=2**31 - 1,
            layers=_LAYERS,
            size_bytes=behaviour.memory_mb * 1024 * 1024,
            chat_template=behaviour.template,
            begin_text="",
            end_text="",
            embedding=1 if behaviour.ranks else behaviour.embedding,
            ranks=behaviour.ranks,
            device_bytes=None if options.backend is Backend.CPU else behaviour.memory_mb * 1024 * 1024,
        )
        self._forced: dict[int, list[int]] = {}
        self._held = bytearray(os.urandom(4096) * (behaviour.memory_mb * 256))
        self._eaten: list[bytearray] = []
        self._words: dict[str, int] = {}
        self._texts: dict[int, bytes] = {_END: b""}
        self._lock = threading.Lock()
        self._answer = _Answer(self.tokenize(behaviour.text, special=False), behaviour.length)
        replies = {text: self.tokenize(reply, special=False) for text, reply in behaviour.replies.items()}
        self._replies = {text: _Answer(tokens, len(tokens)) for text, tokens in replies.items()}
        self._answers: dict[int, _Answer] = {}
        self._given: dict[int, int] = {}
        self._fails: dict[int, int | None] = {}
        self._total = 0
        self._interrupted = threading.Event()

    def tokenize(self, text: str, *, special: bool, ends: bool = True) -> list[int]:
        """Number the words; the same word has the same number."""
        del special, ends
        if self._behaviour.dies_of is not None and self._behaviour.dies_of in text:
            os._exit(139)
        with self._lock:
            return [self._number(word) for word in re.findall(r"\s*\S+|\s+", text)]

    def tokenize_pair(self, query: str, document: str) -> list[int]:
        """Return the words of both, separated by the end token."""
        words = [f" {word}" for word in query.split()], [f" {word}" for word in document.split()]
        with self._lock:
            asked, read = ([self._number(word) for word in part] for part in words)
        return [*asked, _END, *read]

    def piece(self, token: int) -> bytes:
        """Return the word; none for an unknown token."""
        return b"\xff\xfe\x80" if self._behaviour.rubbish else self._texts.get(token, b"")

    def special_token(self, text: str) -> int | None:
        """Return None: there are no special tokens."""
        del text
        return None

    def tokenize_parts(self, parts: Sequence[tuple[str, bool]], *, guard: str) -> list[int]:
        """Number the words of all parts."""
        return self.tokenize("".join(text for text, _ in parts).replace(guard, ""), special=False)

    def control_text(self, token: int) -> str:
        """Return "": there are no special tokens."""
        del token
        return ""

    def load_vocabulary(self) -> None:
        """Do nothing."""

    def compile_grammar(self, grammar: str) -> Grammar:
        """Accept any grammar, and apply none."""
        return grammar

    def grammar_failure(self, slot: int) -> str:
        """Return why the grammar fails after so many tokens as configured."""
        del slot
        return "the fake engine is configured to fail its grammars"

    def is_end(self, token: int) -> bool:
        """Return whether the answer is over."""
        return token == _END

    def set_sampler(self, slot: int, chain: SamplerChain, history: Sequence[int]) -> None:
        """Start the answer to this prompt."""
        self._answers[slot] = self._answer_to(history)
        self._given[slot] = 0
        self._fails[slot] = None if chain.grammar is None else self._behaviour.grammar_fails_after

    def force(self, slot: int, tokens: Sequence[int]) -> None:
        """Answer with these tokens next."""
        self._forced[slot] = list(tokens)

    def clear_sampler(self, slot: int) -> None:
        """Forget the position in the answer."""
        self._forced.pop(slot, None)
        self._given.pop(slot, None)

    def truncate(self, slot: int, count: int) -> bool:
        """Keep anything, unless configured as recurrent."""
        del slot, count
        return self.can_rewind

    def copy(self, source: int, slot: int, count: int) -> None:
        """Copy nothing: there is nothing."""

    def step(self, plan: StepPlan) -> list[int] | None:
        """Wait as long as the step should take, then return for each output the next word of the answer."""
        prompt_tokens = len(plan.tokens) - len(plan.outputs)
        duration = prompt_tokens / self._behaviour.prompt_tokens_per_s
        if plan.outputs:
            duration += 1 / self._behaviour.tokens_per_s
        if self._interrupted.wait(duration):
            return None
        return [self._next(plan.slots[row]) for row in plan.outputs]

    def sample(self, slot: int, row: int) -> int:
        """Return the next word of the answer."""
        del row
        return self._next(slot)

    def logprobs(self, row: int, token: int, most: int) -> list[Logprob]:
        """Return probability 1 for the token, and no other candidate."""
        del row
        return [Logprob(token, 0.0), *([Logprob(token, 0.0)] if most else [])]

    def embed(self, tokens: Sequence[int]) -> list[float]:
        """Return a unit vector chosen by the first token; for a pair, the share of the query's words."""
        time.sleep(len(tokens) / self._behaviour.prompt_tokens_per_s)
        if self._behaviour.ranks:
            between = tokens.index(_END)
            asked, read = set(tokens[:between]), set(tokens[between + 1 :])
            return [len(asked & read) / max(len(asked), 1)]
        size = self._behaviour.embedding
        return [1.0 if index == tokens[0] % size else 0.0 for index in range(size)]

    def interrupt(self) -> None:
        """Wake a step that is waiting."""
        self._interrupted.set()

    def resume(self) -> None:
        """Clear the interrupt."""
        self._interrupted.clear()

    def close(self) -> None:
        """Free the memory."""
        self._held = bytearray()

    def _next(self, slot: int) -> int:
        behaviour = self._behaviour
        if behaviour.exit_after is not None and self._total >= behaviour.exit_after:
            os._exit(139)
        if behaviour.fail_after is not None and self._total >= behaviour.fail_after:
            raise EngineFailedError("the fake engine is configured to fail")
        if behaviour.hang_after is not None and self._total >= behaviour.hang_after:
            threading.Event().wait()
        if behaviour.eats_mb:
            self._eaten.append(bytearray(os.urandom(4096) * (behaviour.eats_mb * 256)))
        if forced := self._forced.get(slot):
            return forced.pop(0)
        answer, given = self._answers[slot], self._given[slot]
        if given == self._fails[slot]:
            return NO_TOKEN
        if answer.length is not None and given >= answer.length:
            return _END
        self._given[slot] = given + 1
        self._total += 1
        return answer.tokens[given % len(answer.tokens)]

    def _answer_to(self, prompt: Sequence[int]) -> _Answer:
        if not self._replies:
            return self._answer
        text = b"".join(self._texts.get(token, b"") for token in prompt).decode()
        return next((answer for asked, answer in self._replies.items() if asked in text), self._answer)

    def _number(self, word: str) -> int:
        number = self._words.setdefault(word, len(self._words) + 1)
        self._texts[number] = word.encode()
        return number
