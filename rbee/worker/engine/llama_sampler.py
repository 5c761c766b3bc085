"""The samplers of one slot: its chain of stages, and the grammar that the answer is held to."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from rbee.worker.engine.guidance import CompiledGrammar
from rbee.worker.engine.protocol import NO_TOKEN
from rbee.worker.text.sampling import SamplerChain, Stage

_MIN_KEEP: Final = 1  # a sampler that truncates leaves at least one token


class SlotSampler:
    """The sampler of one slot.

    Args:
        lib: the functions of llama.cpp.
        history: the tokens before.
    """

    def __init__(self, lib: Any, vocabulary: int, chain: SamplerChain, history: Sequence[int]) -> None:
        self._lib = lib
        self._vocabulary = vocabulary
        self.chain = _new_chain(lib)
        for stage, numbers in chain.stages:
            lib.llama_sampler_chain_add(self.chain, _sampler(lib, vocabulary, chain, stage, numbers))
        if chain.history:
            for token in history[-chain.history :]:
                lib.llama_sampler_accept(self.chain, token)
        assert chain.grammar is None or isinstance(chain.grammar, CompiledGrammar)
        self.grammar = None if chain.grammar is None else chain.grammar.begin()
        self.forced: deque[int] = deque()

    def force(self, tokens: Sequence[int]) -> None:
        """Return *tokens* from `next_forced`, which the grammar must allow."""
        self.forced.extend(tokens)

    def next_forced(self) -> int:
        """Return the next token that was forced; `NO_TOKEN` where the grammar does not allow it."""
        token = self.forced.popleft()
        self._lib.llama_sampler_accept(self.chain, token)
        return token if self.grammar is None or self.grammar.accept(token) else NO_TOKEN

    def sample_in_grammar(self, context: int, row: int) -> int:
        """Sample a token with the stages; only if the grammar forbids it, sample again among those that it allows.

        `NO_TOKEN` where the grammar has failed.
        """
        lib, grammar = self._lib, self.grammar
        assert grammar is not None
        spare = lib.llama_sampler_clone(self.chain)
        token = int(lib.llama_sampler_sample(self.chain, context, row))
        if grammar.accept(token):
            lib.llama_sampler_free(spare)
            return token
        lib.llama_sampler_free(self.chain)
        self.chain = spare
        return self._sample_allowed(context, row)

    def _sample_allowed(self, context: int, row: int) -> int:
        """Sample with the logits of what is forbidden at minus infinity, and give them back as they were."""
        import numpy as np

        lib, grammar = self._lib, self.grammar
        assert grammar is not None
        allowed = grammar.allowed()
        if allowed is None:
            return NO_TOKEN
        logits = np.ctypeslib.as_array(lib.llama_get_logits_ith(context, row), shape=(self._vocabulary,))
        before = logits.copy()
        logits[~allowed] = -np.inf
        token = int(lib.llama_sampler_sample(self.chain, context, row))
        logits[:] = before
        return token if grammar.accept(token) else NO_TOKEN

    def free(self) -> None:
        """Free the memory that llama.cpp holds."""
        self._lib.llama_sampler_free(self.chain)


def _new_chain(lib: Any) -> Any:
    params = lib.llama_sampler_chain_default_params()
    params.no_perf = True
    return lib.llama_sampler_chain_init(params)


def _sampler(lib: Any, vocabulary: int, chain: SamplerChain, stage: Stage, numbers: tuple[float, ...]) -> Any:
    if stage is Stage.BIAS:
        pairs = (lib.llama_logit_bias * len(chain.bias))(*chain.bias)
        return lib.llama_sampler_init_logit_bias(vocabulary, len(chain.bias), pairs)
    if stage is Stage.PENALTIES:
        window, repeat, frequency, presence = numbers
        return lib.llama_sampler_init_penalties(vocabulary, int(window), repeat, frequency, presence)
    if stage is Stage.TOP_K:
        return lib.llama_sampler_init_top_k(int(numbers[0]))
    if stage is Stage.TOP_P:
        return lib.llama_sampler_init_top_p(numbers[0], _MIN_KEEP)
    if stage is Stage.MIN_P:
        return lib.llama_sampler_init_min_p(numbers[0], _MIN_KEEP)
    if stage is Stage.TEMPERATURE:
        return lib.llama_sampler_init_temp(numbers[0])
    if stage is Stage.RANDOM:
        return lib.llama_sampler_init_dist(int(numbers[0]))
    return lib.llama_sampler_init_greedy()
