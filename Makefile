# One line per tool; CI runs the same lines. Needs only Python 3.11+, gcc, git and make.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& command -v "$$name" && break; done)
BIN := $(VENV)/bin

# Named by what they say, not by when they were written: a checkout touches files without
# changing them, and an install of this size is not repeated for that.
STAMP := $(VENV)/.installed-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)
UV_VERSION ?= $(shell sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements-uv.lock)
UV := $(VENV)/.uv-$(shell cksum < requirements-uv.lock | cut -d' ' -f1)

# Without bytecode every process that a test starts compiles torch and Ray anew, so a
# PYTHONDONTWRITEBYTECODE of the environment does not hold here.
# Small tensors lose more to thread hand-over than they win; float sums depend on the count.
TEST_ENV := PYTHONDONTWRITEBYTECODE= TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 WANDB_MODE=offline
threads = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-$(1)} MKL_NUM_THREADS=$${MKL_NUM_THREADS:-$(1)}
PYTEST := $(BIN)/python -m pytest --jaxtyping-packages=namd,tests.typechecking.checked

# Each test that is not slow belongs to exactly one part; tests/test_house.py proves it.
TEST_WORKERS ?= 2
PARALLEL_PART := $(TEST_ENV) $(call threads,1) $(PYTEST) -n $(TEST_WORKERS) --dist worksteal \
	-m "not slow and not ray and not serial"
SERIAL_PART := $(TEST_ENV) $(call threads,2) $(PYTEST) -m "not slow and (ray or serial)"

.PHONY: help env demo test test-fast test-slow mutants lint format bench lock stages-unchanged cluster-smoke

help: ## Say what each target does
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 20

env: $(STAMP) ## Make .venv from requirements.lock, hashes checked

$(STAMP): requirements.lock pyproject.toml | $(UV)
	@echo "env: installing requirements.lock into $(VENV); minutes the first time"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@rm -f $(VENV)/.installed-*
	@touch $@
	@echo "env: $(VENV) is ready"

$(UV): | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes -r requirements-uv.lock
	@rm -f $(VENV)/.uv-*
	@touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "namd needs Python 3.11 or later; name one: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

demo: env ## The phantom cohort, a small alignment ablation on local Ray, and its report
	$(BIN)/namd demo

test: env ## Every test that is not marked slow
	status=0; $(PARALLEL_PART) || status=$$?; $(SERIAL_PART) || status=$$?; exit $$status

test-fast: env ## The tests that can share the machine: no clusters, killed processes, whole runs
	$(PARALLEL_PART)

test-slow: env ## The tests marked slow: some need 22 GiB of memory
	$(TEST_ENV) $(call threads,2) $(PYTEST) -m slow

mutants: env ## Plant faults one at a time and print the share that test-fast catches; NAMES="train"
	$(TEST_ENV) $(BIN)/python -m tests.mutants $(NAMES)

lint: env ## Style, types, import contracts, stage versions
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/stage_versions.py check

format: env ## Let ruff rewrite what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: env ## Ratios on this machine: batched sampling, our driver against bare Tune, a worker group of one
	$(BIN)/python -m experiments.benchmarks.sampling
	$(BIN)/python -m experiments.benchmarks.study_overhead
	$(BIN)/python -m experiments.benchmarks.worker_group_throughput

lock: | $(UV) ## Solve the dependencies anew; versions in the lock are kept where they fit
	$(BIN)/uv pip compile pyproject.toml --group dev --generate-hashes --no-emit-index-url \
		--python-version 3.11 --universal --quiet -o requirements.lock
	echo "uv==$(UV_VERSION)" | $(BIN)/uv pip compile - --generate-hashes \
		--no-emit-index-url --no-header --no-annotate --universal --quiet -o requirements-uv.lock

stages-unchanged: env ## Accept changed stage source whose tiny outputs are the same as before
	$(BIN)/python tests/stage_versions.py accept

cluster-smoke: env ## Two raylets here, a study submitted to them, its table compared with a local run's
	$(BIN)/python cluster/smoke.py
