"""A model loaded through llama.cpp, with one sequence of its cache for each slot."""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Sequence
from typing import Any, Final

from rbee.worker.engine.guidance import CompiledGrammar, Vocabulary
from rbee.worker.engine.llama import Llama
from rbee.worker.engine.llama_logprobs import logprobs
from rbee.worker.engine.llama_sampler import SlotSampler
from rbee.worker.engine.llama_text import (
    ControlTexts,
    relevance,
    tokenize,
    tokenize_marked,
    tokenize_pair,
    tokenize_parts,
    with_ends,
)
from rbee.worker.engine.mapped_files import MappedFiles
from rbee.worker.engine.protocol import EngineFailedError, GrammarError, Logprob, ModelFacts
from rbee.worker.scheduling.attention_tiles import AttentionTiles
from rbee.worker.scheduling.slots import StepPlan
from rbee.worker.text.sampling import SamplerChain, Stage

_OK: Final = 0
_ABORTED: Final = 2
_SET: Final = b"x"
_UNSET: Final = b"\0"
_PLAIN: Final = False  # special tokens have no text
_DATA_STAYS: Final = False
_PARSE_SPECIAL: Final = True  # names of special tokens count as such


class LlamaEngine:
    """The engine; see `engine.protocol.Engine`.

    The batch is allocated once and written in place: a step costs a few slice assignments in Python.
    """

    def __init__(
        self,
        llama: Llama,
        model: int,
        context: int,
        facts: ModelFacts,
        *,
        slots: int,
        rows: int,
        chunk_tokens: int,
        tiles: AttentionTiles | None = None,
        files: MappedFiles | None = None,
    ) -> None:
        lib = self._lib = llama.lib
        self.facts = facts
        self.chunk_tokens = chunk_tokens
        self.tiles = tiles
        self._llama = llama
        self._model = model
        self._context = context
        self._files = files
        self._vocab = lib.llama_model_get_vocab(model)
        self._memory = lib.llama_get_memory(context)
        self._samplers: dict[int, SlotSampler] = {}
        self._chains: dict[int, Any] = {}  # slots without a grammar, sampled in one call each
        self._pieces: dict[int, bytes] = {}
        self.control_text = ControlTexts(lib, self._vocab)
        self._vocabulary: Vocabulary | None = None
        self._vocabulary_lock = threading.Lock()
        self._buffer = ctypes.create_string_buffer(1024)
        recurrent = lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model)
        self.can_copy = not recurrent and lib.llama_model_n_swa(model) == 0
        self.can_rewind = not recurrent
        self._make_batch(slots, rows)
        self._interrupted = ctypes.create_string_buffer(2)
        self._pool = llama.make_threadpool(context, lib.llama_n_threads(context))
        if not recurrent:  # a recurrent state cannot be rewound after an interrupt
            self._set_abort_callback()

    def tokenize(self, text: str, *, special: bool, ends: bool = True) -> list[int]:
        """Return the tokens of *text*, with the begin token if the model wants one and the text lacks it."""
        add_special = ends and not (special and self.facts.begin_text and text.startswith(self.facts.begin_text))
        if special:
            return tokenize_marked(self._lib, self._vocab, text, ends=add_special, names=self.control_text)
        return tokenize(self._lib, self._vocab, text, ends=add_special, special=False)

    def tokenize_pair(self, query: str, document: str) -> list[int]:
        """Return the tokens of both, joined as the model's file states."""
        return tokenize_pair(self._lib, self._model, self._vocab, query, document, control_text=self.control_text)

    def tokenize_parts(self, parts: Sequence[tuple[str, bool]], *, guard: str) -> list[int]:
        """Return the tokens of parts; those at the ends are as `tokenize` has them."""
        tokens = tokenize_parts(self._lib, self._vocab, parts, guard=guard, control_text=self.control_text)
        begins = bool(parts) and parts[0] == (self.facts.begin_text, True)
        return tokens if begins else with_ends(self._lib, self._vocab, tokens)

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token, none for a special one."""
        known = self._pieces.get(token)
        if known is not None:
            return known
        size = self._lib.llama_token_to_piece(self._vocab, token, self._buffer, len(self._buffer), 0, _PLAIN)
        if size < 0:
            self._buffer = ctypes.create_string_buffer(-size)
            size = self._lib.llama_token_to_piece(self._vocab, token, self._buffer, -size, 0, _PLAIN)
        piece = self._pieces[token] = self._buffer.raw[: max(size, 0)]
        return piece

    def special_token(self, text: str) -> int | None:
        """Return the special token of that name."""
        data, tokens = text.encode(), (ctypes.c_int32 * 2)()
        count = self._lib.llama_tokenize(self._vocab, data, len(data), tokens, 2, False, _PARSE_SPECIAL)  # noqa: FBT003
        return int(tokens[0]) if count == 1 else None

    def load_vocabulary(self) -> None:
        """Make llguidance's tokenizer, once."""
        with self._vocabulary_lock:
            if self._vocabulary is None:
                self._vocabulary = Vocabulary(self._lib, self._vocab, self.facts.vocabulary)

    def compile_grammar(self, grammar: str) -> CompiledGrammar:
        """Compile a grammar."""
        self.load_vocabulary()
        assert self._vocabulary is not None
        try:
            return self._vocabulary.compile(grammar)
        except ValueError as error:
            raise GrammarError(str(error)) from error

    def grammar_failure(self, slot: int) -> str:
        """Return why the slot's grammar has failed."""
        grammar = self._samplers[slot].grammar
        return "" if grammar is None else grammar.failure

    def is_end(self, token: int) -> bool:
        """Return whether *token* ends a generation."""
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token))

    def set_sampler(self, slot: int, chain: SamplerChain, history: Sequence[int]) -> None:
        """Build the slot's own sampler chain."""
        sampler = SlotSampler(self._lib, self.facts.vocabulary, chain, history)
        self._samplers[slot] = sampler
        if sampler.grammar is None:
            self._chains[slot] = sampler.chain

    def force(self, slot: int, tokens: Sequence[int]) -> None:
        """Have the slot's sampler return *tokens* next."""
        self._samplers[slot].force(tokens)
        self._chains.pop(slot, None)  # from now on it is sampled on its own

    def clear_sampler(self, slot: int) -> None:
        """Free the slot's samplers."""
        self._chains.pop(slot, None)
        sampler = self._samplers.pop(slot, None)
        if sampler is not None:
            sampler.free()

    def truncate(self, slot: int, count: int) -> bool:
        """Cut the slot's cache; a recurrent state that cannot be cut is cleared."""
        if self._lib.llama_memory_seq_rm(self._memory, slot, count, -1):
            return True
        self._lib.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return False

    def copy(self, source: int, slot: int, count: int) -> None:
        """Copy a whole sequence, which is all that llama.cpp can between streams, and cut the copy."""
        self._lib.llama_memory_seq_rm(self._memory, slot, -1, -1)
        self._lib.llama_memory_seq_cp(self._memory, source, slot, -1, -1)
        self._lib.llama_memory_seq_rm(self._memory, slot, count, -1)

    def step(self, plan: StepPlan) -> list[int] | None:
        """Decode one batch and sample its outputs."""
        count = len(plan.tokens)
        batch = self._batch
        batch.n_tokens = count
        self._tokens[:count] = plan.tokens
        self._positions[:count] = plan.positions
        self._wanted[:count] = self._none[:count]
        sequences, of_slot = self._sequences, self._of_slot
        for row, slot in enumerate(plan.slots):
            sequences[row] = of_slot[slot]
        for row in plan.outputs:
            self._wanted[row] = 1
        if plan.drafts:
            for row in plan.outputs:
                for ahead in range(len(plan.drafts.get(plan.slots[row], ()))):
                    self._wanted[row + ahead + 1] = 1
        result = self._lib.llama_decode(self._context, batch)
        if result == _ABORTED:
            return None
        if result != _OK:
            raise EngineFailedError(
                f"llama_decode returned {result} for a batch of {count} tokens; {'; '.join(self._llama.errors)}"
            )
        self._check_files()
        if len(self._chains) < len(self._samplers):
            return [self.sample(plan.slots[row], row) for row in plan.outputs]
        sample, context, chains, slots = self._lib.llama_sampler_sample, self._context, self._chains, plan.slots
        return [sample(chains[slots[row]], context, row) for row in plan.outputs]

    def sample(self, slot: int, row: int) -> int:
        """Sample with the slot's own sampler."""
        sampler = self._samplers[slot]
        if sampler.forced:
            return sampler.next_forced()
        if sampler.grammar is None:
            return int(self._lib.llama_sampler_sample(sampler.chain, self._context, row))
        return sampler.sample_in_grammar(self._context, row)

    def logprobs(self, row: int, token: int, most: int) -> list[Logprob]:
        """Compute log probabilities from the logits of an output of the last step."""
        logits = self._lib.llama_get_logits_ith(self._context, row)
        return logprobs(logits, self.facts.vocabulary, token, most)

    def embed(self, tokens: Sequence[int]) -> list[float]:
        """Evaluate the text in one batch, since its tokens may attend to each other, and return the pooled vector."""
        count = len(tokens)
        batch = self._batch
        batch.n_tokens = count
        self._tokens[:count] = tokens
        self._positions[:count] = range(count)
        self._wanted[:count] = [1] * count
        for row in range(count):
            self._sequences[row] = self._of_slot[0]
        result = self._lib.llama_decode(self._context, batch)
        if result != _OK:
            raise EngineFailedError(f"llama_decode returned {result} for a text of {count} tokens")
        self._check_files()
        pooled = self._lib.llama_get_embeddings_seq(self._context, 0)
        if self._memory is not None:
            self._lib.llama_memory_clear(self._memory, _DATA_STAYS)
        vector: list[float] = pooled[: self.facts.embedding]
        if self.facts.ranks:
            return [relevance(vector)]
        length = math.sqrt(sum(value * value for value in vector)) or 1.0
        return [value / length for value in vector]

    def interrupt(self) -> None:
        """Set the flag that the CPU's compute threads check between two operations."""
        self._interrupted[0] = _SET

    def resume(self) -> None:
        """Clear that flag."""
        self._interrupted[0] = _UNSET

    def warm_up(self) -> None:
        """Evaluate one token, so that weights are paged in before the first request waits for them.

        One thread is used: several would wait for each other at every operation while the machine is busy.
        """
        lib, context = self._lib, self._context
        if self.facts.embedding:
            self.embed([max(lib.llama_vocab_bos(self._vocab), 0)])
            return
        threads, batch_threads = lib.llama_n_threads(context), lib.llama_n_threads_batch(context)
        lib.llama_set_n_threads(context, 1, 1)
        self.set_sampler(0, SamplerChain(((Stage.GREEDY, ()),)), ())
        self.step(StepPlan([max(lib.llama_vocab_bos(self._vocab), 0)], [0], [0], [0], {0: 1}))
        self.clear_sampler(0)
        lib.llama_memory_clear(self._memory, _DATA_STAYS)
        lib.llama_set_n_threads(context, threads, batch_threads)

    def close(self) -> None:
        """Free samplers, context and model."""
        for slot in list(self._samplers):
            self.clear_sampler(slot)
        self._lib.llama_free(self._context)
        self._llama.free_threadpool(self._pool)
        self._lib.llama_model_free(self._model)
        if self._files is not None:
            self._files.close()

    def _check_files(self) -> None:
        if self._files is not None and self._files.changed():
            raise EngineFailedError("the file of its model was changed while it was in use")

    def _make_batch(self, slots: int, rows: int) -> None:
        """Allocate the arrays that every step's batch is written into."""
        id_pointer = ctypes.POINTER(ctypes.c_int32)
        self._tokens: Any = (ctypes.c_int32 * rows)()
        self._positions: Any = (ctypes.c_int32 * rows)()
        self._counts = (ctypes.c_int32 * rows)(*([1] * rows))
        self._sequences = (id_pointer * rows)()
        self._wanted: Any = (ctypes.c_int8 * rows)()
        self._none = [0] * rows
        self._ids = [ctypes.c_int32(slot) for slot in range(slots)]
        self._of_slot = [ctypes.pointer(number) for number in self._ids]
        batch = self._batch = self._lib.llama_batch()
        batch.token = ctypes.cast(self._tokens, id_pointer)
        batch.pos = ctypes.cast(self._positions, id_pointer)
        batch.n_seq_id = ctypes.cast(self._counts, id_pointer)
        batch.seq_id = ctypes.cast(self._sequences, ctypes.POINTER(id_pointer))
        batch.logits = ctypes.cast(self._wanted, ctypes.POINTER(ctypes.c_int8))

    def _set_abort_callback(self) -> None:
        """Set `strlen(flag)`, "is the flag's text not empty?", as llama.cpp's abort callback.

        A Python callback would take the interpreter's lock for each of the model's thousand operations a step.
        """
        strlen = ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p).value
        self._abort = self._lib.ggml_abort_callback(strlen)
        self._lib.llama_set_abort_callback(self._context, self._abort, ctypes.addressof(self._interrupted))
