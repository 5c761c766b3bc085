# Everything a person or a CI machine runs. `make help` lists it.
# PYTHON is only used to make .venv; everything else runs inside it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test behaviours clients check format bench chaos hostile lock rig rig-down clean

help: ## list what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 10

setup: ## make .venv with everything in it; costs nothing if nothing changed
	@$(PYTHON) -m tools.setup_env

demo: setup ## run the main job once: a real model answers, and nothing is left running
	@$(BIN)/python -m tools.demo

test: setup ## run all tests, those on real machines too where root allows it; ARGS="-k slots" picks some
	@$(BIN)/pytest -n 3 -rs $(ARGS)

behaviours: setup ## run all scenarios, print for each promised behaviour whether it holds, write .bench/behaviours.json
	@$(BIN)/python -m tests.bdd.behaviours $(ARGS)

clients: setup ## run client programs of others against a queen, and print for each what it did
	@$(BIN)/pytest -q -rs tests/clients $(ARGS)

check: setup ## lint, format, types, layers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@PATH="$(CURDIR)/$(BIN):$$PATH" ansible-lint -q

format: setup ## put the code into its standard form
	@$(BIN)/ruff check --fix --exit-zero
	@$(BIN)/ruff format

bench: setup ## measure against the peers, print a table, write .bench/latest.json; ARGS="spawn" picks parts
	@$(BIN)/python -m bench $(ARGS)

chaos: setup ## kill daemons at random moments, under load, and print what it did to them; KILLS=200 SEED=7
	@$(BIN)/python -m tests.chaos --kills $(or $(KILLS),200) $(if $(SEED),--seed $(SEED))

hostile: setup ## attack a queen as a client can, beside an honest client, and print what each attack got; MINUTES=60
	@$(BIN)/python -m tests.hostile --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED))

lock: setup ## resolve the versions of all packages anew; ARGS="--upgrade" takes the newest
	@$(BIN)/python -m tools.lock $(ARGS)

rig: setup ## boot bare machines h1, h2... here and leave them running (needs root); HOSTS=3
	@$(BIN)/python -m tests.rig up --hosts $(or $(HOSTS),3)

rig-down: setup ## end the machines of `make rig`
	@$(BIN)/python -m tests.rig down

clean: ## remove what was made in this checkout; the caches outside it stay
	rm -rf .venv .bench .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist
	find rbee bench tests tools -type d -name __pycache__ -prune -exec rm -rf {} +
