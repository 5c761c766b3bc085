"""The grammars of answers, compiled: checked in a confined process first, and kept for the next request."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.confined.process import TIME_LIMIT_S, ConfinedProcess, OverrunError
from rbee.worker.engine.protocol import Engine, Grammar, GrammarError
from rbee.worker.text.constraint import Constraint, check_size

MAX_KEPT: Final = 64
MAX_KEPT_CHARS: Final = 8 * 1024 * 1024


class GrammarCompiler:
    """Compile what requests demand of their answers. Only the event loop's thread may use it."""

    def __init__(self) -> None:
        self._checker = ConfinedProcess("rbee.worker.engine.guidance")
        self._kept: OrderedDict[Constraint, Grammar | None] = OrderedDict()  # None for what is answered without
        self._unheld: dict[Constraint, tuple[str, ...]] = {}
        self._kept_chars = 0

    async def compile(self, constraint: Constraint, engine: Engine) -> Grammar | None:
        """Return the grammar; None for one that cannot be held and is not required.

        Raises RbeeError INVALID_REQUEST, which names the field and the reason.
        """
        if constraint in self._kept:
            self._kept.move_to_end(constraint)
            return self._kept[constraint]
        grammar: Grammar | None = None
        try:
            check_size(constraint)
            grammar = await self._compiled(constraint, engine)
        except RbeeError as error:
            if constraint.required or error.code is not ErrorCode.INVALID_REQUEST:
                raise
        self._keep(constraint, grammar)
        return grammar

    def unheld(self, constraint: Constraint) -> tuple[str, ...]:
        """Return what of a compiled constraint is left to the model: the field of each schema, with the reason."""
        return self._unheld.get(constraint, ())

    async def close(self) -> None:
        """End the process that checks."""
        await self._checker.close()

    async def _compiled(self, constraint: Constraint, engine: Engine) -> Grammar:
        try:
            checked = await self._checker.call(constraint.message())
            params = {rule.name: rule.param for rule in constraint.rules}
            left = tuple(f"{params[rule]}: {reason}" for rule, reason in checked["left"].items())
            await asyncio.to_thread(engine.load_vocabulary)
            compiling = asyncio.to_thread(engine.compile_grammar, checked["grammar"])
            grammar = await asyncio.wait_for(compiling, TIME_LIMIT_S)
        except RbeeError as error:
            param = next(
                (rule.param for rule in constraint.rules if rule.name == error.details.get("rule")), constraint.param
            )
            raise _invalid(param, error.message) from error
        except GrammarError as error:
            raise _invalid(constraint.param, str(error)) from error
        except OverrunError as error:
            raise _invalid(constraint.param, str(error)) from error
        except TimeoutError:
            raise _invalid(constraint.param, f"it took more than {TIME_LIMIT_S:g} s") from None
        if left:
            self._unheld[constraint] = left
        return grammar

    def _keep(self, constraint: Constraint, grammar: Grammar | None) -> None:
        if constraint in self._kept:
            return
        self._kept[constraint] = grammar
        self._kept_chars += constraint.size
        while len(self._kept) > MAX_KEPT or self._kept_chars > MAX_KEPT_CHARS:
            oldest, _ = self._kept.popitem(last=False)
            self._unheld.pop(oldest, None)
            self._kept_chars -= oldest.size


def _invalid(param: str, reason: str) -> RbeeError:
    what = "grammar" if param == "grammar" else "schema"
    return RbeeError(ErrorCode.INVALID_REQUEST, f"{param}: the {what} cannot be used: {reason}.", param=param)
