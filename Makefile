# `make demo` and `make test` set everything up first; a machine needs only Python 3.11-3.13, pip and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .tools
# uv from the PATH where there is one, else a pinned, hash-checked one of our own.
UV := $(or $(shell command -v uv 2>/dev/null),$(TOOLS)/bin/uv)
READY := $(VENV)/.ready

.PHONY: help demo test lint types lock wheel clean

help:
	@echo "make demo    run the default benchmark on the embedded model, with table and report"
	@echo "make test    run the tests"
	@echo "make lint    ruff (lint and format)        make types   mypy"
	@echo "make wheel   build the wheel into dist/    make lock    renew requirements.lock"
	@echo "make clean   remove the environments and build products"

demo: $(READY)
	$(BIN)/p2p-bench run experiment=demo

# The worker that is free takes the next tests; those of a file mostly stay together.
test: $(READY)
	UV=$(abspath $(UV)) $(BIN)/pytest -n 2 --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

wheel: $(READY)
	$(UV) build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir dist

lock:
	$(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 --fork-strategy fewest \
		--no-emit-index-url --custom-compile-command "make lock" \
		--group test --group lint --group build pyproject.toml -o requirements.lock

$(READY): requirements.lock pyproject.toml | $(UV)
	@echo "Setting up $(VENV) (about a minute with a fast network; the models are part of the checkout)"
	$(UV) venv --quiet --allow-existing --python '>=3.11,<3.14' $(VENV)
	VIRTUAL_ENV=$(VENV) $(UV) pip sync --require-hashes --build-constraints requirements.lock requirements.lock
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(TOOLS)/bin/uv:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .ci/uv.txt

clean:
	rm -rf $(VENV) $(TOOLS) dist build
