"""Parse the JSON bodies of requests as models."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from fastapi import Body
from pydantic import BaseModel, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, core_schema

from rbee.daemonkit.errors import validation_error

T = TypeVar("T")
_Model = TypeVar("_Model", bound=BaseModel)


class _FromJson:
    """A type annotation by which pydantic parses the bytes of a body in one pass, without Python objects in between.

    FastAPI passes bytes on if a request has no content type: `RequestMiddleware` removes it.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        adapter = TypeAdapter(source)

        def parse(body: bytes) -> Any:
            try:
                return adapter.validate_json(body)
            except ValidationError as error:
                raise validation_error(list(error.errors(include_url=False))) from error

        # The model's own schema is for the OpenAPI document.
        return core_schema.json_or_python_schema(
            json_schema=handler(source), python_schema=core_schema.no_info_plain_validator_function(parse)
        )


JsonBody = Annotated[T, Body(), _FromJson()]
"""The body of a request as a model, `body: JsonBody[TaskRequest]`, whatever content type the client names."""


def parse_as(model: type[_Model], given: bytes | dict[str, Any]) -> _Model:
    """Parse *given*, JSON or fields, as a model. Raises RbeeError INVALID_REQUEST or INVALID_BACKEND."""
    try:
        return model.model_validate_json(given) if isinstance(given, bytes) else model.model_validate(given)
    except ValidationError as error:
        raise validation_error(list(error.errors(include_url=False))) from error
