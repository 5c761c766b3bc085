"""The scenarios of features/worker."""

from __future__ import annotations

from pytest_bdd import scenarios

scenarios("worker")
