# Everything that qdqc needs on a fresh machine: Python 3.11 or newer, and make.
#
#   make demo    install, and run the whole flow on the embedded example
#   make test    install the development extras, and run lint, types, pytest and lit
#
# make test-slow runs what make test leaves out: the tests of benchmarks/.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2

SOURCES := compiler passes tools
CHECKED := $(SOURCES) tests examples benchmarks

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint types unit lit clean

help: ## show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## run transform, calibrate and deploy on the embedded digits network
	$(BIN)/python examples/digits/demo.py

test: lint types unit lit ## lint, types, pytest and lit: all but the tests of benchmarks/

test-slow: $(VENV)/.developing ## run the tests of benchmarks/ on JOBS processes (2)
	$(BIN)/python -m pytest -n $(JOBS) -m slow

lint: $(VENV)/.developing ## check style and format with ruff
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)

types: $(VENV)/.developing ## check types with basedpyright, of the tree that is installed
	$(BIN)/python tests/typed_tree.py build/typed
	$(BIN)/basedpyright --pythonpath $(BIN)/python

unit: $(VENV)/.developing ## run pytest on JOBS processes (2)
	$(BIN)/python -m pytest -n $(JOBS)

lit: $(VENV)/.developing ## run the text-in, text-out tests
	$(BIN)/lit -j $(JOBS) -v lit_tests

clean: ## remove the environment and all caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "qdqc needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps keep an installation from being repeated; a changed pyproject.toml repeats it.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.developing: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.installed
