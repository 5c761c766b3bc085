"""Build the config file that `install` writes: every setting with its description, commented out."""

from __future__ import annotations

import json
import textwrap

from rbee.config.file import BUILT_IN_ALIASES
from rbee.config.layering import LayeredSettings
from rbee.keeper.settings import KeeperSettings, RemoteSettings

_WIDTH = 100


def text() -> str:
    """Return the text of the file."""
    parts = [
        "# Settings of rbee on this machine, for rbee-keeper and for the daemons that run here.",
        "# A commented line shows the default or an example. To check the file: rbee-keeper config check",
        "# The environment (RBEE_QUEEN_URL, RBEE_HIVE_PORT, ...) takes precedence over this file.",
        "",
        *_lines(KeeperSettings),
        "",
        "# Aliases for models, used as: rbee-keeper infer --model NAME. Accepted:",
        "# hf:org/repo[@revision][:quant or folder/file.gguf], file:///path/model.gguf,",
        "# https://host/x.gguf#sha256=..., package:<python package>/<file>",
        "[models]",
        *(f"# {name} = {json.dumps(reference)}" for name, reference in BUILT_IN_ALIASES.items()),
        "",
        "# Paths on the machines of the inventory.",
        "[remote]",
        *_lines(RemoteSettings),
        "",
        "# Settings of the daemons; each explains them with --help and prints the effective ones with --print-config.",
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
