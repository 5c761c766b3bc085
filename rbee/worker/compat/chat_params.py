"""The parameters of a chat in one form for all interfaces, and the generations that they become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from rbee.contracts.errors import ErrorCode
from rbee.contracts.tasks import Sampling
from rbee.errors import RbeeError
from rbee.worker.chat.conversation import Conversation, TemplateMessage, Tool, ToolChoice
from rbee.worker.generation_request import GenerationRequest
from rbee.worker.text.constraint import Constraint, gbnf, json_answer
from rbee.worker.text.sampling import MAX_SEED

NO_EFFORT: Final = "none"
_EFFORTS: Final = {"minimal": "low", "xhigh": "high", "max": "high"}  # the templates know low, medium and high
NO_PENALTY: Final = 1.0  # clients of these interfaces expect no penalty unless they set one


class SamplingFields(Protocol):
    """The sampling fields of a request; None where the client leaves them to the default."""

    temperature: float | None
    top_p: float | None
    top_k: int | None


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The required form of the answer: any JSON object, or JSON that matches `schema`; `param` is the field with it."""

    schema: Mapping[str, Any] | None = None
    strict: bool = False
    param: str = "response_format"


@dataclass(frozen=True, slots=True)
class Thinking:
    """How much the model is to think: None leaves it to the model; `budget` is in tokens."""

    enabled: bool | None = None
    effort: str | None = None
    budget: int | None = None


@dataclass(frozen=True, slots=True)
class ChatParams:
    """One chat request.

    Args:
        schema_fields: the request's fields with the schemas of tools, by the names of the tools.
        chosen: the names of the tools that may be called, None for all of them.
        ignored: what the request has and the answer does not heed, for the client to be told.
        new_turn, template_kwargs: as in `Conversation`.
    """

    messages: tuple[TemplateMessage, ...]
    sampling: Sampling
    limit: int | None = None
    seed: int | None = None
    choices: int = 1
    tools: tuple[Tool, ...] = ()
    schema_fields: Mapping[str, str] = field(default_factory=dict)
    tool_choice: ToolChoice = "auto"
    chosen: tuple[str, ...] | None = None
    parallel: bool = True
    response_format: ResponseFormat | None = None
    grammar: str | None = None
    logprobs: int | None = None
    bias: Mapping[int, float] = field(default_factory=dict)
    new_turn: bool = False
    thinking: Thinking = Thinking()
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    param: str = "messages"

    @property
    def conversation(self) -> Conversation:
        """Return the conversation as the chat template takes it.

        Raises RbeeError INVALID_REQUEST where it is not clear whether the model is to think.
        """
        effort = self.thinking.effort
        kwargs = dict(self.template_kwargs)
        if effort is not None and effort != NO_EFFORT:
            kwargs.setdefault("reasoning_effort", _EFFORTS.get(effort, effort))
        enabled = kwargs.get("enable_thinking", self.thinking.enabled)
        if enabled is None and effort == NO_EFFORT:
            enabled = False
        if enabled is not None and not isinstance(enabled, bool):
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"chat_template_kwargs.enable_thinking: {str(enabled)[:60]!r} is neither true nor false.",
                param="chat_template_kwargs.enable_thinking",
            )
        return Conversation(
            self.messages,
            tools=self.tools,
            tool_choice="none" if self.tool_choice == "none" else "auto",
            parallel=self.parallel,
            thinking=enabled,
            template_kwargs=kwargs,
            new_turn=self.new_turn,
        )

    @property
    def callable_tools(self) -> tuple[Tool, ...]:
        """Return the tools that may be called. Raises RbeeError INVALID_REQUEST for a choice that is not there."""
        if self.tool_choice == "none":
            return ()
        if self.tool_choice == "required" and not (self.tools if self.chosen is None else self.chosen):
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                "tool_choice requires a call, but there are no functions in 'tools' to choose from.",
                param="tool_choice",
            )
        if self.chosen is None:
            return self.tools
        names = {tool["function"]["name"] for tool in self.tools}
        missing = next((name for name in self.chosen if name not in names), None)
        if missing is not None:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST, f"tool_choice: there is no tool named {missing!r}.", param="tool_choice"
            )
        return tuple(tool for tool in self.tools if tool["function"]["name"] in self.chosen)

    @property
    def single(self) -> bool:
        """Return whether an answer may have one call at most."""
        named = self.tool_choice == "required" and self.chosen is not None and len(self.chosen) == 1
        return named or not self.parallel

    @property
    def answer(self) -> Constraint | None:
        """Return what the content of the answer must match. Raises RbeeError INVALID_REQUEST."""
        if self.response_format is None:
            return None if self.grammar is None else gbnf(self.grammar)
        if self.grammar is not None:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"grammar cannot be combined with {self.response_format.param}.",
                param="grammar",
            )
        wanted = self.response_format
        return json_answer(wanted.schema, strict=wanted.strict, param=wanted.param)


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
