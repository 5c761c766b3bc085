"""Render a conversation with the model's own chat template, which is foreign code, in a sandbox.

The sandbox keeps the template from Python and files; what keeps it from time and memory is the confined process in
which this module runs: `prompts` asks it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Final, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, meta
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

MAX_TEMPLATE_CHARS: Final = 200_000
MAX_RENDERED_CHARS: Final = 8_000_000  # four of the longest prompts


def handle(request: dict[str, Any]) -> Any:
    """Answer a request of `prompts`: the names that a template looks at or, with messages, what it renders.

    Raises RbeeError as `ChatTemplate` does.
    """
    template = _compiled(request["source"], request["begin"], request["end"], request["guard"])
    if "messages" not in request:
        return sorted(template.names)
    return template.render(request["messages"], tools=request["tools"])


class _RefusedError(Exception):
    """Raised when the template itself refuses the conversation."""


class ChatTemplate:
    """A model's chat template; `names` are the variables that it looks at, `source` is its text.

    Raises RbeeError MODEL_INVALID when made from one that does not compile.

    Args:
        source: the template of the model file.
        begin: text of the begin-of-text token; the template or the tokenizer adds it.
        end: text of the end-of-text token.
        guard: a character that comes out as it went in, whatever the template does with a text.
    """

    def __init__(self, source: str, *, begin: str, end: str, guard: str = "") -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = partial(_tojson, guard)
        environment.globals.update(raise_exception=_refuse, strftime_now=_strftime_now)
        if len(source) > MAX_TEMPLATE_CHARS:
            raise RbeeError(ErrorCode.MODEL_INVALID, f"The model's chat template has {len(source)} characters.")
        try:
            self.names = frozenset(meta.find_undeclared_variables(environment.parse(source)))
            self._template = environment.from_string(source)
        except TemplateError as error:
            reason = str(error.message)
            if isinstance(error, TemplateSyntaxError):
                reason = f"line {error.lineno}: {reason.removesuffix('.')}"
            raise RbeeError(
                ErrorCode.MODEL_INVALID,
                f"The model's chat template does not compile: {reason}.",
                details={"reason": reason},
            ) from error
        self.source = source
        self._tokens = {"bos_token": begin, "eos_token": end}

    def render(self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """Render the prompt of a conversation. Raises RbeeError INVALID_REQUEST where the template refuses it."""
        values: dict[str, Any] = {"messages": [dict(message) for message in messages], **self._tokens}
        if tools:
            values["tools"] = [dict(tool) for tool in tools]
        text: list[str] = []
        size = 0
        try:
            for piece in self._template.generate(add_generation_prompt=True, **values):
                text.append(piece)
                size += len(piece)
                if size > MAX_RENDERED_CHARS:
                    raise _RefusedError(f"it gives more than {MAX_RENDERED_CHARS} characters")
        except MemoryError:  # about the process, not the messages
            raise
        # A template is foreign code: whatever it raises is about this model and these messages.
        except Exception as error:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"The model's chat template rejects these messages: {error}.",
                hint="Change the roles or their order, or send a raw prompt ('raw': true, --raw).",
                param="messages",
            ) from error
        return "".join(text)


@lru_cache(maxsize=2)
def _compiled(source: str, begin: str, end: str, guard: str) -> ChatTemplate:
    return ChatTemplate(source, begin=begin, end=end, guard=guard)


def _refuse(message: object) -> NoReturn:
    raise _RefusedError(str(message)[:500])


def _strftime_now(form: str) -> str:
    return time.strftime(form)


def _tojson(guard: str, value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:  # noqa: FBT001, FBT002
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)
    return text.replace(json.dumps(guard)[1:-1], guard) if ensure_ascii and guard else text
