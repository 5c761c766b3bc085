"""The scenarios of features/keeper."""

from __future__ import annotations

from pytest_bdd import scenarios

scenarios("keeper")
