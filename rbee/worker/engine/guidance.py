"""llguidance: check grammars, compile them, and hold an answer to one. Only this module imports it.

`handle` is for the confined process, which reads a grammar before the worker does: what overruns a stack or goes on for
minutes does so there.
"""

from __future__ import annotations

import ctypes
import re
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

_CONTROL_MARK: Final = b"\xff"  # by which llguidance knows a token that is no text
_REASON_CHARS: Final = 300
_SCHEMA_FAILED: Final = "failed to compile JSON schema: "
_CAUSE: Final = re.compile(r"^error: (.*)", re.MULTILINE)  # of a regular expression
_HEADER: Final = "%llguidance {}"
_START: Final = re.compile(r"^start:", re.MULTILINE)
_ROOM: Final = 4096
_ANY_RULE: Final = "start: answer\nanswer: %json "


def handle(request: dict[str, Any]) -> dict[str, Any]:
    """Check a `Constraint`'s message.

    Returns: `grammar`, in Lark, with the first of each rule's schemas that can be held; `left`, for each rule of which
    not all can be held the reason.

    Raises RbeeError INVALID_REQUEST where none can, or the grammar is invalid; `details` has the rule.
    """
    lark = request["grammar"] if request["language"] == "lark" else _converted(request["grammar"])
    if request["answer"]:
        lark += "\n" + _START.sub("answer:", _converted(request["answer"]).replace(_HEADER, ""), count=1)
    left: dict[str, str] = {}
    chosen = {rule["name"]: rule["schemas"][0] for rule in request["rules"]}
    reason = _failure(_joined(lark, chosen))
    for rule in request["rules"]:
        failures = [_failure(_ANY_RULE + schema) for schema in rule["schemas"][: None if reason else 1]]
        if failures[0]:
            held = next((schema for schema, failed in zip(rule["schemas"], failures, strict=False) if not failed), None)
            if held is None:
                raise _invalid(failures[0], rule=rule["name"])
            chosen[rule["name"]] = held
            left[rule["name"]] = _plain(failures[0])
        elif unknown := _unknown(rule["schemas"][0]):
            left[rule["name"]] = unknown
    if left and reason:
        reason = _failure(_joined(lark, chosen))
    if reason:
        raise _invalid(reason)
    return {"grammar": _joined(lark, chosen), "left": left}


def _failure(lark: str) -> str:
    """Return why a grammar is invalid, "" if it is not."""
    from llguidance import LLMatcher

    failed, messages = LLMatcher.validate_grammar_with_warnings(lark, limits=_limits())
    return messages[0] if failed else ""


def _unknown(schema: str) -> str:
    """Return what is said of the keywords of a schema that are not known, and left to the model."""
    from llguidance import LLMatcher

    failed, messages = LLMatcher.validate_grammar_with_warnings(_ANY_RULE + schema, limits=_limits())
    return "" if failed or not messages else _plain(messages[0])


class Vocabulary:
    """The tokens of a model as llguidance takes them: made once, which takes up to a second.

    Args:
        lib: the functions of llama.cpp.
    """

    def __init__(self, lib: Any, vocab: int, size: int) -> None:
        import numpy  # noqa: F401, ICN001 (otherwise the engine's thread would import it at its first mask)
        from llguidance import LLTokenizer

        buffer = ctypes.create_string_buffer(_ROOM)
        tokens, ends = [], []
        for token in range(size):
            length = lib.llama_token_to_piece(vocab, token, buffer, _ROOM, 0, True)  # noqa: FBT003
            piece = buffer.raw[: max(length, 0)]
            control = lib.llama_vocab_get_attr(vocab, token) & lib.LLAMA_TOKEN_ATTR_CONTROL
            tokens.append(_CONTROL_MARK + piece if control else piece)
            if lib.llama_vocab_is_eog(vocab, token):
                ends.append(token)
        tokenize = ctypes.cast(lib._lib.llama_tokenize, ctypes.c_void_p).value  # noqa: SLF001
        self._size = size
        self._ends = frozenset(ends)
        self._tokenizer = LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]
            tokens=tokens, vocab_ptr=vocab, tokenize_fptr=tokenize, eos_token=ends
        )

    def compile(self, lark: str) -> CompiledGrammar:
        """Compile a grammar that `handle` returned. Raises ValueError with the reason where it cannot be."""
        from llguidance import LLMatcher

        matcher = LLMatcher(self._tokenizer, lark, log_level=0, limits=_limits())
        if matcher.is_error():
            raise ValueError(_plain(matcher.get_error()))
        return CompiledGrammar(matcher, self._size, self._ends)


class CompiledGrammar:
    """A grammar that answers can be held to, each from its beginning."""

    def __init__(self, matcher: Any, size: int, ends: frozenset[int]) -> None:
        self._matcher = matcher
        self._size = size
        self._ends = ends

    def begin(self) -> GrammarState:
        """Return the state of a new answer."""
        return GrammarState(self._matcher.deep_copy(), self._size, self._ends)


class GrammarState:
    """How far an answer has come."""

    def __init__(self, matcher: Any, size: int, ends: frozenset[int]) -> None:
        self._matcher = matcher
        self._size = size
        self._ends = ends
        self._mask: Any = None

    @property
    def failure(self) -> str:
        """Return why the answer cannot go on."""
        return _plain(self._matcher.get_error()) or "no token of the model fits it"

    def accept(self, token: int) -> bool:
        """Take *token* as the next if the grammar allows it; return whether it does."""
        matcher = self._matcher
        if matcher.is_stopped() and not matcher.is_error():  # nothing fits any more but the end, which it does not take
            return token in self._ends
        return bool(matcher.try_consume_tokens([token]))

    def allowed(self) -> Any:
        """Return which tokens may be next, an array of as many bools as there are tokens; None if it has failed."""
        import numpy as np

        if self._mask is None:
            self._mask = np.zeros((self._size + 31) // 32, dtype=np.uint32)
        if not self._matcher.is_error():
            self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        if self._matcher.is_error():
            return None
        return np.unpackbits(self._mask.view(np.uint8), count=self._size, bitorder="little").view(bool)


def _limits() -> Any:
    """Return what one grammar may cost; a step that costs more than some milliseconds would stop all other streams."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        step_max_items=20_000,
        step_lexer_fuel=200_000,
        max_lexer_states=50_000,
        precompute_large_lexemes=False,
        verbose_errors=False,
    )


def _converted(gbnf: str) -> str:
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        return str(gbnf_to_lark(gbnf))
    except RecursionError:
        raise _invalid("it is nested too deeply") from None
    except MemoryError:
        raise
    except Exception as error:
        raise _invalid(str(error) or type(error).__name__) from error


def _joined(lark: str, rules: dict[str, str]) -> str:
    return "\n".join([lark, *(f"{name}: %json {schema}" for name, schema in rules.items())])


def _invalid(reason: str, *, rule: str = "") -> RbeeError:
    return RbeeError(ErrorCode.INVALID_REQUEST, _plain(reason), details={"rule": rule} if rule else None)


def _plain(message: str) -> str:
    """Return the reason in a message of llguidance's, without the excerpt of the grammar that follows it."""
    reason = message.rpartition(_SCHEMA_FAILED)[2]
    cause = _CAUSE.search(reason)
    reason = reason.partition("\n   ")[0].partition("\n<")[0]
    return " ".join(f"{reason} {cause[1] if cause else ''}".split())[:_REASON_CHARS].rstrip(".")
