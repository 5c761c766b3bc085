"""What a client of any dialect asks for, in one form, and the generations that this becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from rbee.contracts.errors import ErrorCode
from rbee.contracts.tasks import Sampling
from rbee.errors import RbeeError
from rbee.worker.edge.call_grammar import call_grammar, free_grammar
from rbee.worker.edge.tools import CallForm, form_of
from rbee.worker.grammar import any_object, of_schema
from rbee.worker.sampling import MAX_SEED
from rbee.worker.wish import Turn, Wish

if TYPE_CHECKING:
    from rbee.worker.template import ChatTemplate

NO_PENALTY: Final = 1.0  # who speaks these dialects asks for a penalty or wants none


class SamplingWishes(Protocol):
    """The fields of a request that say how tokens are chosen; None where the client left it to us."""

    temperature: float | None
    top_p: float | None
    top_k: int | None


@dataclass(frozen=True, slots=True)
class Form:
    """What form the answer must have: any JSON object, or what fits `schema`."""

    schema: Mapping[str, Any] | None = None
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a client for a chat.

    `tool_choice` is "none", "auto", "required" or the name of a tool.
    """

    turns: tuple[Turn, ...]
    sampling: Sampling
    limit: int | None = None
    seed: int | None = None
    choices: int = 1
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str = "auto"
    parallel: bool = True
    form: Form | None = None
    grammar: str | None = None
    scores: int | None = None
    bias: Mapping[int, float] = field(default_factory=dict)


def sampling_of(request: SamplingWishes, stop: list[str] | None) -> Sampling:
    """Give the sampling that a request asks for; what it leaves open is rbee's own default."""
    names = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
    given = {name: getattr(request, name, None) for name in names}
    values = {"repeat_penalty": NO_PENALTY} | {name: value for name, value in given.items() if value is not None}
    return Sampling.model_validate({**values, "stop": stop or []})


def seed_of(seed: int | None) -> int | None:
    """Bring any whole number into the range of seeds."""
    return None if seed is None else seed % (MAX_SEED + 1)


def several(wish: Wish, count: int) -> list[Wish]:
    """Give a wish *count* times; a seed of its own makes each answer another, and all of them repeatable."""
    if wish.seed is None:
        return [wish] * count
    return [replace(wish, seed=seed_of(wish.seed + number)) for number in range(count)]


def wishes_of(ask: Ask, template: Callable[[], ChatTemplate]) -> tuple[list[Wish], CallForm | None]:
    """Give the generations of a chat, and the form of calls to look for in them.

    Raises RbeeError INVALID_REQUEST for what contradicts itself or the model cannot do.
    """
    form = None
    sampling, grammar, tools = ask.sampling, ask.grammar, ask.tools
    if ask.form is not None:
        if grammar is not None:
            raise _both("grammar", "response_format")
        grammar = any_object() if ask.form.schema is None else of_schema(ask.form.schema, strict=ask.form.strict)
    if tools:
        compiled = template()
        form = form_of(compiled.source, compiled.names)
        if ask.tool_choice == "none":
            form, tools = None, ()
        elif ask.tool_choice != "auto":
            if grammar is not None:
                raise _both("tool_choice", "response_format or grammar")
            grammar = call_grammar(form, _chosen(ask), parallel=ask.parallel)
        elif grammar is not None:
            form, tools = None, ()
        else:
            grammar = free_grammar(form, tools, parallel=ask.parallel)
            if not ask.parallel and form.closing:
                sampling = sampling.model_copy(update={"stop": [*sampling.stop, form.closing]})
    elif ask.tool_choice not in ("none", "auto"):
        reason = "tool_choice asks for a call, and there are no tools."
        raise RbeeError(ErrorCode.INVALID_REQUEST, reason, param="tool_choice")
    wish = Wish(
        sampling,
        turns=ask.turns,
        tools=tools,
        limit=ask.limit,
        seed=ask.seed,
        scores=ask.scores,
        bias=ask.bias,
        grammar=grammar,
        grammar_wished=not (form is not None and ask.tool_choice == "auto"),
        markers=(form.opening,) if form is not None and not form.within else (),
    )
    return several(wish, ask.choices), form


def _chosen(ask: Ask) -> list[Mapping[str, Any]]:
    if ask.tool_choice == "required":
        return list(ask.tools)
    named = [tool for tool in ask.tools if tool["function"]["name"] == ask.tool_choice]
    if not named:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"tool_choice names {ask.tool_choice!r}, which is none of the tools.",
            param="tool_choice",
        )
    return named


def _both(one: str, other: str) -> RbeeError:
    return RbeeError(ErrorCode.INVALID_REQUEST, f"{one} and {other} cannot both shape the answer.", param=one)
