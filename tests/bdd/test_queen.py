"""The scenarios of features/queen."""

from __future__ import annotations

from pytest_bdd import scenarios

scenarios("queen")
