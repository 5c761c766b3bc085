"""Read declared models from `[served.NAME]` tables, and say of each that is wrong where and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from rbee.config.file import ConfigFile
from rbee.config.layering import control_character
from rbee.contracts import patterns
from rbee.contracts.served import Preset, ServedModel, ServedSpec, Where, contradictions
from rbee.errors import ConfigError, RbeeError
from rbee.model_reference import parse_reference
from rbee.spelling import closest

TABLE: Final = "served"


class Finding(NamedTuple):
    """What is wrong with a declaration: the path of a key in it, and the reason as a sentence without its full stop."""

    path: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class DeclaredInFile:
    """A declared model, and the file that has its table."""

    model: ServedModel
    file: ConfigFile

    @property
    def place(self) -> str:
        """Return file and line of its table."""
        line = self.file.line(TABLE, self.model.name)
        return f"{self.file.path}:{line}" if line else str(self.file.path)


def read_tables(file: ConfigFile, aliases: Mapping[str, str]) -> tuple[list[DeclaredInFile], list[ConfigError]]:
    """Return the models that a config file declares, and what is wrong with the others; each by itself.

    Args:
        aliases: short names for model references.
    """
    try:
        tables = file.table(TABLE)
    except ConfigError as error:
        return [], [error]
    found: list[DeclaredInFile] = []
    errors: list[ConfigError] = []
    for name, fields in tables.items():
        if not isinstance(fields, Mapping):
            errors.append(file.error(f"'{TABLE}.{name}' must be a table, written [{TABLE}.{name}].", TABLE, name))
            continue
        model, findings = parse(name, fields, aliases)
        if model is not None:
            found.append(DeclaredInFile(model, file))
        errors += [_error(file, name, finding) for finding in findings]
    return found, errors


def contradiction_errors(declared: Sequence[DeclaredInFile]) -> list[ConfigError]:
    """Return what is wrong with declarations of files taken together."""
    files = {each.model.name: each.file for each in declared}  # of a name in two files, the later one
    return [
        files[problem.names[0]].error(f"{problem.reason}.", TABLE, problem.names[0])
        for problem in contradictions(each.model for each in declared)
    ]


def parse(name: str, fields: Mapping[str, Any], aliases: Mapping[str, str]) -> tuple[ServedModel | None, list[Finding]]:
    """Return the model that is declared with these fields, with its reference for an alias; or what is wrong."""
    findings = []
    for key, value in fields.items():
        if (character := control_character(value)) is not None:
            findings.append(Finding((key,), f"{key}: holds a control character ({character})"))
    if "name" in fields:
        findings.append(Finding(("name",), "unknown key 'name'; the name is that of the table"))
    model = None
    try:
        model = ServedModel.model_validate({**fields, "name": name})
    except ValidationError as error:
        findings += _findings(error, {**fields, "name": name})
    if isinstance(reference := fields.get("model"), str) and reference:
        try:
            parse_reference(aliases.get(reference, reference))
        except RbeeError as error:
            meant = closest(reference, aliases)
            advice = "" if meant is None else f"; did you mean the alias '{meant}'?"
            findings.append(Finding(("model",), f"model: {error.message.removesuffix('.')}{advice}"))
    if findings or model is None:
        return None, findings
    return model.model_copy(update={"model": aliases.get(model.model, model.model)}), []


def _findings(error: ValidationError, fields: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the findings of pydantic, those about one value together."""
    reasons: dict[tuple[str, ...], list[str]] = {}
    for each in error.errors(include_url=False):
        loc = tuple(map(str, each["loc"]))
        if each["type"] == "extra_forbidden":
            yield Finding(loc, _unknown(loc))
        elif each["type"] == "missing":
            yield Finding(loc, f"'{loc[-1]}' is required")
        elif each["type"] == "string_pattern_mismatch" and (loc == ("name",) or loc[-1] == "[key]"):
            yield Finding(loc[:-1], f"'{str(each['input'])[:100]}' cannot be a name: it {patterns.reason(each)}")
        else:
            reasons.setdefault(_path(each["loc"], fields), []).append(patterns.reason(each))
    for path, found in reasons.items():
        reason = ", or ".join(dict.fromkeys(found))
        named = not path or reason.startswith(f"'{path[-1]}' ")
        yield Finding(path, reason if named else f"{'.'.join(path)}: {reason}")


def _path(loc: tuple[int | str, ...], fields: Any) -> tuple[str, ...]:
    """Return the path of a value, without the parts that name a member of a union."""
    path: list[str] = []
    value = fields
    for part in loc:
        inside = part in value if isinstance(value, Mapping) else isinstance(part, int) and isinstance(value, list)
        if not inside or (isinstance(part, int) and part >= len(value)):
            break
        value = value[part]
        path.append(str(part))
    return tuple(path)


def _unknown(path: tuple[str, ...]) -> str:
    """Return what is wrong with an unknown key, with the one that was probably meant."""
    *above, key = path
    model = ServedSpec if not above else Where if above[0] == "where" else Preset
    known = [name for name, field in model.model_fields.items() if not field.exclude]
    if not above and key in Where.model_fields:
        advice = f"did you mean 'where.{key}'?"
    elif (meant := closest(key, model.model_fields)) is not None:
        advice = f"did you mean '{meant}'?"
    else:
        advice = f"known keys: {', '.join(sorted(known))}"
    where = f" in '{'.'.join(above)}'" if above else ""
    return f"unknown key '{key}'{where}; {advice}"


def _error(file: ConfigFile, name: str, finding: Finding) -> ConfigError:
    """Return the error for a key of a declared model, with its line, or that of what it is in."""
    paths = [(TABLE, name, *finding.path[:length]) for length in range(len(finding.path), -1, -1)]
    path = next((path for path in paths if file.line(*path) is not None), paths[-1])
    stop = "" if finding.reason.endswith("?") else "."
    return file.error(f"[{TABLE}.{name}] {finding.reason}{stop}", *path)
