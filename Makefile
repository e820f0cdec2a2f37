# make transfer: set up and run the main job.  make test: set up and run the tests.  make study STUDY=NAME: a packaged study.
PYTHON ?= python3
VENV ?= .venv
STUDY ?= pairs
BIN := $(VENV)/bin
CORE := $(VENV)/core.stamp
DEV := $(VENV)/dev.stamp

.PHONY: transfer test test-slow lint docs bench zoo study clean

transfer: $(CORE)
	$(BIN)/osmose transfer

test: $(DEV)
	$(BIN)/pytest -q -n 2 -m "not slow"

test-slow: $(DEV)
	$(BIN)/pytest -q -m slow

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(DEV)
	$(BIN)/pytest -q tests/test_docs.py

bench: $(DEV)
	$(BIN)/python benchmarks/overhead.py | tee results/overhead.json
	$(BIN)/python benchmarks/hard_step.py | tee results/hard_step.json
	$(BIN)/python benchmarks/frozen_precision.py | tee results/frozen_precision.json
	$(BIN)/python benchmarks/stored_signals.py | tee results/stored_signals.json

zoo: $(CORE)
	$(BIN)/python benchmarks/zoo.py

study: $(DEV)
	$(BIN)/osmose study $(STUDY) --output results/$(STUDY) --jobs 2

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Osmose needs Python 3.11 or later: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(CORE): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@ $(CORE)

clean:
	rm -rf $(VENV) build dist src/*.egg-info
