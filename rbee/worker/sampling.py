"""Turn a request's sampling wishes into the chain of samplers that chooses its tokens. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rbee.contracts.tasks import Sampling

PENALTY_WINDOW = 64  # tokens that the penalties look back
MAX_SEED = 2**32 - 2  # the engine takes 2**32 - 1 for "random"


class Stage(StrEnum):
    """A kind of sampler."""

    BIAS = "bias"
    PENALTIES = "penalties"
    TOP_K = "top_k"
    TOP_P = "top_p"
    MIN_P = "min_p"
    TEMPERATURE = "temperature"
    GREEDY = "greedy"
    CHANCE = "chance"


@dataclass(frozen=True, slots=True)
class SamplerChain:
    """The stages in order, each with its numbers; `history` is how many earlier tokens they must know.

    `bias` is what the stage of that name adds to the logits of tokens. `grammar` is no stage: it costs a look at the
    whole vocabulary, so an engine applies it only where the stages chose a token that it forbids.
    """

    stages: tuple[tuple[Stage, tuple[float, ...]], ...]
    history: int = 0
    bias: tuple[tuple[int, float], ...] = ()
    grammar: str | None = None


def chain_of(
    sampling: Sampling, seed: int, *, bias: Mapping[int, float] | None = None, grammar: str | None = None
) -> SamplerChain:
    """Build the chain. Stages that would change nothing are left out; temperature 0 takes the likeliest token.

    Penalties cost time for each token they look at. Where they only take away, at most a window of tokens can fall
    out of the first `top_k`, so that as many more are enough to give them: the outcome is the same.
    """
    stages: list[tuple[Stage, tuple[float, ...]]] = [(Stage.BIAS, ())] if bias else []
    greedy = sampling.temperature == 0.0
    penalties = (sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty)
    punishes = penalties != (1.0, 0.0, 0.0)
    if punishes:
        only_down = sampling.repeat_penalty >= 1.0 and min(penalties[1:]) >= 0.0
        needed = 1 if greedy else sampling.top_k
        if only_down and needed > 0:
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
        stages.append((Stage.CHANCE, (seed,)))
    pairs = tuple(sorted((bias or {}).items()))
    return SamplerChain(tuple(stages), PENALTY_WINDOW if punishes else 0, pairs, grammar)
