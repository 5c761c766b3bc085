"""What the worker asks of an engine. Only the engine's own thread may call it, except where a method says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rbee.contracts.devices import Backend
from rbee.worker.sampling import SamplerChain
from rbee.worker.slots import StepPlan

LoadProgress = Callable[[float, int], bool]
"""Told how much is loaded, from 0 to 1, of how many layers; gives False to end the loading."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to load a model. None leaves the choice to the engine; `context` is in tokens per slot."""

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
        """Give the rows of the largest batch: a piece of a prompt, or a token of each stream and their drafts."""
        return max(self.batch_tokens, self.slots + self.draft_tokens)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known once a model is loaded; `context` is what one slot holds, in tokens.

    `embedding` is the length of the embeddings of a model that was made for them, and writes no text; else 0.
    One that `ranks` was made to tell how well a document answers a query instead: its one number is that.
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
    """What was taken of a GPU's memory; None on a CPU."""


@dataclass(frozen=True, slots=True)
class Score:
    """A token that was or could have been chosen, with the natural logarithm of its probability."""

    token: int
    logprob: float


class EngineFailedError(Exception):
    """Raised when the engine cannot go on: its state is unknown and the worker must end."""


class Engine(Protocol):
    """A loaded model with its slots."""

    facts: ModelFacts
    can_copy: bool
    """Whether `copy` works."""
    can_rewind: bool
    """Whether `keep` can cut off the end of a cache and leave the rest."""
    piece_tokens: int
    """How much of a prompt one batch may have."""

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Give the tokens of *text*; any thread may ask. With *special*, names of special tokens count as such."""

    def pair(self, query: str, document: str) -> list[int]:
        """Give the tokens of both as a model that ranks reads them; any thread may ask."""

    def piece(self, token: int) -> bytes:
        """Give the bytes of a token, none for a special one."""

    def marker(self, text: str) -> int | None:
        """Give the special token that *text* names, if it is one; any thread may ask."""

    def grammar_fault(self, grammar: str) -> str | None:
        """Say why a grammar cannot be used, None if it can; any thread may ask."""

    def ends(self, token: int) -> bool:
        """Tell whether *token* ends a generation."""

    def start(self, slot: int, chain: SamplerChain, history: Sequence[int]) -> None:
        """Give the slot a sampler of its own, which has seen *history*."""

    def finish(self, slot: int) -> None:
        """Take the slot's sampler away; its cache stays."""

    def keep(self, slot: int, count: int) -> bool:
        """Cut the slot's cache to its first *count* tokens; False if nothing of it could be kept."""

    def copy(self, source: int, slot: int, count: int) -> None:
        """Replace the slot's cache by the first *count* tokens of another's."""

    def step(self, plan: StepPlan) -> list[int] | None:
        """Evaluate one batch, drafts included, and sample a token for each of its outputs.

        None if `interrupt` came in between; the slots of the plan must then be cut back by `keep`.
        Raises EngineFailedError.
        """

    def sample(self, slot: int, row: int) -> int:
        """Sample from the row of a drafted token of the last step; the slot's sampler takes note of what it chooses."""

    def scores(self, row: int, token: int, most: int) -> list[Score]:
        """Give the score of *token* in an output of the last step, then those of the *most* likeliest tokens.

        They are what the model itself says, before any stage of a sampler.
        """

    def embed(self, tokens: Sequence[int]) -> list[float]:
        """Give the embedding of a text, of length 1; of a pair its relevance alone, from 0 to 1.

        Raises EngineFailedError.
        """

    def interrupt(self) -> None:
        """Break off the step that is running, if the engine can; any thread may ask."""

    def resume(self) -> None:
        """Forget an `interrupt` that came before the next step."""

    def close(self) -> None:
        """Free the model and its memory."""


EngineLoader = Callable[[EngineOptions, LoadProgress], Engine]
"""Load a model. Raises RbeeError that says what is wrong with model, memory or device."""
