"""The samplers of one slot: its chain of stages, and a grammar applied beside it."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any, Final

from rbee.worker.text.sampling import SamplerChain, Stage

_MIN_KEEP: Final = 1  # a sampler that truncates leaves at least one token
_ROOT: Final = b"root"
_NOT_CHOSEN: Final = -1
_UNSORTED: Final = False


class SlotSampler:
    """The sampler of one slot.

    Args:
        lib: the functions of llama.cpp.
        history: the tokens before.
    """

    def __init__(self, lib: Any, vocab: int, vocabulary: int, chain: SamplerChain, history: Sequence[int]) -> None:
        self._lib = lib
        self.chain = _new_chain(lib)
        for stage, numbers in chain.stages:
            lib.llama_sampler_chain_add(self.chain, _sampler(lib, vocabulary, chain, stage, numbers))
        if chain.history:
            for token in history[-chain.history :]:
                lib.llama_sampler_accept(self.chain, token)
        self.grammar = compile_grammar(lib, vocab, chain.grammar) if chain.grammar is not None else None
        if self.grammar is not None:
            self._one = lib.llama_token_data(0, 0.0, 0.0)
            self._ones = lib.llama_token_data_array(ctypes.pointer(self._one), 1, _NOT_CHOSEN, _UNSORTED)

    def sample_in_grammar(self, context: int, row: int) -> int:
        """Sample a token with the stages; only if the grammar forbids it, sample again among those that it allows.

        To apply a grammar to the whole vocabulary takes as long as a step; to apply it to one token takes no time.
        """
        lib, grammar = self._lib, self.grammar
        spare = lib.llama_sampler_clone(self.chain)
        token = int(lib.llama_sampler_sample(self.chain, context, row))
        if self._allowed(token):
            lib.llama_sampler_free(spare)
            lib.llama_sampler_accept(grammar, token)
            return token
        lib.llama_sampler_free(self.chain)
        self.chain = spare
        both = _new_chain(lib)
        lib.llama_sampler_chain_add(both, grammar)
        lib.llama_sampler_chain_add(both, spare)
        token = int(lib.llama_sampler_sample(both, context, row))
        lib.llama_sampler_chain_remove(both, 1)
        lib.llama_sampler_chain_remove(both, 0)
        lib.llama_sampler_free(both)
        return token

    def free(self) -> None:
        """Free the memory that llama.cpp holds."""
        self._lib.llama_sampler_free(self.chain)
        if self.grammar is not None:
            self._lib.llama_sampler_free(self.grammar)

    def _allowed(self, token: int) -> bool:
        self._one.id, self._one.logit = token, 1.0
        self._ones.size, self._ones.selected, self._ones.sorted = 1, _NOT_CHOSEN, _UNSORTED
        self._lib.llama_sampler_apply(self.grammar, ctypes.byref(self._ones))
        return not math.isinf(self._one.logit)


def compile_grammar(lib: Any, vocab: int, grammar: str) -> Any:
    """Compile a grammar; return None if llama.cpp cannot."""
    return lib.llama_sampler_init_grammar(vocab, grammar.encode(), _ROOT) or None


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
