"""Options that several commands share, each defined once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class _Device(click.ParamType[int | None]):
    """A device's number; the bare option gives `auto`, which asks for the one with the most free memory."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Read the number."""
        if value == "auto":
            return None
        if not str(value).isdecimal():
            self.fail(f"{value!r} is not a device number; devices count from 0 (see: rbee-hive detect).", param, ctx)
        return int(value)


def backend_option(command: F) -> F:
    """Add `--backend`."""
    return click.option(
        "--backend",
        type=click.Choice(["cuda", "metal", "cpu"], case_sensitive=False),
        help="Compute with this and nothing else; without it the best that the machine has.",
    )(command)


def device_option(command: F) -> F:
    """Add `--device`."""
    return click.option(
        "--device",
        type=_Device(),
        is_flag=False,
        flag_value="auto",
        default=None,
        help="The backend's device; without it the one with the most free memory.",
    )(command)


def node_option(*, required: bool) -> Callable[[F], F]:
    """Add `--node`."""

    def add(command: F) -> F:
        text = "The node, such as localhost." if required else "Only this node."
        return click.option("--node", required=required, metavar="NAME", help=text)(command)

    return add
