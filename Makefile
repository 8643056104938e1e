# make run     starts the gateway on this machine, with everything in ./data; ARGS="--port 9000" adds options
# make test    runs every check and test, real servers included
# make pictures makes the screenshots of docs/pictures anew; needs Chromium
# make image   builds the container image; make image-test builds and runs it without a registry
# The rest: make lint, bench, fair-share, soak, sbom, lock, test-deps, clean.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCKED := --require-hashes --only-binary :all:

.DELETE_ON_ERROR:
.PHONY: run test lint unit bench fair-share pictures soak image image-test sbom lock test-deps clean

run: $(VENV)/.runtime
	@exec $(BIN)/llmgateway serve $(ARGS)

test: lint unit

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What measures milliseconds comes last, with nothing beside it. What fails is named, and tried once more in the same
# peace: a busy machine is no failure. ARGS="-k quota" runs what it selects in one process.
AGAIN = test $$? = 1 && echo "what has failed is tried again, with nothing beside it" \
    && $(BIN)/python -m pytest --last-failed --last-failed-no-failures none
unit: $(VENV)/.test
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not alone and not soak and not image" || { $(AGAIN); }
	$(BIN)/python -m pytest -m "alone and not soak and not image" || { $(AGAIN); }
endif

# an hour at most, with a table of figures at its end
soak: $(VENV)/.test
	timeout --signal=INT 3600 $(BIN)/python -m pytest -m soak --show-capture=no $(ARGS)

bench: $(VENV)/.test
	$(BIN)/python tests/bench/bench.py $(ARGS)

# the picture of docs/fair-share.md, and its figures
fair-share: $(VENV)/.test
	$(BIN)/python -m tests.fair_share

# every page of the portal, with made-up people
pictures: $(VENV)/.test
	$(BIN)/python -m tests.pictures

# --- the image ---

IMAGE ?= llmgateway:dev
IMAGE_ARGS = --build-arg VERSION=$$(sed -n 's/__version__ = "\(.*\)"/\1/p' llmgateway/__init__.py) \
    --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) \
    --build-arg CREATED=$$(date -u +%Y-%m-%dT%H:%M:%SZ)

image:
	@if docker info >/dev/null 2>&1; then docker build $(IMAGE_ARGS) --tag $(IMAGE) $(ARGS) .; \
	elif command -v buildah >/dev/null; then buildah build --format docker $(IMAGE_ARGS) --tag $(IMAGE) $(ARGS) .; \
	else echo "this needs Docker, or buildah (on Debian: apt-get install buildah)"; exit 1; fi

image-test: $(VENV)/.test
	$(BIN)/python -m pytest -m image -s tests/deploy/test_image.py $(ARGS)

# What is in the environment of the gateway alone, as CycloneDX.
sbom: .venv-deploy/.done
	@rm -rf build/sbom && $(PYTHON) -m venv --without-pip build/sbom
	@.venv-deploy/bin/python -m pip --python build/sbom/bin/python install --quiet $(LOCKED) -r requirements.lock
	.venv-deploy/bin/cyclonedx-py environment build/sbom --pyproject pyproject.toml --output-reproducible -o build/sbom.json

# --- the environment: made once, and again when a lock changes ---

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "llmgateway needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { \
	    echo "this Python cannot make environments by itself; asking virtualenv"; rm -rf $(VENV); \
	    $(PYTHON) -m pip install --quiet --target .cache/virtualenv virtualenv \
	    && PYTHONPATH=.cache/virtualenv $(PYTHON) -m virtualenv --quiet $(VENV); \
	} || { echo "neither venv nor pip works in this Python (on Debian: apt install python3-venv)"; exit 1; }

$(VENV)/.runtime: $(BIN)/python requirements.lock requirements-build.lock pyproject.toml
	@echo "installing llmgateway into $(VENV) ..."
	@$(PIP) install $(LOCKED) -r requirements.lock
	@$(PIP) install $(LOCKED) -r requirements-build.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.runtime requirements-test.lock
	@echo "installing what the tests need ..."
	@$(PIP) install $(LOCKED) -r requirements-test.lock
	@touch $@

# --- what needs a compiler or the system's packages; tests that miss it are skipped, but not in CI ---

test-deps: .venv-llama/.done .venv-deploy/.done
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light haproxy chromium buildah debootstrap prometheus strace simplesamlphp php-cli php-xml >/dev/null; \
	fi

.venv-llama/.done:
	@echo "building llama_cpp.server (some minutes) ..."
	@$(PYTHON) -m venv .venv-llama
	@.venv-llama/bin/python -m pip install --quiet 'llama-cpp-python[server]==0.3.36'
	@touch $@

.venv-deploy/.done: requirements-deploy.lock
	@echo "installing what checks the deployment files ..."
	@$(PYTHON) -m venv .venv-deploy
	@.venv-deploy/bin/python -m pip --disable-pip-version-check install --quiet $(LOCKED) -r requirements-deploy.lock
	@touch $@

lock: $(VENV)/.test
	$(BIN)/uv pip compile pyproject.toml -q --generate-hashes --universal --custom-compile-command "make lock" -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml -q --group test --generate-hashes --universal --custom-compile-command "make lock" -o requirements-test.lock
	$(BIN)/uv pip compile --group build -q --generate-hashes --universal --custom-compile-command "make lock" -o requirements-build.lock
	$(BIN)/uv pip compile --group deploy -q --generate-hashes --universal --custom-compile-command "make lock" -o requirements-deploy.lock

clean:
	rm -rf $(VENV) .venv-llama .venv-deploy build .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
