"""An engine that computes nothing, with a settable speed and settable mishaps: for tests of everything around it."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.errors import ConfigError, RbeeError
from rbee.worker.engine import model_file
from rbee.worker.engine.protocol import EngineFailedError, EngineOptions, LoadProgress, ModelFacts, Score
from rbee.worker.sampling import SamplerChain
from rbee.worker.slots import StepPlan

_END = 0
_LAYERS = 32
_ANSWER = "Honey bees, bumble bees and carpenter bees are three kinds of bees. "
_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


class FakeOptions(BaseModel):
    """How the fake behaves.

    `load_fails` ends the loading: "ram" and "vram" as out of memory, "model" as a bad file, "device" as a GPU that
    does not take the model, "exit" as a process that dies. `load_hangs_at` stops at that share of the layers.
    After so many tokens, counted over all requests: `hang_after` never comes back from a step, `fail_after` fails
    as an engine, `exit_after` dies as a process, `eats_mb` holds that much more memory with each token. `rubbish` gives
    bytes that are no text.
    """

    model_config = ConfigDict(extra="forbid")

    text: str = _ANSWER
    length: int | None = Field(default=None, ge=0, description="tokens of an answer; None goes on to the limit")
    tokens_per_s: float = Field(default=1000.0, gt=0, description="of each stream")
    prompt_tokens_per_s: float = Field(default=100_000.0, gt=0)
    context: int = Field(default=4096, ge=1)
    load_s: float = Field(default=0.0, ge=0)
    load_fails: Literal["ram", "vram", "model", "device", "exit"] | None = None
    load_hangs_at: float | None = Field(default=None, ge=0, le=1)
    hang_after: int | None = None
    fail_after: int | None = None
    exit_after: int | None = None
    eats_mb: int = Field(default=0, ge=0, description="memory to take with each token, and never to give back")
    rubbish: bool = False
    recurrent: bool = Field(default=False, description="whether its cache cannot be cut")
    embedding: int = Field(default=0, ge=0, description="length of its embeddings; 0 for a model that writes text")
    ranks: bool = Field(default=False, description="it ranks documents, by the words of the query that they have")
    template: str | None = _TEMPLATE
    check_file: bool = Field(default=False, description="look at the model file as the real engine does")
    memory_mb: int = Field(default=0, ge=0, description="memory to hold, so that somebody can see it returned")


def load(options: EngineOptions, progress: LoadProgress) -> FakeEngine:
    """Pretend to load."""
    try:
        wish = FakeOptions.model_validate(options.extra)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"fake.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if wish.check_file:
        model_file.check(options.model_path)
    for layer in range(_LAYERS + 1):
        share = layer / _LAYERS
        if wish.load_hangs_at is not None and share >= wish.load_hangs_at:
            threading.Event().wait()
        if not progress(share, _LAYERS):
            raise RbeeError(ErrorCode.CANCELED, "The loading was ended before the model was there.")
        if wish.load_fails is not None and share >= 0.5:
            raise _failure(wish, options)
        time.sleep(wish.load_s / _LAYERS)
    return FakeEngine(wish, options)


def _failure(wish: FakeOptions, options: EngineOptions) -> RbeeError:
    memory: dict[str, Any] = {"required_mb": 6000, "available_mb": 4000}
    if wish.load_fails == "exit":
        os._exit(139)
    if wish.load_fails == "ram":
        return RbeeError(ErrorCode.RAM_EXHAUSTED, "Not enough memory: 6000 MB needed, 4000 MB free.", details=memory)
    if wish.load_fails == "vram":
        return RbeeError(
            ErrorCode.GPU_VRAM_EXHAUSTED, "Not enough memory on the GPU: 6000 MB needed, 4000 MB free.", details=memory
        )
    if wish.load_fails == "device":
        return RbeeError(ErrorCode.CUDA_DEVICE_FAILED, "The model is not on cuda device 0: 12 of 32 layers are.")
    return model_file.invalid(options.model_path, "the fake engine was told so")


class FakeEngine:
    """The engine; see `engine.protocol.Engine`. A token is a word with the space before it."""

    can_copy = True

    def __init__(self, wish: FakeOptions, options: EngineOptions) -> None:
        self._wish = wish
        self.can_rewind = not wish.recurrent
        self.piece_tokens = options.batch_tokens - 1
        self.facts = ModelFacts(
            description="fake",
            context=min(options.context or wish.context, wish.context),
            train_context=wish.context,
            vocabulary=2**31 - 1,
            layers=_LAYERS,
            size_bytes=wish.memory_mb * 1024 * 1024,
            chat_template=wish.template,
            begin_text="",
            end_text="",
            embedding=1 if wish.ranks else wish.embedding,
            ranks=wish.ranks,
            device_bytes=None if options.backend is Backend.CPU else wish.memory_mb * 1024 * 1024,
        )
        self._held = bytearray(os.urandom(4096) * (wish.memory_mb * 256))
        self._eaten: list[bytearray] = []
        self._words: dict[str, int] = {}
        self._texts: dict[int, bytes] = {_END: b""}
        self._lock = threading.Lock()
        self._answer = self.tokenize(wish.text, special=False)
        self._given: dict[int, int] = {}
        self._total = 0
        self._interrupted = threading.Event()

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Give a number to each word; the same word has the same number."""
        del special
        with self._lock:
            return [self._number(word) for word in re.findall(r"\s*\S+|\s+", text)]

    def pair(self, query: str, document: str) -> list[int]:
        """Give the words of both, with a token between that ends both."""
        words = [f" {word}" for word in query.split()], [f" {word}" for word in document.split()]
        with self._lock:
            asked, read = ([self._number(word) for word in part] for part in words)
        return [*asked, _END, *read]

    def piece(self, token: int) -> bytes:
        """Give the word; of a token that it has never made there is none."""
        return b"\xff\xfe\x80" if self._wish.rubbish else self._texts.get(token, b"")

    def marker(self, text: str) -> int | None:
        """Know no special token."""
        del text
        return None

    def grammar_fault(self, grammar: str) -> str | None:
        """Take any grammar but an empty one, and obey none."""
        return None if grammar.strip() else "it is empty"

    def ends(self, token: int) -> bool:
        """Tell whether the answer is over."""
        return token == _END

    def start(self, slot: int, chain: SamplerChain, history: Sequence[int]) -> None:
        """Begin the answer anew."""
        del chain, history
        self._given[slot] = 0

    def finish(self, slot: int) -> None:
        """Forget how far the answer was."""
        self._given.pop(slot, None)

    def keep(self, slot: int, count: int) -> bool:
        """Keep anything, unless it was told that it cannot."""
        del slot, count
        return self.can_rewind

    def copy(self, source: int, slot: int, count: int) -> None:
        """Copy nothing: there is nothing."""

    def step(self, plan: StepPlan) -> list[int] | None:
        """Take the time that a step should take, then give each output the next word of the answer."""
        prompt_tokens = len(plan.tokens) - len(plan.outputs)
        duration = prompt_tokens / self._wish.prompt_tokens_per_s
        if plan.outputs:
            duration += 1 / self._wish.tokens_per_s
        if self._interrupted.wait(duration):
            return None
        return [self._next(plan.slots[row]) for row in plan.outputs]

    def sample(self, slot: int, row: int) -> int:
        """Give the next word of the answer."""
        del row
        return self._next(slot)

    def scores(self, row: int, token: int, most: int) -> list[Score]:
        """Be certain of the token, and of nothing else."""
        del row
        return [Score(token, 0.0), *([Score(token, 0.0)] if most else [])]

    def embed(self, tokens: Sequence[int]) -> list[float]:
        """Point into the direction that the first token's number gives; of a pair, count the words of the query."""
        time.sleep(len(tokens) / self._wish.prompt_tokens_per_s)
        if self._wish.ranks:
            between = tokens.index(_END)
            asked, read = set(tokens[:between]), set(tokens[between + 1 :])
            return [len(asked & read) / max(len(asked), 1)]
        size = self._wish.embedding
        return [1.0 if index == tokens[0] % size else 0.0 for index in range(size)]

    def interrupt(self) -> None:
        """Wake a step that is waiting."""
        self._interrupted.set()

    def resume(self) -> None:
        """Forget the interrupt."""
        self._interrupted.clear()

    def close(self) -> None:
        """Give the memory back."""
        self._held = bytearray()

    def _next(self, slot: int) -> int:
        wish = self._wish
        if wish.exit_after is not None and self._total >= wish.exit_after:
            os._exit(139)
        if wish.fail_after is not None and self._total >= wish.fail_after:
            raise EngineFailedError("the fake engine was told to fail")
        if wish.hang_after is not None and self._total >= wish.hang_after:
            threading.Event().wait()
        if wish.eats_mb:
            self._eaten.append(bytearray(os.urandom(4096) * (wish.eats_mb * 256)))
        given = self._given[slot]
        if wish.length is not None and given >= wish.length:
            return _END
        self._given[slot] = given + 1
        self._total += 1
        return self._answer[given % len(self._answer)]

    def _number(self, word: str) -> int:
        number = self._words.setdefault(word, len(self._words) + 1)
        self._texts[number] = word.encode()
        return number
