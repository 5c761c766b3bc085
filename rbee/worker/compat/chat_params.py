"""The parameters of a chat in one form for all interfaces, and the generations that they become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from rbee.contracts.errors import ErrorCode
from rbee.contracts.tasks import Sampling
from rbee.errors import RbeeError
from rbee.worker.compat.tool_call_grammar import SpecialToken, call_grammar, free_grammar
from rbee.worker.compat.tools import ToolCallFormat, detect_format
from rbee.worker.generation_request import GenerationRequest, TemplateMessage
from rbee.worker.text.constraint import gbnf, json_answer
from rbee.worker.text.prompts import ChatTemplate
from rbee.worker.text.sampling import MAX_SEED

NO_PENALTY: Final = 1.0  # clients of these interfaces expect no penalty unless they set one


class SamplingFields(Protocol):
    """The sampling fields of a request; None where the client leaves them to the default."""

    temperature: float | None
    top_p: float | None
    top_k: int | None


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The required form of the answer: any JSON object, or JSON that matches `schema`."""

    schema: Mapping[str, Any] | None = None
    strict: bool = False


@dataclass(frozen=True, slots=True)
class ChatParams:
    """One chat request.

    `tool_choice` is "none", "auto", "required" or the name of a tool; `new_turn` and `param` as in `GenerationRequest`.
    """

    messages: tuple[TemplateMessage, ...]
    sampling: Sampling
    limit: int | None = None
    seed: int | None = None
    choices: int = 1
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str = "auto"
    parallel: bool = True
    response_format: ResponseFormat | None = None
    grammar: str | None = None
    logprobs: int | None = None
    bias: Mapping[int, float] = field(default_factory=dict)
    new_turn: bool = False
    param: str = "messages"


def build_sampling(request: SamplingFields, stop: list[str] | None) -> Sampling:
    """Return the sampling of a request, with rbee's defaults for unset fields."""
    names = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
    given = {name: getattr(request, name, None) for name in names}
    values = {"repeat_penalty": NO_PENALTY} | {name: value for name, value in given.items() if value is not None}
    if request.top_k == -1:
        values["top_k"] = 0
    return Sampling.model_validate({**values, "stop": stop or []})


def normalize_seed(seed: int | None) -> int | None:
    """Map any integer into the range of seeds; -1 stands for a random one, as None does."""
    return None if seed is None or seed == -1 else seed % (MAX_SEED + 1)


def token_limit(given: int | None) -> int | None:
    """Return the most tokens of an answer; None for no limit, which clients also write as -1."""
    return None if given == -1 else given


def replicate(request: GenerationRequest, count: int) -> list[GenerationRequest]:
    """Return the request *count* times; a seed is counted up, so that the answers differ and are repeatable."""
    if request.seed is None:
        return [request] * count
    return [replace(request, seed=normalize_seed(request.seed + number)) for number in range(count)]


def generation_requests(
    params: ChatParams, template: ChatTemplate | None, special_token: SpecialToken
) -> tuple[list[GenerationRequest], ToolCallFormat | None]:
    """Return the generations of a chat, and the format of the tool calls to look for in them.

    Only a chat with tools needs the template.

    Raises RbeeError INVALID_REQUEST for parameters that contradict each other or that the model does not support.
    """
    call_format = None
    sampling, tools, response_format = params.sampling, params.tools, params.response_format
    constraint = None if params.grammar is None else gbnf(params.grammar)
    if response_format is not None:
        if constraint is not None:
            raise _conflict("grammar", "response_format")
        constraint = json_answer(response_format.schema, strict=response_format.strict)
    if tools:
        assert template is not None
        call_format = detect_format(template.source, template.names)
        if params.tool_choice == "none":
            call_format, tools = None, ()
        elif params.tool_choice != "auto":
            if constraint is not None:
                raise _conflict("tool_choice", "response_format or grammar")
            constraint = call_grammar(
                call_format, _chosen(params), parallel=params.parallel, special_token=special_token
            )
        elif constraint is not None:
            call_format, tools = None, ()
        else:
            constraint = free_grammar(call_format, tools, parallel=params.parallel, special_token=special_token)
            if not params.parallel and call_format.closing:
                sampling = sampling.model_copy(update={"stop": [*sampling.stop, call_format.closing]})
    elif params.tool_choice not in ("none", "auto"):
        raise RbeeError(ErrorCode.INVALID_REQUEST, "tool_choice requires 'tools'.", param="tool_choice")
    request = GenerationRequest(
        sampling,
        messages=params.messages,
        tools=tools,
        limit=params.limit,
        seed=params.seed,
        logprobs=params.logprobs,
        bias=params.bias,
        new_turn=params.new_turn,
        param=params.param,
        constraint=constraint,
        markers=(call_format.opening,) if call_format is not None and not call_format.within else (),
    )
    return replicate(request, params.choices), call_format


def _chosen(params: ChatParams) -> list[Mapping[str, Any]]:
    if params.tool_choice == "required":
        return list(params.tools)
    named = [tool for tool in params.tools if tool["function"]["name"] == params.tool_choice]
    if not named:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"tool_choice: there is no tool named {params.tool_choice!r}.",
            param="tool_choice",
        )
    return named


def _conflict(one: str, other: str) -> RbeeError:
    return RbeeError(ErrorCode.INVALID_REQUEST, f"{one} cannot be combined with {other}.", param=one)
