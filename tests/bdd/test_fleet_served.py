"""The scenarios of features/fleet/served.feature, on machines with a queen among them that all of them share."""

from __future__ import annotations

from pytest_bdd import scenarios

from tests.bdd.steps.fleet_served import *

scenarios("fleet/served.feature")
