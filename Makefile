# What developers and operators run; `make help` lists it. Nothing here deletes a deployed stack or its data.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help venv demo up test soak bench check build deploy failures clean requirements

PYTHON ?= python3
PYTHON_RUNTIME ?= python3.13
ARCHITECTURE ?= arm64
BUILD_DIR ?= .aws-sam/build
STACK ?= renderbell
REGION ?=
PARAMETERS ?=
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
OVERRIDES := PythonRuntime=$(PYTHON_RUNTIME) Architecture=$(ARCHITECTURE)

export SAM_CLI_TELEMETRY := 0
# `sam build` takes the interpreter and its pip from PATH.
export PATH := $(abspath $(BIN)):$(PATH)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  PYTHON=python3.12     what .venv is made with, the first time"
	@echo "  STACK=$(STACK) REGION=$(REGION)     which stack (deploy, failures; without REGION as for every AWS tool)"
	@echo "  PYTHON_RUNTIME=$(PYTHON_RUNTIME) ARCHITECTURE=$(ARCHITECTURE)     what the functions run on (build, deploy)"
	@echo "  BUILD_DIR=$(BUILD_DIR)     where the built functions lie (build, deploy)"
	@echo "  PARAMETERS='AlarmEmail=ops@example.com …'     the template's parameters (deploy; see README.md)"
	@echo "  ARGS='…'     more options (test: for pytest; deploy: for sam deploy; soak and failures: ARGS=--help lists them)"

demo: $(STAMP) ## run five renders through the real stack on the local emulator, and check them (1 to 2 minutes)
	$(BIN)/python -m local.demo

up: $(STAMP) ## leave the local stack running until Ctrl-C, and print what to try
	$(BIN)/python -m local.up

# One more than there are processors: the end-to-end tests mostly wait.
TEST_PROCESSES := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

test: $(STAMP) ## run all tests (about 15 minutes; ARGS='tests/unit -k poll' for some)
	$(BIN)/python -m pytest --numprocesses=$(TEST_PROCESSES) $(ARGS)

soak: $(STAMP) ## run new random worlds for long (up to an hour; ARGS='--worlds 50000 --minutes 30' for more or less)
	PYTHONPATH=layers/core $(BIN)/python -m tests.simulation.soak $(ARGS)

bench: $(STAMP) ## measure speed and cost, and write docs/benchmarks.md (a quarter of an hour; ARGS='polls copies' prints some)
	PYTHONPATH=layers/core $(BIN)/python -m tests.benchmarks $(ARGS)

check: $(STAMP) ## lint, format, types, and the template as written and as expanded
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy layers/core functions local tests
	$(BIN)/cfn-lint template.yaml
	$(BIN)/sam validate --lint --region us-east-1
	mkdir -p .aws-sam
	$(BIN)/python tests/template/expanded.py .aws-sam/expanded.json
	$(BIN)/cfn-lint .aws-sam/expanded.json

build: $(STAMP) ## build the functions and the layer for deployment
	@$(PYTHON_RUNTIME) -c 'import sys, pip; sys.exit("python%d.%d" % sys.version_info[:2] != "$(PYTHON_RUNTIME)")' 2>/dev/null \
	  || { echo "make build needs $(PYTHON_RUNTIME) with pip on PATH, because the functions run on it." \
	       "Install it, or choose another: make $(MAKECMDGOALS) PYTHON_RUNTIME=python3.11 (or 3.12, 3.13)." >&2; exit 1; }
	$(BIN)/sam build --build-dir $(BUILD_DIR) --parameter-overrides $(OVERRIDES)
	@# Without bytecode every cold start compiles every source; hashes that are not checked survive the zip's times.
	$(PYTHON_RUNTIME) -m compileall -q --invalidation-mode unchecked-hash $(BUILD_DIR)

deploy: build ## build, then deploy to AWS (asks before it changes anything)
	$(BIN)/sam deploy --template-file $(BUILD_DIR)/template.yaml --stack-name $(STACK) $(if $(REGION),--region $(REGION)) \
	  --parameter-overrides $(OVERRIDES) $(PARAMETERS) $(ARGS)

failures: $(STAMP) ## show what lies in a deployed stack's failure queue (ARGS=--delete removes it afterwards)
	@$(BIN)/python -m local.failures --stack $(STACK) $(if $(REGION),--region $(REGION)) $(ARGS)

clean: ## remove what was built and the caches; keeps .venv and the local stack's data
	rm -rf .aws-sam .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -path ./$(VENV) -prune -o -path ./.local -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

venv: $(STAMP) ## make .venv (the other targets do it by themselves)

$(STAMP): requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is none. Name one: make PYTHON=python3.12 …" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@# Everything is pinned with its hash, so there is nothing for pip to resolve; pip check confirms the whole.
	$(BIN)/python -m pip install --disable-pip-version-check --no-input --quiet --require-hashes --no-deps -r $<
	$(BIN)/python -m pip check
	@touch $@

requirements: ## pin the requirements anew from requirements/*.in (needs uv; ARGS=--upgrade for newer versions)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command 'make requirements' $(ARGS) requirements/dev.in -o requirements-dev.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command 'make requirements' -c requirements-dev.txt requirements/runtime.in -o layers/core/requirements.txt
