"""Describe the operations of a daemon as an OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from rbee import __version__
from rbee.contracts.error_body import ErrorBody
from rbee.daemonkit.operations import Operation, Shape

_REF: Final = "#/components/schemas/{model}"
_OPEN: Final = ("/health", "/v1/health")
_PARAMETER: Final = re.compile(r"\{(\w+)(?::\w+)?\}")


def document(operations: Sequence[Operation], title: str) -> dict[str, Any]:
    """Give the document (OpenAPI 3.1)."""
    bodies = [model for one in operations for model in (_model(one.body), _model(one.response)) if model is not None]
    models: list[type[BaseModel]] = sorted({*bodies, ErrorBody}, key=lambda model: model.__name__)
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(_PARAMETER.sub(r"{\1}", one.path), {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _operation(one: Operation) -> dict[str, Any]:
    good: dict[str, Any] = {"description": "done"}
    model = _model(one.response)
    if model is not None:
        good["content"] = _json(model)
    elif one.response is not None:
        assert isinstance(one.response, type)
        good["content"] = {getattr(one.response, "media_type", None) or "*/*": {"schema": {"type": "string"}}}
    described: dict[str, Any] = {
        "summary": one.summary,
        "responses": {
            str(one.status): good,
            "default": {"description": "any failure", "content": _json(ErrorBody)},
        },
    }
    body = _model(one.body)
    if body is not None:
        described["requestBody"] = {"required": one.body_required, "content": _json(body)}
    parameters = [_in_path(name) for name in _PARAMETER.findall(one.path)] + _in_query(one.query)
    if parameters:
        described["parameters"] = parameters
    if one.path in _OPEN:
        described["security"] = []
    return described


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _in_query(query: type[BaseModel] | None) -> list[dict[str, Any]]:
    if query is None:
        return []
    schema = query.model_json_schema()
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": field}
        for name, field in schema["properties"].items()
    ]


def _model(shape: Shape) -> type[BaseModel] | None:
    """Give the model of a body, loaded where it is given by name; None where there is none."""
    if isinstance(shape, str):
        module, _, name = shape.partition(":")
        named: type[BaseModel] = getattr(import_module(module), name)
        return named
    return shape if shape is not None and issubclass(shape, BaseModel) else None


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}
