# `make demo` runs the whole pipeline on a small embedded default; `make test` runs the tests. Both do their own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test lint setup setup-test setup-lint iverilog clean

demo: setup iverilog
	$(BIN)/tapeout run recipes/quickstart.yaml

test: setup-test iverilog
	$(BIN)/python -m pytest

lint: setup-lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

setup: $(VENV)/.installed
setup-test: $(VENV)/.installed-test
setup-lint: $(VENV)/.installed-lint

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'tapeout needs Python 3.11 or later: make demo PYTHON=python3.11' >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo 'python3 lacks venv: apt-get install python3-venv' >&2; exit 2; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) install -q 'pip>=25.1'
	$(PIP) install -q -c constraints.txt --group test
	@touch $@

$(VENV)/.installed-lint: $(VENV)/.installed-test
	$(PIP) install -q -c constraints.txt --group lint
	@touch $@

iverilog:
	@command -v iverilog >/dev/null 2>&1 || sh scripts/install-iverilog

clean:
	rm -rf $(VENV) runs build *.egg-info
