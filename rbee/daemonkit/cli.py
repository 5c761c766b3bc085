"""Build the command line of a daemon from its settings."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from pydantic import BaseModel, SecretStr

from rbee import __version__
from rbee.config import file as config_file
from rbee.config import layering
from rbee.config.file import ConfigFile
from rbee.config.layering import LayeredSettings, Layers
from rbee.config.paths import NO_SPACE, storage_error
from rbee.contracts.errors import EXIT_CODES
from rbee.errors import ConfigError, RbeeError, collected
from rbee.lifeline import OwnerLink
from rbee.observe.redaction import MASK

S = TypeVar("S", bound=LayeredSettings)
_STANDARD_ERROR = 2


@dataclass(frozen=True, slots=True)
class Program(Generic[S]):
    """A daemon's command line: every field of *settings* is an option, except secrets, which are never arguments."""

    name: str
    settings: type[S]
    description: str

    def parse(
        self,
        argv: list[str],
        environ: Mapping[str, str],
        owner: OwnerLink,
        *,
        check: Callable[[ConfigFile, S | None], object] = lambda _file, _settings: None,
    ) -> S:
        """Return the settings, or exit: 0 after --print-config, --check-config and --version, 78 for invalid ones.

        Args:
            check: for --check-config, checks what else the daemon reads of the file, whose settings it gets unless they
                are wrong. Raises ConfigError.
        """
        options = self._parser().parse_args(argv)
        try:
            file = config_file.read(options.check_config) if options.check_config else config_file.find(environ)
            flags = {key: getattr(options, key, None) for key in self.settings.model_fields}
            layers = Layers(environ, file, flags)
            if options.check_config:
                self._check(layers, check)
            settings, sources = layering.read(self.settings, layers)
        except ConfigError as error:
            fail(self.name, error, owner)
        if options.check_config:
            print(f"{options.check_config}: the settings of {self.name} are valid", file=sys.stderr)  # noqa: T201
            sys.exit(0)
        if options.print_config:
            print(json.dumps(describe_settings(settings, sources), indent=2))  # noqa: T201
            sys.exit(0)
        return settings

    def _check(self, layers: Layers, check: Callable[[ConfigFile, S | None], object]) -> None:
        """Check a file as a whole. Raises ConfigError with everything that is wrong."""
        errors: list[ConfigError] = []
        found: list[S] = []
        with collected(errors):
            found.append(layering.read(self.settings, layers)[0])
        with collected(errors):
            check(layers.file, found[0] if found else None)
        if errors:
            raise ConfigError.of(errors)

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


@contextlib.contextmanager
def reported_failures(program: str, owner: OwnerLink) -> Iterator[None]:
    """Exit as `fail` does where the daemon cannot start: for an expected error, or for a disk that is full anywhere."""
    try:
        yield
    except RbeeError as error:
        fail(program, error, owner)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        fail(program, storage_error(error, Path(error.filename or f"the files of {program}")), owner)


def fail(program: str, error: RbeeError, owner: OwnerLink) -> NoReturn:
    """Exit because the daemon cannot start; report why to its owner, on standard error, and by the exit code.

    No traceback is printed.
    """
    owner.tell(error.body())
    # Past the buffer: what a full disk leaves in it would be written again at the exit, and change the exit code.
    also = error.also if isinstance(error, ConfigError) else ()
    lines = (error.message, *(each.message for each in also), error.hint)
    with contextlib.suppress(OSError):
        os.write(_STANDARD_ERROR, "".join(f"{program}: {line}\n" for line in lines).encode(errors="replace"))
    sys.exit(EXIT_CODES.get(error.code, 1))
