# The front door. Needs python3 (3.11 or newer, with venv), make and git; the rest is installed into .venv from the lock.

PYTHON ?= python3
FLAGS ?=
BIN := .venv/bin
ROOMS = $(wildcard src tests examples benchmarks scripts)
PYTEST = $(BIN)/python -m pytest $(if $(CI),--durations=15) $(FLAGS)
COMPILE = $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(FLAGS)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo unit servers test check fmt bench lock clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  FLAGS=...     more options, e.g. make unit FLAGS='-n2 -k inbox', make lock FLAGS=--upgrade"

setup: .venv/installed  ## Install what the lock says into .venv (the other targets do it by themselves)

# Made anew when the lock changes, so that nothing stays that the lock does not name.
.venv/locked: requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "yeondong needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

# The build backend comes from the lock too: nothing is fetched here.
.venv/installed: .venv/locked pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## Run the shop as processes, kill them, and check what they promise
	$(BIN)/python -m examples.shop demo $(FLAGS)

unit: setup  ## Run the tests without input and output, in seconds
	$(PYTEST) $(wildcard tests/unit tests/typing)

# In CI also what tests with servers of their own need, where the shared ones run in containers.
servers:  ## Start the servers that tests use, on loopback; scripts/services down ends them
	$(if $(CI),scripts/services install)
	scripts/services up

# Without a server its tests are skipped, save in CI.
test: setup  ## Run all tests, two at a time, and start the servers that they use
	$(if $(CI),,-)@$(MAKE) --no-print-directory servers
	$(PYTEST) -n2 --dist worksteal tests

check: setup  ## Lint, format, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(ROOMS)
	$(BIN)/lint-imports --no-logo

fmt: setup  ## Format, and repair what can be repaired safely
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## Measure ours, the peers and the limits in one run
	$(BIN)/python -m benchmarks engine $(FLAGS)
	$(BIN)/python -m benchmarks outbox $(FLAGS)
	$(BIN)/python -m benchmarks messaging $(FLAGS)

lock: setup  ## Lock the dependencies again after a change in pyproject.toml
	$(COMPILE) --output-file requirements/run.txt
	$(COMPILE) --group dev --all-extras --output-file requirements/dev.txt

clean:  ## Remove what can be made again
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
	find src tests $(wildcard examples benchmarks) -name __pycache__ -type d -prune -exec rm -rf {} +
