# Tallystick. `make help` prints what each target does.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup run test unit faults kills backups fuzz check format bench docs lock clean

help: ## print every target
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.server ## make the virtual environment from the hash-locked dependencies, nothing else

$(VENV)/.server: requirements/server.txt pyproject.toml
	@tools/make-venv $(PYTHON) $(VENV) requirements/server.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml
	@tools/make-venv $(PYTHON) $(VENV) requirements/dev.txt
	@touch $@ $(VENV)/.server

run: setup ## start Tallystick with the demo story and print the console link and a curl line
	@$(BIN)/tallystick up --demo

# One process more than there are cores: many tests wait for a server. For one test, call $(BIN)/pytest itself.
test: $(VENV)/.dev ## install what the tests need, then run them all
	@tools/install-test-parts
	@$(BIN)/pytest -n $$(( $$(nproc) + 1 )) --dist worksteal --hypothesis-profile=gate --durations=25

unit: $(VENV)/.dev ## the quick tests only
	@$(BIN)/pytest -n $$(nproc) --dist worksteal tests/unit

faults: $(VENV)/.dev ## every fault suite against real processes (as root: power cuts, full disks); writes docs/faults.md
	@tools/install-test-parts
	@TALLYSTICK_FAULTS_TRANSCRIPT=$(CURDIR)/docs/faults.md $(BIN)/pytest tests/fault -m "slow_fault or not slow_fault"

kills: $(VENV)/.dev ## every source killed at every point of a record's way; prints the table and writes docs/kills.md
	@tools/install-test-parts
	@TALLYSTICK_KILL_TABLE=$(CURDIR)/docs/kills.md $(BIN)/pytest tests/fault/test_kill_sources.py -k survives -m "slow_fault or not slow_fault" -s

backups: $(VENV)/.dev ## backup and restore killed in every step; prints the table of docs/backup.md
	@directory=$$(mktemp -d) && cd tests && $(CURDIR)/$(BIN)/python -m support.backup_steps "$$directory"; rmdir "$$directory"

fuzz: $(VENV)/.dev ## ten minutes of made-up input for each parser of foreign bytes (FUZZ_SECONDS=600)
	@$(BIN)/python -m tools.fuzz $(or $(FUZZ_SECONDS),600)

check: $(VENV)/.dev ## lint, types, layers, formatting
	@$(BIN)/ruff check src tests bench tools examples
	@$(BIN)/ruff format --check src tests bench tools examples
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev ## put the code in its standard form
	@$(BIN)/ruff check --fix src tests bench tools examples
	@$(BIN)/ruff format src tests bench tools examples

bench: $(VENV)/.dev ## print the table of speeds, beside peers and the machine's own limits; ARGUMENTS=--full takes an hour or two
	@tools/install-test-parts
	@$(BIN)/python -m bench $(ARGUMENTS)

docs: $(VENV)/.dev ## regenerate the reference pages (settings, verbs, metrics, endpoints)
	@$(BIN)/python -m tools.reference

lock: ## resolve and hash-lock the dependencies again
	@tools/lock

clean: ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
