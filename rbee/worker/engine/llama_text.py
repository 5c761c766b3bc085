"""Tokenize through llama.cpp: a plain text, or a query with a document for a reranking model."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

_RANKING: Final = b"rerank"  # the name of the template in a model file
_QUERY: Final = "{query}"
_DOCUMENT: Final = "{document}"
_NONE: Final = -1  # a token that the vocabulary lacks
_SUM_TOLERANCE: Final = 1e-3


def tokenize(lib: Any, vocab: int, text: str, *, ends: bool, special: bool) -> list[int]:
    """Return the tokens of *text*.

    Raises RbeeError INVALID_REQUEST where there are too many to count.

    Args:
        ends: add the tokens that the model expects at the beginning and the end of a text.
        special: names of special tokens count as such.
    """
    data = text.encode("utf-8", "replace")
    room = len(data) + 8
    for _ in range(2):
        tokens = (ctypes.c_int32 * room)()
        count = lib.llama_tokenize(vocab, data, len(data), tokens, room, ends, special)
        if count >= 0:
            return tokens[:count]
        room = -count
    raise RbeeError(ErrorCode.INVALID_REQUEST, "The prompt cannot be tokenized.", param="prompt")


def tokenize_pair(lib: Any, model: int, vocab: int, query: str, document: str) -> list[int]:
    """Return the tokens of a pair: by the model's own template, else joined with its separator tokens."""
    template = lib.llama_model_chat_template(model, _RANKING)
    if template:
        return tokenize(
            lib, vocab, _fill(template.decode("utf-8", "replace"), query, document), ends=False, special=True
        )
    asked, read = (tokenize(lib, vocab, text, ends=False, special=False) for text in (query, document))
    begin = [lib.llama_vocab_bos(vocab)] if lib.llama_vocab_get_add_bos(vocab) else []
    end = [lib.llama_vocab_eos(vocab)] if lib.llama_vocab_get_add_eos(vocab) else []
    between = [lib.llama_vocab_sep(vocab)] if lib.llama_vocab_get_add_sep(vocab) else []
    # BERT has no end token but its separator, which it was trained to see after the document as well.
    tokens = [*begin, *asked, *end, *between, *read, *(end or between)]
    return [int(token) for token in tokens if token != _NONE]


def relevance(outputs: Sequence[float]) -> float:
    """Return how well a document answers, from 0 to 1, from the outputs of a reranking model.

    One number is a logit. Of several the first is for "yes": they are probabilities already, or logits too.
    """
    if len(outputs) == 1:
        return _logistic(outputs[0])
    if min(outputs) >= 0.0 and math.isclose(sum(outputs), 1.0, abs_tol=_SUM_TOLERANCE):
        return float(outputs[0])
    top = max(outputs)
    weights = [math.exp(value - top) for value in outputs]
    return weights[0] / sum(weights)


def _logistic(value: float) -> float:
    """Return the logistic of *value*, without overflow."""
    if value >= 0.0:
        return 1.0 / (1.0 + math.exp(-value))
    small = math.exp(value)
    return small / (1.0 + small)


def _fill(template: str, query: str, document: str) -> str:
    """Insert both into the template; a placeholder within the query stays as it is."""
    parts = template.split(_QUERY)
    return query.join(part.replace(_DOCUMENT, document) for part in parts)
