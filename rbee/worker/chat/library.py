"""llama.cpp's chat library, built into the llama.cpp wheel from `rbee/native`: templates, and parsers of answers.

A template needs no model, so any process may open one. A source, a request and an answer come from strangers: the
process that opens templates and applies requests has limits of time and memory (`rbee.worker.confined`), and the text
that a parser reads is bounded by its caller.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
import weakref
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

_OUT_OF_MEMORY: Final = "bad_alloc"
_NAME: Final = "librbee_chat.dylib" if sys.platform == "darwin" else "librbee_chat.so"


class ChatLibraryError(Exception):
    """Raised with the library's own words: a template that does not parse, or a request that it refuses."""


@dataclass(frozen=True, slots=True)
class ToolCallText:
    """A call of a tool as far as it is written; `arguments` is JSON, or the beginning of it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class AnswerMessage:
    """What a parser has read so far."""

    content: str
    reasoning: str
    tool_calls: tuple[ToolCallText, ...]


class NativeTemplate:
    """An open template, given its source and the texts of the tokens that begin and end a text.

    Raises ChatLibraryError where the source does not parse.
    """

    def __init__(self, source: str, *, begin: str, end: str) -> None:
        lib = _library()
        error = ctypes.c_void_p()
        handle = lib.rbee_chat_template_open(_encoded(source), _encoded(begin), _encoded(end), ctypes.byref(error))
        self.capabilities: dict[str, bool] = _answer(lib, error.value)["capabilities"]
        self._handle = handle
        weakref.finalize(self, lib.rbee_chat_template_close, handle)

    def apply(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the prompt for a request, and what is needed to hold and to read its answer.

        Args:
            request: `messages` and `tools` in OpenAI's form, `tool_choice` (a word), `parallel_tool_calls`,
                `enable_thinking`, `continue_final_message`, `template_kwargs`, and `content_only`, which writes no
                parser.

        Raises ChatLibraryError.
        """
        lib = _library()
        return _answer(lib, lib.rbee_chat_apply(self._handle, _encoded(json.dumps(request))))


class NativeParser:
    """A parser of answers, given `format`, `generation_prompt` and `parser` of what `NativeTemplate.apply` returned."""

    def __init__(self, description: dict[str, Any]) -> None:
        lib = _library()
        error = ctypes.c_void_p()
        handle = lib.rbee_chat_parser_open(_encoded(json.dumps(description)), ctypes.byref(error))
        _answer(lib, error.value)
        self._handle = handle
        weakref.finalize(self, lib.rbee_chat_parser_close, handle)

    def parse(self, text: str, *, partial: bool) -> AnswerMessage:
        """Return the message that *text* is, or begins. Raises ChatLibraryError where it is in no form of the model."""
        lib = _library()
        data = _encoded(text)
        found = _answer(lib, lib.rbee_chat_parse(self._handle, data, len(data), partial))
        calls = tuple(ToolCallText(call["id"], call["name"], call["arguments"]) for call in found["tool_calls"])
        return AnswerMessage(found["content"], found["reasoning_content"], calls)


def is_there() -> bool:
    """Return whether the llama.cpp that is installed here has the library."""
    return (package := folder()) is not None and (package / "lib" / _NAME).exists()


def folder() -> Path | None:
    """Return the folder of the installed llama.cpp; None if there is none."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


@cache
def _library() -> Any:
    """Load the library. Raises RbeeError WORKER_START_FAILED where it is missing."""
    package = folder()
    if package is None or not is_there():
        raise RbeeError(
            ErrorCode.WORKER_START_FAILED,
            f"The llama.cpp that is installed here has no chat library ({_NAME}): an earlier build of its wheel.",
            hint="Install the wheel of this version of rbee: make setup, or rbee-keeper hive upgrade.",
        )
    lib = ctypes.CDLL(str(package / "lib" / _NAME))
    text, handle = ctypes.c_char_p, ctypes.c_void_p
    for name, result, arguments in (
        ("rbee_chat_template_open", handle, [text, text, text, ctypes.POINTER(handle)]),
        ("rbee_chat_template_close", None, [handle]),
        ("rbee_chat_apply", handle, [handle, text]),
        ("rbee_chat_parser_open", handle, [text, ctypes.POINTER(handle)]),
        ("rbee_chat_parser_close", None, [handle]),
        ("rbee_chat_parse", handle, [handle, text, ctypes.c_size_t, ctypes.c_int]),
        ("rbee_chat_free", None, [handle]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def _encoded(text: str) -> bytes:
    """Encode for C, in which a text ends at a zero byte."""
    return text.encode("utf-8", "replace").replace(b"\0", b"\xef\xbf\xbd")


def _answer(lib: Any, address: int | None) -> dict[str, Any]:
    """Return the JSON at *address*, which is freed. Raises ChatLibraryError where it is an error."""
    if not address:
        raise MemoryError
    try:
        answer: dict[str, Any] = json.loads(ctypes.string_at(address))
    finally:
        lib.rbee_chat_free(address)
    if _OUT_OF_MEMORY in answer.get("error", ""):
        raise MemoryError
    if "error" in answer:
        raise ChatLibraryError(answer["error"])
    return answer
