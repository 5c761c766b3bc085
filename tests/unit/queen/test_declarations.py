"""What may be declared to be served, and what is refused with its reason."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rbee.contracts.served import ServedModel, contradictions
from rbee.errors import RbeeError
from rbee.queen.serving.declarations import Declarations, Declared, fitting


def served(name: str, **more: Any) -> ServedModel:
    return ServedModel.model_validate({"name": name, "model": "hf:org/repo", **more})


@pytest.mark.parametrize(
    ("keep", "wanted"),
    [("90s", 90.0), ("5m", 300.0), ("1.5h", 5400.0), ("1d", 86400.0), (12, 12.0), ("7200", 7200.0), ("always",) * 2],
)
def test_a_time_is_seconds_or_a_number_with_a_unit(keep: Any, wanted: object) -> None:
    """`keep` takes seconds, a number with a unit, and `always`."""
    assert served("a", keep=keep).keep == wanted


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"keep": "soon"}, "'soon' is no time"),
        ({"keep": 0}, "greater than 0"),
        ({"keep": True}, "true is no time; write a time such as 5m, or always"),
        ({"split": "layer"}, "'split' \\(a model over several devices\\) is not built yet"),
        ({"lora": []}, "not built yet"),
        ({"cache_type": "q8_0", "flash_attention": False}, "flash attention"),
        ({"replica": 2}, "Extra inputs"),
    ],
)
def test_a_wrong_declaration_says_why(change: dict[str, Any], words: str) -> None:
    """A key that is unknown, not built yet, or out of bounds is refused in words."""
    with pytest.raises(ValidationError, match=words):
        served(**{"name": "a", **change})


def test_a_revision_is_that_of_the_model_and_its_options() -> None:
    """Another model or option is another revision; how many, how long and where is not."""
    one = served("a")
    assert served("a", replicas=3, keep="always", where={"nodes": ["h1"]}).revision == one.revision
    assert served("a", slots=2).revision != one.revision
    assert served("a", model="hf:org/other").revision != one.revision


def test_declarations_that_contradict_each_other_are_all_named() -> None:
    """A name taken twice, a fallback to nothing and a circle are each a problem."""
    problems = contradictions(
        [
            served("a", fallback=["b"], presets={"short": {"max_tokens": 9}}),
            served("b", fallback=["short", "nobody"]),
            served("short"),
        ]
    )
    assert [problem.reason for problem in problems] == [
        "the name short is declared twice: by a and by short",
        "b falls back to nobody, which is not declared",
        "the fallbacks a -> b -> a go in a circle",
    ]


def test_fallbacks_are_tried_in_the_order_of_their_declarations() -> None:
    """The model's own come first, then those of each of these; each model once, by the name that comes first."""
    declarations = Declarations()
    models = [
        served("a", fallback=["b-cold", "c"], presets={"a-cold": {}}),
        served("b", fallback=["d", "c"], presets={"b-cold": {"temperature": 0}}),
        served("c", fallback=["d", "e"]),
        served("d"),
        served("e"),
    ]
    declarations.replace_all([Declared(model, "file") for model in models])
    found = declarations.fallbacks(models[0])
    assert [each.name for each in found] == ["b-cold", "c", "d", "e"]
    assert [each.model.name for each in found] == ["b", "c", "d", "e"]
    assert [each.preset is not None for each in found] == [True, False, False, False]
    assert declarations.fallbacks(models[3]) == ()


def test_a_refused_replacement_changes_nothing() -> None:
    """Declarations change all together or not at all; the same ones again are no change."""
    declarations = Declarations()
    changes: list[int] = []
    declarations.on_change = lambda: changes.append(len(declarations.all()))
    one = Declared(served("a", presets={"a-cold": {"temperature": 0}}), "file")
    both = [one, Declared(served("b"), "api")]
    declarations.replace_all([one])
    declarations.replace_all(both)
    declarations.replace_all(both)
    with pytest.raises(RbeeError, match="declared twice"):
        declarations.replace_all([*both, Declared(served("a"), "api")])
    assert [each.model.name for each in declarations.all()] == ["a", "b"]
    assert changes == [1, 2]
    found = declarations.find("a-cold")
    assert found is not None
    assert found.model.name == "a"
    declarations.replace_all([one])
    assert declarations.find("b") is None


def test_what_a_file_declares_comes_before_what_a_command_does() -> None:
    """A stored declaration that takes a name, or leans on one that is left out, is left out too, and told."""
    files = [Declared(served("a"), "file"), Declared(served("b", fallback=["a"]), "file")]
    stored = [
        served("a"),
        served("c", presets={"b": {}}),
        served("d", fallback=["c"]),
        served("e", fallback=["b", "f"]),
        served("f"),
    ]

    kept, refused = fitting(files, [Declared(model, "api") for model in stored])

    assert [each.model.name for each in kept] == ["e", "f"]
    assert [problem.reason for problem in refused] == [
        "the name a is declared twice",
        "the name b is declared twice: by b and by c",
        "d falls back to c, which is not declared",
    ]
