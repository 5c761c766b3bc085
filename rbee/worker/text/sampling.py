"""Build the chain of samplers that chooses the tokens of a request. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rbee.contracts.tasks import Sampling
    from rbee.worker.engine.protocol import Grammar

PENALTY_WINDOW = 64  # tokens that the penalties look back
MAX_SEED = 2**32 - 2  # the engine takes 2**32 - 1 for "random"


class Stage(StrEnum):
    """One sampler of a chain."""

    BIAS = "bias"
    PENALTIES = "penalties"
    TOP_K = "top_k"
    TOP_P = "top_p"
    MIN_P = "min_p"
    TEMPERATURE = "temperature"
    GREEDY = "greedy"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class SamplerChain:
    """The stages in order, each with its parameters; `history` is how many earlier tokens they need.

    `bias` is what the stage of that name adds to the logits of tokens. `grammar`, which the engine has compiled, is not
    a stage: it checks the whole vocabulary, so an engine applies it only where the stages chose what it forbids.
    """

    stages: tuple[tuple[Stage, tuple[float, ...]], ...]
    history: int = 0
    bias: tuple[tuple[int, float], ...] = ()
    grammar: Grammar | None = None


def build_chain(
    sampling: Sampling, seed: int, *, bias: Mapping[int, float] | None = None, grammar: Grammar | None = None
) -> SamplerChain:
    """Build the chain. Stages without effect are left out; temperature 0 chooses the likeliest token.

    Penalties cost time for each token they look at. Where they only lower logits, at most a window of tokens can fall
    out of the first `top_k`, so that as many more suffice: the outcome is the same.
    """
    stages: list[tuple[Stage, tuple[float, ...]]] = [(Stage.BIAS, ())] if bias else []
    greedy = sampling.temperature == 0.0
    penalties = (sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty)
    penalizes = penalties != (1.0, 0.0, 0.0)
    if penalizes:
        only_lower = sampling.repeat_penalty >= 1.0 and min(penalties[1:]) >= 0.0
        needed = 1 if greedy else sampling.top_k
        if only_lower and needed > 0:
            stages.append((Stage.TOP_K, (needed + PENALTY_WINDOW,)))
        stages.append((Stage.PENALTIES, (PENALTY_WINDOW, *penalties)))
    if greedy:
        stages.append((Stage.GREEDY, ()))
    else:
        if sampling.top_k > 0:
            stages.append((Stage.TOP_K, (sampling.top_k,)))
        if sampling.top_p < 1.0:
            stages.append((Stage.TOP_P, (sampling.top_p,)))
        if sampling.min_p > 0.0:
            stages.append((Stage.MIN_P, (sampling.min_p,)))
        if sampling.temperature != 1.0:
            stages.append((Stage.TEMPERATURE, (sampling.temperature,)))
        stages.append((Stage.RANDOM, (seed,)))
    pairs = tuple(sorted((bias or {}).items()))
    return SamplerChain(tuple(stages), PENALTY_WINDOW if penalizes else 0, pairs, grammar)
