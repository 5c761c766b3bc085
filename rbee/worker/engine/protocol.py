"""The interface of an engine. Only the engine's own thread may call it, except where a method says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from rbee.contracts.devices import Backend
from rbee.worker.scheduling.attention_tiles import AttentionTiles
from rbee.worker.scheduling.slots import StepPlan
from rbee.worker.text.sampling import SamplerChain

NO_TOKEN: Final = -1

LoadProgress = Callable[[float, int], bool]
"""Called with the loaded share, from 0 to 1, and the number of layers; returns False to stop the loading."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to load a model. None leaves the choice to the engine; `context` is in tokens per slot.

    `extra` configures the fake engine.
    """

    model_path: Path
    backend: Backend
    device: int
    slots: int
    context: int | None = None
    threads: int | None = None
    batch_tokens: int = 512
    draft_tokens: int = 0
    cache_type: str = "f16"
    flash_attention: bool | None = None
    mmap: bool = True
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Return the rows of the largest batch: a chunk of a prompt, or a token of each stream and their drafts."""
        return max(self.batch_tokens, self.slots + self.draft_tokens)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The properties of a loaded model; `context` is what one slot holds, in tokens.

    `embedding` is the length of the vectors of an embedding model, which generates no text; 0 for a text model.
    A model that `ranks` is a reranking model: its one number is the relevance of a document to a query.
    """

    description: str
    context: int
    train_context: int
    vocabulary: int
    layers: int
    size_bytes: int
    chat_template: str | None
    begin_text: str
    end_text: str
    embedding: int = 0
    ranks: bool = False
    device_bytes: int | None = None
    """The memory taken on a GPU; None on a CPU."""


@dataclass(frozen=True, slots=True)
class Logprob:
    """A token that was or could have been sampled, with the natural logarithm of its probability."""

    token: int
    logprob: float


class Grammar(Protocol):
    """A compiled grammar; the engine that compiled it knows more."""


class GrammarError(Exception):
    """Raised for a grammar that cannot be compiled; says why."""


class EngineFailedError(Exception):
    """Raised when the engine cannot continue: its state is unknown and the worker must end."""


class Engine(Protocol):
    """A loaded model with its slots."""

    facts: ModelFacts
    can_copy: bool
    """Whether `copy` works."""
    can_rewind: bool
    """Whether `truncate` can remove the end of a cache and leave the rest."""
    chunk_tokens: int
    """Maximum of prompt tokens in one batch."""
    tiles: AttentionTiles | None
    """The tiles in which attention is computed, None if the length of a batch makes no difference."""

    def tokenize(self, text: str, *, special: bool, ends: bool = True) -> list[int]:
        """Return the tokens of *text*; may be called from any thread.

        With *special*, names of special tokens count as such; with *ends*, the tokens are there that the model expects
        at the beginning and the end of a text.
        """

    def tokenize_parts(self, parts: Sequence[tuple[str, bool]], *, guard: str) -> list[int]:
        """Return the tokens of a text that comes in parts, each with whether it is the name of a special token.

        What is none is plain text whatever it says, and without *guard*. May be called from any thread.
        """

    def control_text(self, token: int) -> str:
        """Return the name of a token that tells turns apart, "" for any other; may be called from any thread."""

    def tokenize_pair(self, query: str, document: str) -> list[int]:
        """Return the tokens of both in a reranking model's format; may be called from any thread."""

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token, none for a special one."""

    def special_token(self, text: str) -> int | None:
        """Return the special token that *text* names, None if there is none; may be called from any thread."""

    def load_vocabulary(self) -> None:
        """Do what `compile_grammar` needs once, up to a second of work; may be called from any thread."""

    def compile_grammar(self, grammar: str) -> Grammar:
        """Compile a grammar (Lark, as llguidance reads it); may be called from any thread but the event loop's.

        Raises GrammarError for one that is invalid or too large.
        """

    def is_end(self, token: int) -> bool:
        """Return whether *token* ends a generation."""

    def set_sampler(self, slot: int, chain: SamplerChain, history: Sequence[int]) -> None:
        """Create the slot's sampler, with *history* as the tokens before."""

    def force(self, slot: int, tokens: Sequence[int]) -> None:
        """Make *tokens* the next of the slot, whatever its sampler would choose."""

    def clear_sampler(self, slot: int) -> None:
        """Remove the slot's sampler; its cache stays."""

    def truncate(self, slot: int, count: int) -> bool:
        """Cut the slot's cache to its first *count* tokens; return False if nothing of it could be kept."""

    def copy(self, source: int, slot: int, count: int) -> None:
        """Replace the slot's cache by the first *count* tokens of another's."""

    def step(self, plan: StepPlan) -> list[int] | None:
        """Evaluate one batch, drafts included, and sample a token for each of its outputs.

        `NO_TOKEN` for a slot whose grammar has failed: `grammar_failure` says why, and the slot must be given up.
        None if `interrupt` came in between; the slots of the plan must then be cut back by `truncate`.
        Raises EngineFailedError.
        """

    def sample(self, slot: int, row: int) -> int:
        """Sample from the row of a drafted token of the last step; the slot's sampler accepts the token.

        `NO_TOKEN` as in `step`.
        """

    def grammar_failure(self, slot: int) -> str:
        """Return why the slot's grammar has failed."""

    def logprobs(self, row: int, token: int, most: int) -> list[Logprob]:
        """Return the log probability of *token* in an output of the last step, then those of the *most* likeliest.

        They are the model's own, before any stage of a sampler.
        """

    def embed(self, tokens: Sequence[int]) -> list[float]:
        """Return the embedding of a text, of length 1; for a pair only its relevance, from 0 to 1.

        Raises EngineFailedError.
        """

    def interrupt(self) -> None:
        """Interrupt the current step, if the engine can; may be called from any thread."""

    def resume(self) -> None:
        """Clear an `interrupt` that came before the next step."""

    def close(self) -> None:
        """Free the model and its memory."""
