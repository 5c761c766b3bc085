"""The steps of the scenarios, seen without running them: also those of scenarios that need machines."""

from __future__ import annotations

import ast
import importlib
from collections import Counter
from collections.abc import Iterator

import pytest
from pytest_bdd.parser import FeatureParser, Step
from pytest_bdd.steps import StepFunctionContext, StepNamePrefix

from tests.conftest import FEATURES
from tests.support.checkout import ROOT

STEP_KINDS = ("given", "when", "then")
STEPS = sorted((ROOT / "tests" / "bdd" / "steps").glob("[!_]*.py"))
FILES = sorted(str(path.relative_to(FEATURES)) for path in FEATURES.rglob("*.feature"))


def definitions() -> list[StepFunctionContext]:
    """Return all steps that are defined."""
    found = []
    for path in STEPS:
        for name, value in vars(importlib.import_module(f"tests.bdd.steps.{path.stem}")).items():
            if name.startswith(StepNamePrefix.step_def.value):
                found.append(value._get_wrapped_function()())
    return found


def steps_of(file: str) -> Iterator[Step]:
    """Yield the steps of a feature, once for each example."""
    for scenario in FeatureParser(str(FEATURES), file).parse().scenarios.values():
        rows = [dict(row) for examples in scenario.examples for row in examples.as_contexts()]
        for row in rows or [{}]:
            yield from scenario.render(row).steps


def fits(definition: StepFunctionContext, step: Step) -> bool:
    return definition.type in (None, step.type) and definition.parser.is_matching(step.name)


@pytest.mark.parametrize("file", FILES)
def test_every_step_has_one_definition(file: str) -> None:
    """A step of a scenario fits one definition: with none it could not run, of several any could be taken."""
    counts = {step.name: sum(fits(definition, step) for definition in definitions()) for step in steps_of(file)}

    assert {name: count for name, count in counts.items() if count != 1} == {}


def test_every_definition_is_used() -> None:
    """A step that is defined is used by some scenario."""
    steps = [step for file in FILES for step in steps_of(file)]

    assert [
        (definition.type, definition.parser.name)
        for definition in definitions()
        if not any(fits(definition, step) for step in steps)
    ] == []


def test_no_step_sentence_is_defined_twice() -> None:
    """Two steps with one sentence would silently replace each other, so there are none."""
    sentences: Counter[tuple[str, str]] = Counter()
    for path in STEPS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            # One function may be a fact for one scenario and a finding of another: that is no doublet.
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in STEP_KINDS and node.args:
                sentences[ast.unparse(node.func), ast.unparse(node.args[0])] += 1

    assert [sentence for sentence, count in sentences.items() if count > 1] == []


def test_every_then_asserts() -> None:
    """A step that says what is the case checks it: by an assert, or by waiting until it is so."""
    idle = []
    for path in STEPS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and any("then(" in ast.unparse(mark) for mark in node.decorator_list):
                checks = [
                    inner
                    for inner in ast.walk(node)
                    if isinstance(inner, ast.Assert)
                    or (isinstance(inner, ast.Call) and ast.unparse(inner.func) in ("eventually", "pytest.fail"))
                ]
                if not checks:
                    idle.append(f"{path.name}: {node.name}")

    assert idle == []
