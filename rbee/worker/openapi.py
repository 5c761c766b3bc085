"""Describe the worker's routes as an OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from rbee import __version__
from rbee.contracts.error_body import ErrorBody
from rbee.worker.routes import Operation

_REF = "#/components/schemas/{model}"


def describe(operations: Sequence[Operation]) -> dict[str, Any]:
    """Give the document."""
    models = {_model(body) for one in operations for body in (one.request, one.response) if body is not None} | {
        ErrorBody
    }
    _, schemas = models_json_schema([(model, "validation") for model in sorted(models, key=str)], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {"title": "llm-worker-rbee", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _operation(one: Operation) -> dict[str, Any]:
    good: dict[str, Any] = {"description": "done"}
    if one.response is not None:
        good["content"] = _content(_model(one.response))
    elif one.method != "DELETE":
        good["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
    described: dict[str, Any] = {
        "summary": one.summary,
        "responses": {
            "204" if one.method == "DELETE" else "200": good,
            "default": {"description": "any failure", "content": _content(ErrorBody)},
        },
    }
    if one.request is not None:
        described["requestBody"] = {"required": True, "content": _content(_model(one.request))}
    names = re.findall(r"\{(\w+)\}", one.path)
    if names:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if one.path == "/v1/health":
        described["security"] = []
    return described


def _model(body: type[BaseModel] | str) -> type[BaseModel]:
    """Load a model that is given by name."""
    if not isinstance(body, str):
        return body
    module, _, name = body.partition(":")
    model: type[BaseModel] = getattr(import_module(module), name)
    return model


def _content(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}
