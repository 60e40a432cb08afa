# Developing the template. `make` alone lists the commands.
PYTHON ?= python3
BIN := .venv/bin
LEVEL ?= 0
UNTIL ?= 2013-12
DEMO ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mlops-ladder/demo
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo check test test-all bench pins fresh lint format

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready ## make .venv from requirements.txt

.venv/ready: requirements.txt
	@command -v uv >/dev/null || test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && \
	  $(BIN)/python -m pip install -q --require-hashes -r '<<cookiecutter.project_slug>>/requirements/uv.txt'; }
	@PATH="$$PWD/$(BIN):$$PATH"; test -x $(BIN)/python || uv venv -q -p $(PYTHON) .venv; \
	  uv pip install -q -p $(BIN)/python --require-hashes -r requirements.txt
	@touch $@

demo: .venv/ready ## make a project and run its loop (LEVEL=0, DEMO=folder, UNTIL=2013-12)
	@$(BIN)/python tools/demo.py --level $(LEVEL) --folder '$(DEMO)' --until $(UNTIL)

lint: .venv/ready ## check the template's own files
	@$(BIN)/ruff check --config pyproject.toml && $(BIN)/ruff format --config pyproject.toml --check

format: .venv/ready ## mend style and format
	@$(BIN)/ruff check --config pyproject.toml --fix && $(BIN)/ruff format --config pyproject.toml

check: lint ## the quick tests: about a minute
	@$(BIN)/pytest -n $(WORKERS) -m "not slow" tests/test_generation.py tests/test_repository.py tests/test_floors.py
	@$(BIN)/python tools/lines.py | grep ^level

test: lint ## the tests
	@$(BIN)/pytest -n $(WORKERS) --dist loadscope -m "not nightly" --durations 30

test-all: lint ## the tests, and the long ones
	@$(BIN)/pytest -n $(WORKERS) --dist loadscope

bench: .venv/ready ## speed and memory, each beside its limit
	@$(BIN)/python benchmarks/run.py

pins: .venv/ready ## make the exact pins anew from the ranges (KEEP=1: only what is missing)
	@$(BIN)/python tools/pins.py $(if $(KEEP),--keep)

fresh: .venv/ready ## a project on the newest releases that its ranges allow: lint, tests, loop
	@$(BIN)/python tools/fresh.py
