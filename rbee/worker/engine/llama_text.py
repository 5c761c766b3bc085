"""Tokenize through llama.cpp: a plain text, or a query with a document for a reranking model."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.chat.plain_text import choose_guard, cut_at_marks, forged_marks, guarded_text

_RANKING: Final = b"rerank"  # the name of the template in a model file
_QUERY: Final = "{query}"
_DOCUMENT: Final = "{document}"
_NONE: Final = -1  # a token that the vocabulary lacks
_SUM_TOLERANCE: Final = 1e-3
_INITIALS: Final = "<["  # with which names begin
_MANY_NAMES: Final = 2000
_PIECE_CHARS: Final = 4096


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


def tokenize_marked(lib: Any, vocab: int, text: str, *, ends: bool, names: ControlTexts) -> list[int]:
    """Return the tokens of *text*, in which names of special tokens count as such; `ends` is as in `tokenize`.

    llama.cpp takes a time that grows with the square of their number. So a text of many is tokenized in pieces, each
    of which ends where a name begins: there a text is cut anyway.
    """
    if sum(map(text.count, _INITIALS)) < _MANY_NAMES:
        return tokenize(lib, vocab, text, ends=ends, special=True)
    pieces = cut_before_names(text, [name for name in names.all if name in text], chars=_PIECE_CHARS)
    tokens = [token for piece in pieces for token in tokenize(lib, vocab, piece, ends=False, special=True)]
    return with_ends(lib, vocab, tokens) if ends else tokens


def cut_before_names(text: str, names: Sequence[str], *, chars: int) -> Iterator[str]:
    """Yield the pieces of *text*: each but the first begins with a name, and few hold names beyond *chars*.

    Some tokens take the white space before them: within four times as much no text is cut after a space.
    """
    start = end = 0
    while (end := end + chars) < len(text):
        found = sorted((at for name in names if (at := text.rfind(name, start + 1, end)) > start), reverse=True)
        last = found[0] if found and end - start >= 4 * chars else None
        cut = next((at for at in found if not text[at - 1].isspace()), last)
        if cut is not None:
            yield text[start:cut]
            start = end = cut
    yield text[start:]


class ControlTexts:
    """The names of the tokens that tell turns apart, "" for all others; each is looked up once."""

    def __init__(self, lib: Any, vocab: int) -> None:
        self._lib = lib
        self._vocab = vocab
        self._known: dict[int, str] = {}

    @cached_property
    def all(self) -> tuple[str, ...]:
        """All of the names."""
        return tuple(filter(None, map(self, range(self._lib.llama_vocab_n_tokens(self._vocab)))))

    def __call__(self, token: int) -> str:
        """Return the name of a token."""
        known = self._known.get(token)
        if known is None:
            known = self._known[token] = self._look_up(token)
        return known

    def _look_up(self, token: int) -> str:
        lib = self._lib
        kind = lib.llama_vocab_get_attr(self._vocab, token)
        if not kind & (lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN | lib.LLAMA_TOKEN_ATTR_USER_DEFINED):
            return ""
        text = bytes(lib.llama_vocab_get_text(self._vocab, token) or b"").decode("utf-8", "replace")
        # Files differ in what they call a control token; what looks like one is no word of a text.
        if kind & lib.LLAMA_TOKEN_ATTR_USER_DEFINED and not (text.startswith("<|") and text.endswith("|>")):
            return ""
        return text if len(text) > 1 else ""


def with_ends(lib: Any, vocab: int, tokens: Sequence[int]) -> list[int]:
    """Return *tokens* with those that the model expects at the beginning and the end of a text."""
    begin = [lib.llama_vocab_bos(vocab)] if lib.llama_vocab_get_add_bos(vocab) else []
    end = [lib.llama_vocab_eos(vocab)] if lib.llama_vocab_get_add_eos(vocab) else []
    return [*begin, *tokens, *end]


def tokenize_parts(
    lib: Any, vocab: int, parts: Sequence[tuple[str, bool]], *, guard: str, control_text: Callable[[int], str]
) -> list[int]:
    """Return the tokens of parts, each with whether it is the name of a special token, without those at the ends.

    llama.cpp takes some tokens for such even in plain text; where one comes out, the text is cut at *guard*.
    """
    tokens: list[int] = []
    for text, special in parts:
        if special:
            tokens += tokenize(lib, vocab, text, ends=False, special=True)
            continue
        pieces = text.split(guard)
        plain = tokenize(lib, vocab, "".join(pieces), ends=False, special=False)
        if len(pieces) > 1 and any(map(control_text, plain)):
            plain = [token for piece in pieces for token in tokenize(lib, vocab, piece, ends=False, special=False)]
        tokens += plain
    return tokens


def tokenize_pair(
    lib: Any, model: int, vocab: int, query: str, document: str, *, control_text: ControlTexts
) -> list[int]:
    """Return the tokens of a pair: by the model's own template, else joined with its separator tokens.

    What query and document say is plain text.
    """
    stated = lib.llama_model_chat_template(model, _RANKING)
    if stated:
        template = stated.decode("utf-8", "replace")
        tokens = tokenize_marked(lib, vocab, _fill(template, query, document), ends=False, names=control_text)
        marks = {text for token in set(tokens) if (text := control_text(token))}
        if not forged_marks(marks, (query, document)):
            return tokens
        guard = choose_guard((query, document, template))
        inner = (guarded_text(text, marks, guard) for text in (query, document))
        return tokenize_parts(
            lib, vocab, cut_at_marks(_fill(template, *inner), marks), guard=guard, control_text=control_text
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
