"""Build the command line of a daemon from its settings."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, SecretStr

from rbee import __version__
from rbee.config import file as config_file
from rbee.config import layering
from rbee.config.layering import LayeredSettings, Layers
from rbee.errors import ConfigError, RbeeError
from rbee.lifeline import OwnerLink
from rbee.observe.redaction import MASK

S = TypeVar("S", bound=LayeredSettings)
EXIT_CONFIG = 78  # sysexits.h EX_CONFIG


@dataclass(frozen=True, slots=True)
class Program(Generic[S]):
    """A daemon's command line: every field of *settings* is an option, except secrets, which are never arguments."""

    name: str
    settings: type[S]
    description: str

    def parse(self, argv: list[str], environ: Mapping[str, str], owner: OwnerLink) -> S:
        """Return the settings, or exit: 0 after --print-config, --check-config and --version, 78 for invalid ones."""
        options = self._parser().parse_args(argv)
        try:
            file = config_file.read(options.check_config) if options.check_config else config_file.find(environ)
            flags = {key: getattr(options, key, None) for key in self.settings.model_fields}
            settings, sources = layering.read(self.settings, Layers(environ, file, flags))
        except ConfigError as error:
            fail(self.name, error, owner, EXIT_CONFIG)
        if options.check_config:
            print(f"{options.check_config}: the settings of {self.name} are valid", file=sys.stderr)  # noqa: T201
            sys.exit(0)
        if options.print_config:
            print(json.dumps(describe_settings(settings, sources), indent=2))  # noqa: T201
            sys.exit(0)
        return settings

    def _parser(self) -> argparse.ArgumentParser:
        prefix = self.settings.model_config["env_prefix"]
        # No abbreviations: --api-key SECRET would be taken for --api-key-file, and the secret be printed.
        parser = argparse.ArgumentParser(
            self.name,
            allow_abbrev=False,
            description=self.description,
            epilog=f"Each option can also be set by the environment variable {prefix}<NAME>.",
        )
        parser.add_argument("--version", action="version", version=f"{self.name} {__version__}")
        parser.add_argument(
            "--check-config",
            type=Path,
            metavar="FILE",
            help="check FILE (- is standard input) and exit: 0 if valid, 78 if not",
        )
        parser.add_argument(
            "--print-config", action="store_true", help="print the settings with their sources, and exit"
        )
        for key, field in self.settings.model_fields.items():
            if "SecretStr" not in str(field.annotation):
                help_ = (field.description or "").replace("%", "%%")
                parser.add_argument("--" + key.replace("_", "-"), default=None, metavar="VALUE", help=help_)
        return parser


def describe_settings(settings: BaseModel, sources: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return every setting with its source, secrets masked."""
    plain = settings.model_dump(mode="json")
    return {
        key: {
            "value": MASK if isinstance(getattr(settings, key), SecretStr) else plain[key],
            "source": sources[key],
        }
        for key in type(settings).model_fields
    }


def fail(program: str, error: RbeeError, owner: OwnerLink, code: int = 1) -> Any:
    """Exit because the daemon cannot start; report why to its owner and on standard error, without a traceback."""
    owner.tell(error.body())
    also = error.also if isinstance(error, ConfigError) else ()
    for line in (error.message, *(each.message for each in also), error.hint):
        print(f"{program}: {line}", file=sys.stderr)  # noqa: T201
    sys.exit(code)
