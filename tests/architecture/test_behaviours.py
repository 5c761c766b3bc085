"""The promised behaviours: a list for operators, scenarios that show each, in the words of operators."""

from __future__ import annotations

import re

from tests.conftest import BEHAVIOURS, FEATURES

SCENARIOS = {str(file.relative_to(FEATURES)): file.read_text(encoding="utf-8") for file in FEATURES.rglob("*.feature")}
# What the tests know and an operator does not, and words that name nothing precisely.
NO_OPERATOR_SAYS = re.compile(
    r"\{\w*\}|\b(stdout|stderr|standard (output|error)|fixture|mock|fake|stand-in|she|her|herself|wish(es|ed)?)\b",
    re.IGNORECASE,
)


def test_every_behaviour_is_listed_once_and_has_a_sentence() -> None:
    """The list in features/README.md has each behaviour once, by its number, with a sentence; none of 71 is lost."""
    rows = re.findall(r"^\| (B\d+) \| (.+) \|$", (FEATURES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)

    numbers = [int(number.removeprefix("B")) for number, _ in rows]
    assert numbers == sorted(set(numbers))
    assert set(range(1, 72)) - set(numbers) == set()
    assert [sentence for _, sentence in rows if not sentence.endswith(".")] == []


def test_every_behaviour_has_a_scenario() -> None:
    """Each listed behaviour is the tag of at least one scenario."""
    assert set(BEHAVIOURS) - _tags() == set()


def test_every_numbered_tag_is_a_listed_behaviour() -> None:
    """Each tag of a scenario that is a number is that of a listed behaviour."""
    assert _tags() - set(BEHAVIOURS) == set()


def test_a_scenario_speaks_as_an_operator_does() -> None:
    """No feature has a placeholder, a word of the tests, or a word that names nothing precisely."""
    found = {name: match[0] for name, text in SCENARIOS.items() for match in NO_OPERATOR_SAYS.finditer(text)}

    assert found == {}


def _tags() -> set[str]:
    lines = [line for text in SCENARIOS.values() for line in text.splitlines() if line.lstrip().startswith("@")]
    return {tag for line in lines for tag in re.findall(r"@(B\d+)\b", line)}
