"""The config file that `install` writes: every setting with its sentence, all of them commented out."""

from __future__ import annotations

import json
import textwrap

from rbee.config.file import BUILT_IN_ALIASES
from rbee.config.layering import LayeredSettings
from rbee.keeper.settings import KeeperSettings, RemoteSettings

_WIDTH = 100


def text() -> str:
    """Write it."""
    parts = [
        "# Settings of rbee on this machine, for the keeper and for daemons started here.",
        "# A line that is commented out shows the default or an example. Check changes with: rbee-keeper config check",
        "# What is set in the environment (RBEE_QUEEN_URL, RBEE_HIVE_PORT, ...) wins over this file.",
        "",
        *_lines(KeeperSettings),
        "",
        "# Names for models: rbee-keeper infer --model NAME. Accepted: hf:org/repo[:quant or file],",
        "# file:///path/model.gguf, https://host/x.gguf#sha256=..., package:<python package>/<file>",
        "[models]",
        *(f"# {name} = {json.dumps(reference)}" for name, reference in BUILT_IN_ALIASES.items()),
        "",
        "# Where things are on the other machines.",
        "[remote]",
        *_lines(RemoteSettings),
        "",
        "# Settings of the daemons; each prints its own with --print-config and explains them with --help.",
        "[queen]",
        "",
        "[hive]",
        "",
        "[worker]",
    ]
    return "\n".join(parts) + "\n"


def _lines(settings: type[LayeredSettings]) -> list[str]:
    lines: list[str] = []
    for key, field in settings.model_fields.items():
        lines += [f"# {line}" for line in textwrap.wrap(field.description or "", _WIDTH)]
        shown = field.examples[0] if field.examples else field.default
        lines.append(f"# {key} = {json.dumps(shown)}")
    return lines
