"""Parse the JSON bodies of requests as models; what is wrong with a body does not cost more than the body."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Annotated, Any, TypeVar

from fastapi import Body
from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic.warnings import UnsupportedFieldAttributeWarning
from pydantic_core import CoreSchema, SchemaValidator, core_schema

from rbee.daemonkit.errors import invalid_body
from rbee.daemonkit.json_limits import check_json
from rbee.surrogates import repaired_json

# FastAPI ignores it where it describes a body; the body of a model that builds its schema late is described later.
warnings.filterwarnings("ignore", category=UnsupportedFieldAttributeWarning)

T = TypeVar("T")
_Model = TypeVar("_Model", bound=BaseModel)


_LISTS = ("list", "set", "tuple", "frozenset")
_NO_SCHEMAS = ("metadata", "serialization", "default")


class JsonParser:
    """Parses JSON as *model*, or as what an adapter describes. A list ends at its first invalid item.

    The validator is built for the first one.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Return the adapter that describes the model."""
        return self._model if isinstance(self._model, TypeAdapter) else TypeAdapter(self._model)

    @cached_property
    def _validator(self) -> SchemaValidator:
        # Models may be told to build their schema late, which is now.
        self.adapter.rebuild(force=True)
        # The validators that the models have already would report every invalid item.
        return SchemaValidator(_fail_fast(self.adapter.core_schema), _use_prebuilt=False)

    def __call__(self, body: bytes) -> Any:
        """Return the model. Raises RbeeError PAYLOAD_TOO_LARGE, INVALID_REQUEST or INVALID_BACKEND."""
        check_json(body)
        try:
            return self._validator.validate_json(body)
        except ValidationError as error:
            malformed = error.error_count() == 1 and error.errors(include_url=False)[0]["type"] == "json_invalid"
            repaired = repaired_json(body) if malformed else None
            if repaired is None:
                raise invalid_body(error) from error
        return self(repaired)


def _fail_fast(schema: Any) -> Any:
    """Return a copy of a schema in which each list ends at its first invalid item."""
    if isinstance(schema, dict):
        kind = schema.get("type")
        # The fields of a model are named as they like, one of them perhaps `type`.
        no_schemas = _NO_SCHEMAS if isinstance(kind, str) else ()
        copy = {name: part if name in no_schemas else _fail_fast(part) for name, part in schema.items()}
        return copy | {"fail_fast": True} if kind in _LISTS else copy
    if isinstance(schema, list | tuple):
        return type(schema)(map(_fail_fast, schema))
    return schema


class _FromJson:
    """Have pydantic parse the bytes of a body itself, in one pass, instead of FastAPI by way of Python objects.

    FastAPI hands over bytes where a request has no content type: the middleware takes it away (`RequestMiddleware`).
    """

    def __get_pydantic_core_schema__(self, source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(JsonParser(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        parser: JsonParser = schema["function"]["function"]
        # Inside another schema the model is described once, in the document's components, and referred to.
        return handler(core_schema.json_or_python_schema(parser.adapter.core_schema, core_schema.any_schema()))


JsonBody = Annotated[T, Body(), _FromJson()]
"""The body of a request as a model, `body: JsonBody[TaskRequest]`, whatever content type the client names."""


def parse_as(model: type[_Model], given: dict[str, Any]) -> _Model:
    """Parse fields as a model. Raises RbeeError INVALID_REQUEST or INVALID_BACKEND."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise invalid_body(error) from error
