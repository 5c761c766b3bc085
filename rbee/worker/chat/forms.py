"""The form of the answers to a kind of request: by which they are read, and by which they can be demanded."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

from pydantic import BaseModel, ConfigDict

from rbee.worker.chat.answers import AnswerReader
from rbee.worker.chat.form import SPACE, Content, Form, FormError, Sequenced, Tree
from rbee.worker.chat.library import NativeParser
from rbee.worker.chat.parser_form import read_form


class AnswerForm(BaseModel):
    """What `rendering.Chat.form` returns."""

    model_config = ConfigDict(frozen=True)

    format: int
    parser: str
    generation_prompt: str
    triggers: tuple[str, ...] | None
    preserved_tokens: tuple[str, ...]
    stops: tuple[str, ...]
    thinking_start: str
    thinking_ends: tuple[str, ...]

    def reader(self, *, begun: str, single: bool) -> AnswerReader | None:
        """Return a reader of an answer; None where all that is written is content.

        Args:
            begun: the end of the prompt, where it is not that of the form.
            single: of several calls only the first counts.
        """
        if self.is_plain:
            return None
        # One parser may read several answers at a time.
        parser = self._parser(begun) if begun else self._own_parser
        return AnswerReader(parser, ends=self.thinking_ends, single=single)

    def thinks(self, ending: str) -> bool:
        """Return whether a prompt with this ending has begun a thought."""
        begun = ending.rfind(self.thinking_start) if self.thinking_start else -1
        return begun >= 0 and not any(
            ending.find(end, begun + len(self.thinking_start)) >= 0 for end in self.thinking_ends
        )

    def tree(self, *, content: Form | None, raw: Collection[str] = (), begun: str = "", single: bool = False) -> Tree:
        """Return the tree of answers in this form, from where the prompt ends (`read_form`).

        Raises FormError where none can be told.
        """
        rest = read_form(self.parser, content=content, raw=raw, single=single).after(begun or self.generation_prompt)
        if rest is None:
            raise FormError("the parser does not begin as the prompt ends")
        return rest

    @cached_property
    def is_plain(self) -> bool:
        """Whether all that is answered is content."""
        if not self.parser:
            return True
        try:
            form = self.tree(content=Content()).form
        except FormError:
            return False
        parts = form.parts if isinstance(form, Sequenced) else (form,)
        return all(isinstance(part, Content) or part == SPACE for part in parts)

    @cached_property
    def _own_parser(self) -> NativeParser:
        return self._parser(self.generation_prompt)

    def _parser(self, begun: str) -> NativeParser:
        return NativeParser({"format": self.format, "parser": self.parser, "generation_prompt": begun})
