"""Calls of tools: the form that a template teaches."""

from __future__ import annotations

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.compat.tools import FORMS, detect_format


def test_the_template_tells_the_form() -> None:
    """Each form is known by its sign in a template that looks at tools."""
    for form in FORMS:
        assert detect_format(f"{{{{ tools }}}} ... {form.sign} ...", frozenset({"tools"})) is form


@pytest.mark.parametrize(
    ("source", "names"), [("<tool_call>", frozenset[str]()), ("{{ tools }}", frozenset({"tools"}))]
)
def test_a_template_without_tools_refuses_them(source: str, names: frozenset[str]) -> None:
    """Tools are refused where the template knows none, or writes calls in a way that cannot be read."""
    with pytest.raises(RbeeError) as caught:
        detect_format(source, names)

    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert caught.value.param == "tools"
