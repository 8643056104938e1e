# llmgateway: `make run` is all that it takes to begin; `make help` tells the rest.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
COMPILE := $(BIN)/uv pip compile --upgrade --universal --generate-hashes --python-version 3.11 --quiet \
	--custom-compile-command "make lock"
SYSTEM := gcc libc6-dev nginx-light curl

.DELETE_ON_ERROR:
.PHONY: run test lint bench lock test-deps clean help

run: $(VENV)/.runtime  ## start the gateway; ARGS="--port 9000" adds options
	@exec $(BIN)/llmgateway serve $(ARGS)

test: lint  ## linters, types, layers, and all tests; ARGS="-k name -x" chooses
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.test  ## what a request and a chunk cost, beside other programs
	$(BIN)/python tests/bench/bench.py $(ARGS)

test-deps: $(VENV)/.test  ## what some tests and the benchmark need of the system, as root on Debian and Ubuntu
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(SYSTEM); \
	else echo "Install with your system's means: $(SYSTEM)"; fi

lock: $(VENV)/.test  ## new lock files from pyproject.toml
	$(PIP) install uv
	$(COMPILE) pyproject.toml -o requirements.lock
	$(COMPILE) --group build -o requirements-build.lock
	$(COMPILE) pyproject.toml --group test --constraint requirements.lock -o requirements-test.lock

clean:  ## everything that was made, but for ./data
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

# --- the environment: stamps say what is installed already ---

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "llmgateway needs Python 3.11 or newer; name one with: make PYTHON=python3.12"; exit 1; }
	@rm -rf $(VENV)
	@echo "Making an environment in $(VENV) (once) ..."
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
		rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) && \
		{ $(PYTHON) -m pip --quiet --python $(BIN)/python install pip || \
		{ echo "Python's venv has no pip here; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }; }; }
	@touch $@

$(VENV)/.runtime: $(VENV)/.python requirements.lock requirements-build.lock pyproject.toml
	@echo "Installing ..."
	@$(PIP) install --require-hashes --only-binary :all: -r requirements.lock -r requirements-build.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.runtime requirements-test.lock
	@echo "Installing what tests need ..."
	@$(PIP) install --require-hashes --only-binary :all: -r requirements-test.lock
	@touch $@
