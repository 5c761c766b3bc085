"""The tests themselves keep rules: each says what it protects, and each tag is known."""

from __future__ import annotations

import ast
import re

from tests.conftest import BEHAVIOURS, FEATURES
from tests.support.checkout import ROOT, project, python_files


def test_every_test_says_which_rule_it_protects() -> None:
    """Every test function has a docstring that ends as a sentence does."""
    silent = []
    for path in python_files("tests"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                docstring = (ast.get_docstring(node) or "").split("\n\n")[0].rstrip()
                if not docstring.endswith((".", "?", "!")):
                    silent.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")

    assert silent == []


def test_every_tag_is_a_known_marker() -> None:
    """A tag in a feature is one of the registered markers or the number of a behaviour."""
    known = {line.split(":")[0].split("(")[0] for line in project()["tool"]["pytest"]["markers"]} | set(BEHAVIOURS)
    unknown = []
    for path in sorted(FEATURES.rglob("*.feature")):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.lstrip().startswith("@")]
        tags = {tag for line in lines for tag in re.findall(r"@(\S+)", line)}
        unknown += [f"{path.relative_to(ROOT)}: @{tag}" for tag in sorted(tags - known)]

    assert unknown == []
