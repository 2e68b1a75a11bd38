# Every target works from a bare clone with Python 3.11, make and git.
SHELL := /bin/bash
export RAY_ENABLE_UV_RUN_RUNTIME_ENV := 0
# Container images often forbid it: then each of a cluster's processes compiles all that it imports.
export PYTHONDONTWRITEBYTECODE :=
VENV ?= .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null || echo $(HOME)/.local/bin/uv)
STAMP := $(VENV)/.synced
# Tests with whole clusters run one after the other, all others beside them (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest -n 2 --no-loadscope-reorder

.PHONY: help setup demo demo-cluster test test-extended test-quick check format proto lock bench interop sim chaos soak clean static

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(STAMP): requirements.lock pyproject.toml protos/pyproject.toml clients/pyproject.toml
	@./tools/setup.sh $(VENV)

setup: $(STAMP) ## Install uv if missing, and the locked environment into .venv

demo: $(STAMP) ## Run a flash sale through a kill, from nothing, and print the books
	@$(BIN)/stockray demo $(ARGS)

demo-cluster: $(STAMP) ## The same on a private Redis and MariaDB, started for it
	@./tools/services.sh redis-server mariadbd
	@$(BIN)/stockray demo --private-services $(ARGS)

test: $(STAMP) ## Everything: checks, unit, contract, cluster and end-to-end tests (installs Redis, MariaDB)
	@./tools/services.sh
	@$(MAKE) --no-print-directory static
	@$(PYTEST) $(ARGS)

# The same, with the longer forms and other stores that the ordinary run leaves out (40 minutes).
test-extended: $(STAMP)
	@$(MAKE) --no-print-directory test ARGS="--extended $(ARGS)"

test-quick: $(STAMP) ## Unit tests and golden scenarios only
	@$(PYTEST) tests/unit tests/scenarios tests/model $(ARGS)

check: static ## Format, lint, types, import contracts, proto lint and drift, unit tests
	@$(PYTEST) -q tests/unit tests/scenarios tests/model

static: $(STAMP)
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@./tools/proto.sh check

format: $(STAMP) ## Format and mend what the linter can mend
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

proto: $(STAMP) ## Regenerate the code beside the .proto files
	@./tools/proto.sh write

lock: ## Renew requirements.lock (names no package index, so it works behind any mirror)
	@$(UV) export -q --all-packages --all-extras --all-groups --no-emit-workspace --no-header -o requirements.lock >/dev/null

bench: $(STAMP) ## Throughput and latency against a bare grpc.aio echo in the same run
	@./tools/services.sh h2load openssl
	@$(BIN)/stockray bench $(ARGS)

# Every case of other people's gRPC clients; writes the results to docs/front.md.
interop: $(STAMP)
	@$(BIN)/python -m tests.interop.report

# Whole clusters on virtual time, one for each seed; a seed that fails is told as a story.
SEEDS ?= 20000
FIRST ?= 0
sim: $(STAMP)
	@$(BIN)/python -m tests.sim --seeds $(SEEDS) --first $(FIRST) $(ARGS)

# Real processes killed, stopped, slowed and cut off under load; ends with 0 only if all held.
chaos: $(STAMP)
	@./tools/services.sh redis-server mariadbd
	@$(BIN)/stockray chaos $(ARGS)

# A steady sale with churn; ends with 0 only if nothing grew that should not.
MINUTES ?= 10
soak: $(STAMP)
	@$(BIN)/stockray soak --minutes $(MINUTES) $(ARGS)

clean: ## Remove the environment and caches
	@rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
