"""Parse the JSON bodies of requests as models."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, TypeVar

from fastapi import Body
from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from rbee.daemonkit.errors import validation_error

T = TypeVar("T")
_Model = TypeVar("_Model", bound=BaseModel)


class _Parser:
    """Parses a body as *model*, whose validator is built for the first one."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self._model)

    def __call__(self, body: bytes) -> Any:
        try:
            return self.adapter.validate_json(body)
        except ValidationError as error:
            raise validation_error(list(error.errors(include_url=False))) from error


class _FromJson:
    """Have pydantic parse the bytes of a body itself, in one pass, instead of FastAPI by way of Python objects.

    FastAPI hands over bytes where a request has no content type: the middleware takes it away (`RequestMiddleware`).
    """

    def __get_pydantic_core_schema__(self, source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_Parser(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        parser: _Parser = schema["function"]["function"]
        # Inside another schema the model is described once, in the document's components, and referred to.
        return handler(core_schema.json_or_python_schema(parser.adapter.core_schema, core_schema.any_schema()))


JsonBody = Annotated[T, Body(), _FromJson()]
"""The body of a request as a model, `body: JsonBody[TaskRequest]`, whatever content type the client names."""


def parse_as(model: type[_Model], given: bytes | dict[str, Any]) -> _Model:
    """Parse *given*, JSON or fields, as a model. Raises RbeeError INVALID_REQUEST or INVALID_BACKEND."""
    try:
        return model.model_validate_json(given) if isinstance(given, bytes) else model.model_validate(given)
    except ValidationError as error:
        raise validation_error(list(error.errors(include_url=False))) from error
