.PHONY: help demo test check docs slow slurm clean
PYTHON ?= python3
BIN := .venv/bin

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

# uv makes the install take seconds; byte code saves every process half its import time.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode \
		--constraint constraints.txt --editable '.[dev,docs]'
	touch $@

demo: .venv/installed  ## the main job: every method on digits, and what six of them leak
	$(BIN)/unlearnbench -m sweep=quickstart
	$(BIN)/unlearnbench -m sweep=audit_demo

test: .venv/installed  ## the fast test suite
	$(BIN)/python -m pytest

slow: .venv/installed  ## the slow tests
	$(BIN)/python -m pytest -m slow

slurm: .venv/installed  ## the tests on a private SLURM, where its packages are installed
	$(BIN)/python -m pytest -n 0 -m slurm tests/slurm

check: .venv/installed  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed  ## the documentation, as pages in site/
	$(BIN)/mkdocs build --strict --quiet

clean:  ## remove the environment and what was computed
	rm -rf .venv site results/store results/rows results/scores results/roc results/sweeps results/runs results/failures
