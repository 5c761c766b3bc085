"""What goes over the wire is what the golden files say, field by field.

A model is a message where it is part of no other model, or where a route or a client names it by itself; what has no
file yet gets one by `python -m tests.wire --write`. A file is changed by hand, together with the model, and that is
the moment to think of the programs that do not change with it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from rbee.contracts.control import HIVE_MESSAGE, QUEEN_MESSAGE
from tests.wire.golden import BASES, contract_models, example, fields_seen, files, messages, wire_json

FILES = list(files())
NAMES = [path.name for path, _ in FILES]


@pytest.mark.parametrize(("path", "model"), FILES, ids=NAMES)
def test_a_message_is_written_as_it_was_read(path: Path, model: type[BaseModel]) -> None:
    """A golden file read into its model and written again is the same JSON: no field is lost, renamed or added."""
    text = path.read_text(encoding="utf-8")

    assert wire_json(model.model_validate_json(text, strict=True)) == json.loads(text)


def test_every_message_has_a_file() -> None:
    """Every model that is sent has a golden file."""
    assert set(messages()) - {model.__name__ for _, model in FILES} == set()


def test_every_field_is_in_a_file() -> None:
    """Every field of every model, also of one inside another, has a value in a golden file."""
    seen = {field for path, model in FILES for field in fields_seen(model.model_validate_json(path.read_text("utf-8")))}
    fields = {
        (name, field)
        for name, model in contract_models().items()
        for field, described in model.model_fields.items()
        if not described.exclude
    }

    assert {(name, field) for name, field in fields - seen if name not in BASES} == set()


def test_every_message_of_the_control_channel_has_its_kind() -> None:
    """Each message of the control channel is known again by its kind alone, on the side that receives it."""
    known = [(path, model) for path, model in FILES if model.__module__ == "rbee.contracts.control"]
    received = {
        path.stem: type((QUEEN_MESSAGE if path.stem == "Lease" else HIVE_MESSAGE).validate_json(path.read_bytes()))
        for path, _ in known
    }

    assert received == {path.stem: model for path, model in known}
    assert len(known) == 10


def test_a_base_is_no_message() -> None:
    """A model that is exempt from golden files exists, and others inherit from it."""
    models = contract_models()

    assert all(models[name].__subclasses__() for name in BASES)


@pytest.mark.parametrize("name", ["Hello", "HiveList", "NodeSpec", "TaskPlaced", "WorkerStopReceipt"])
def test_an_example_that_is_written_is_whole(name: str) -> None:
    """An example for a new golden file has every field of its model and is valid."""
    model = messages()[name]

    value = example(model)

    assert wire_json(model.model_validate(value)) == value
    assert set(value) == set(model.model_fields)
