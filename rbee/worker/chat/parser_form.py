"""Read the form of answers from the parser that llama.cpp's chat library makes for them. Pure.

The parser is a parsing expression grammar in JSON: `parsers`, each with its `type` and the numbers of its children,
`rules` by name, and `root`. Here only what decides which texts it reads is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from rbee.worker.chat.form import (
    NOTHING,
    SPACE,
    Characters,
    Form,
    FormError,
    Json,
    Literal,
    Recursion,
    Tree,
    Until,
    after,
    one_of,
    repeated,
    sequenced,
)

MAX_NODES: Final = 200_000
_JSON: Final = {
    "json-value": {},
    "json-object": {"type": "object"},
    "json-array": {"type": "array"},
    "json-string": {"type": "string"},
    "json-number": {"type": "number"},
    "json-bool": {"type": "boolean"},
    "json-null": {"type": "null"},
}
_UNBOUNDED: Final = -1
_NAME_TAG: Final = "tool-name"
Node = Mapping[str, Any]


def read_form(parser: str, *, content: Form | None = None, raw: Collection[str] = (), single: bool = False) -> Tree:
    """Return the tree of a parser.

    Args:
        parser: as `NativeTemplate.apply` returns it.
        content: is put in the place of what the answer says, unless None.
        raw: names of the schemas whose values may be texts without quotation marks.
        single: there is one call at most.

    Raises FormError.
    """
    reader = _Reader(json.loads(parser), content, raw, single=single)
    return Tree(reader.whole(), reader.definitions)


def read_calls(parser: str, triggers: Sequence[str], *, raw: Collection[str] = (), single: bool = False) -> Tree:
    """Return the tree of any text in which what begins with one of *triggers* is calls, and the end of the answer.

    The other arguments are those of `read_form`. Raises FormError.
    """
    reader = _Reader(json.loads(parser), None, raw, single=single)
    calls = reader.triggered()
    ways: list[Form] = [
        sequenced([Until((mark,), included=True), *rest])
        for mark in (trigger.rstrip() or trigger for trigger in triggers)  # a model may forget the white space
        if (rest := after([calls], mark)) is not None
    ]
    return Tree(one_of([*ways, Until(())]), reader.definitions)


class _Reader:
    def __init__(self, arena: Mapping[str, Any], content: Form | None, raw: Collection[str], *, single: bool) -> None:
        self.definitions: dict[str, Form] = {}
        self._parsers: Sequence[Node] = arena["parsers"]
        self._rules: Mapping[str, int] = arena["rules"]
        self._root: int = arena["root"]
        self._content = content
        self._raw = raw
        self._single = single
        self._open: set[str] = set()
        self._recursive: set[str] = set()
        self._count = 0
        self._kinds: Mapping[str, Callable[[Node], Form]] = {
            "literal": lambda node: Literal(node["literal"]),
            "sequence": lambda node: sequenced(map(self._form, node["children"])),
            "choice": lambda node: one_of(map(self._form, node["children"])),
            "repetition": self._repetition,
            "until": lambda node: Until(tuple(node["delimiters"])),
            "ac": lambda node: Until(tuple(node["delimiters"]), included=True),
            "chars": lambda node: Characters(node["pattern"], node["min_count"], _most(node["max_count"])),
            "any": lambda _: Characters(r"[\s\S]", 1, 1),
            "space": lambda _: SPACE,
            "string": lambda node: Characters(rf"(?:[^\\{node['delimiter']}]|\\.)", 0, None),
            "schema": self._schema,
            "tag": self._tag,
            "rule": lambda node: self._rule(node["name"]),
            "ref": lambda node: self._rule(node["name"]),
            "atomic": lambda node: self._form(node["child"]),
            "gbnf": lambda node: self._form(node["child"]),
        }
        self._kinds |= dict.fromkeys(("epsilon", "start", "end", "and", "not"), lambda _: NOTHING)

    def whole(self) -> Form:
        """Return the form of an answer."""
        return self._form(self._root)

    def triggered(self) -> Form:
        """Return the choice of the rules with which calls begin."""
        rules = [name for name, number in self._rules.items() if self._parsers[number].get("trigger")]
        return one_of(map(self._rule, rules))

    def _form(self, number: int) -> Form:
        self._count += 1
        if self._count > MAX_NODES:
            raise FormError(f"the parser has more than {MAX_NODES} parts")
        node = self._parsers[number]
        kind = self._kinds.get(node["type"])
        if kind is None:
            raise FormError(f"the parser has a part of an unknown type, {node['type']!r}")
        return kind(node)

    def _repetition(self, node: Node) -> Form:
        least, most = node["min_count"], _most(node["max_count"])
        if self._single and most != 1 and self._holds_call(node["child"]):
            least, most = min(least, 1), 1
        return repeated(self._form(node["child"]), least, most)

    def _holds_call(self, number: int) -> bool:
        """Return whether a part reads the name of a tool."""
        waiting, seen = [number], {number}
        while waiting:
            node = self._parsers[waiting.pop()]
            if node["type"] == "tag" and node["tag"] == _NAME_TAG:
                return True
            inner = list(node.get("children", ())) + ([node["child"]] if "child" in node else [])
            inner += [self._rules[node["name"]]] if node["type"] == "ref" else []
            waiting += [one for one in inner if one not in seen]
            seen.update(inner)
        return False

    def _schema(self, node: Node) -> Form:
        return self._form(node["child"]) if node["raw"] and node["name"] in self._raw else Json(node["name"])

    def _tag(self, node: Node) -> Form:
        return self._content if node["tag"] == "content" and self._content is not None else self._form(node["child"])

    def _rule(self, name: str) -> Form:
        if name in _JSON:
            return Json("", json.dumps(_JSON[name]))
        if name in self._open:
            self._recursive.add(name)
            return Recursion(name)
        self._open.add(name)
        form = self._form(self._parsers[self._rules[name]]["child"])
        self._open.discard(name)
        if name in self._recursive:
            self.definitions[name] = form
            return Recursion(name)
        return form


def _most(count: int) -> int | None:
    return None if count == _UNBOUNDED else count
