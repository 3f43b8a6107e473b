.PHONY: help demo test isa margins check docs slow slurm clean
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

# What compares numbers of a method, a training or a model, under older instructions than the machine's
# own, which `make test` takes. Each library has a variable of its own for them. Of the contract only
# the property with a threshold: the others compare bits of one machine.
NUMERIC := tests/method tests/model tests/test_train.py tests/test_dp_sgd.py tests/test_check.py \
	tests/test_convex.py tests/test_exact.py tests/test_gradient.py tests/test_nets.py tests/test_ops.py \
	-k "not test_contract or sure"
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
	OPENBLAS_CORETYPE=Haswell
SSE4 := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 \
	OPENBLAS_CORETYPE=Nehalem

isa: .venv/installed  ## the numeric tests under the instructions of older processors, AVX2 and SSE4.1
	$(AVX2) $(BIN)/python -m pytest $(NUMERIC)
	$(SSE4) $(BIN)/python -m pytest $(NUMERIC)

margins: .venv/installed  ## how far methods are from the threshold of "less sure", on each of these
	$(BIN)/python scripts/margins.py
	$(AVX2) $(BIN)/python scripts/margins.py
	$(SSE4) $(BIN)/python scripts/margins.py

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
