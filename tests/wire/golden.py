"""Which models go over the wire, and the file of JSON that each has below tests/wire/golden/."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

import rbee.contracts
from tests.support.checkout import ROOT

FOLDER = Path(__file__).with_name("golden")
# Models that others inherit from, and that are never sent themselves.
BASES = {
    "BaseGenerationRequest",
    "FurtherSampling",
    "ModelRequest",
    "OpenModel",
    "Page",
    "Sampling",
    "TextRequest",
    "WorkerOptions",
}


def contract_models() -> dict[str, type[BaseModel]]:
    """Return every model of rbee.contracts by its name."""
    found: dict[str, type[BaseModel]] = {}
    for info in pkgutil.iter_modules(rbee.contracts.__path__, "rbee.contracts."):
        for name, value in vars(importlib.import_module(info.name)).items():
            if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__ == info.name:
                assert name not in found, f"two models are called {name}"
                found[name] = value
    return found


def messages() -> dict[str, type[BaseModel]]:
    """Return the models that are sent as they are: those in no other model, and those that routes or clients name."""
    models = contract_models()
    parts = {part.__name__ for model in models.values() for part in _parts_of(model)}
    named = _named_by_routes_and_clients()
    return {name: model for name, model in models.items() if name not in BASES and (name not in parts or name in named)}


def files() -> Iterator[tuple[Path, type[BaseModel]]]:
    """Yield each golden file with its model; `Model.variant.json` is a second example of a model."""
    models = contract_models()
    for path in sorted(FOLDER.glob("*.json")):
        yield path, models[path.name.split(".")[0]]


def wire_json(message: BaseModel) -> Any:
    """Return a message as the JSON values that are sent."""
    return message.model_dump(mode="json", by_alias=True)


def fields_seen(message: BaseModel) -> Iterator[tuple[str, str]]:
    """Yield model and field for every field of a message and its parts that has a value."""
    for name in type(message).model_fields:
        value = getattr(message, name)
        if value is not None:
            yield type(message).__name__, name
        for part in _models_in(value):
            yield from fields_seen(part)


def example(model: type[BaseModel]) -> Any:
    """Build an example with every field from the schema of a model; what a validator demands is left to people."""
    schema = model.model_json_schema(by_alias=True)
    return _example(schema, schema.get("$defs", {}))


def write_missing() -> list[Path]:
    """Write an example for every message that has no file, and return the new files."""
    have = {path.name.split(".")[0] for path in FOLDER.glob("*.json")}
    written = []
    for name, model in messages().items():
        if name not in have:
            path = FOLDER / f"{name}.json"
            path.write_text(json.dumps(example(model), indent=2) + "\n", encoding="utf-8")
            written.append(path)
    return written


def _parts_of(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for field in model.model_fields.values():
        yield from _models_of(field.annotation)


def _models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_of(inner)


def _models_in(value: Any) -> Iterator[BaseModel]:
    if isinstance(value, BaseModel):
        yield value
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _models_in(item)


def _named_by_routes_and_clients() -> set[str]:
    paths = [*ROOT.glob("rbee/*/routes/*.py"), *ROOT.glob("rbee/*/routes.py"), *ROOT.glob("rbee/client/*.py")]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    return {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _example(schema: dict[str, Any], defs: dict[str, Any]) -> Any:
    if "$ref" in schema:
        return _example(defs[schema["$ref"].rpartition("/")[2]], defs)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return _example(next(choice for choice in choices if choice.get("type") != "null"), defs)
    if properties := schema.get("properties"):
        return {name: _example(inner, defs) for name, inner in properties.items()}
    match schema.get("type"):
        case "object":
            inner = schema.get("additionalProperties") or next(iter(schema["patternProperties"].values()))
            return {_example(schema.get("propertyNames", {}), defs): _example(inner, defs)}
        case "array":
            return [_example(schema["items"], defs)]
        case "integer":
            return max(1, schema.get("minimum", 1))
    scalars = {"boolean": True, "number": 0.5}
    return schema.get("const", schema.get("enum", [scalars.get(schema.get("type", ""), "bees")])[0])
