"""The scenarios of features/hive."""

from __future__ import annotations

from pytest_bdd import scenarios

scenarios("hive")
