"""Settings that are lists of words: as a list in the config file, with commas anywhere else."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator
from pydantic_settings import NoDecode


def _entries(value: object) -> object:
    """Split a list that is written as one text, with commas."""
    return [entry.strip() for entry in value.split(",") if entry.strip()] if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_entries)]
"""The type of such a setting."""
