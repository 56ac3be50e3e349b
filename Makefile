# Needs Python 3.11, 3.12 or 3.13 and make; everything else is installed into .venv by the first target that needs it.
#   make run                     the default scenario       make run ARGS="horizon=1h seed=2"   with settings
#   make test | slow | lint | bench | months | validate | accuracy | experiment-01 | calibration | readme | clean    make PYTHON=/path/to/python3.12 run  another interpreter

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
TESTS ?=
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1 && echo $$p && break; done)
BILLCAST_DATA ?= ../shared/data

.PHONY: help run test slow lint bench months validate accuracy experiment-01 calibration readme clean
.DELETE_ON_ERROR:

help:
	@sed -n '1,3s/^# *//p' Makefile

run: $(VENV)/.installed
	@$(BIN)/billcast run $(ARGS)

test: $(VENV)/.installed-dev
	@$(BIN)/pytest -n auto $(TESTS)

slow: $(VENV)/.installed-dev
	@$(BIN)/pytest -n auto -m slow $(TESTS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed
	@$(BIN)/python -m benchmarks speed $(ARGS)
	@$(BIN)/python -m benchmarks control $(ARGS)

months: $(VENV)/.installed
	@$(BIN)/python -m benchmarks months $(ARGS)

validate: $(VENV)/.installed-dev
	@test -d "$(BILLCAST_DATA)" || { echo "measured data not found at BILLCAST_DATA=$(BILLCAST_DATA): set it to the data folder" >&2; exit 1; }
	@BILLCAST_DATA="$(BILLCAST_DATA)" $(BIN)/pytest -m validation tests/validation

accuracy: $(VENV)/.installed
	@BILLCAST_DATA="$(BILLCAST_DATA)" $(BIN)/python -m benchmarks accuracy $(ARGS)

experiment-01: $(VENV)/.installed
	@$(BIN)/billcast sweep --config-dir experiments/01_cold_start_and_spot scenario=slow_boots,fast_boots out=outputs/experiments/01 \
		placement.on_demand_percentage=100,50,0 deployments.llama_8b.autoscaler.metrics.0.target=12,24 $(ARGS)
	@$(BIN)/python experiments/01_cold_start_and_spot/figures.py outputs/experiments/01

calibration: $(VENV)/.installed
	@BILLCAST_DATA="$(BILLCAST_DATA)" $(BIN)/python -m experiments.calibrate_gpu.compare $(ARGS)

readme: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.readme

clean:
	rm -rf $(VENV) build dist outputs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find sim tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

# The interpreter is checked before anything is made with it, so that a wrong one leaves nothing behind.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "billcast needs Python 3.11, 3.12 or 3.13, and none was found on PATH; install one, or say which: make PYTHON=/path/to/python3.12 run" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "billcast needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is %d.%d; say which to use: make PYTHON=/path/to/python3.12 run" % v)'
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); echo "could not make $(VENV): this Python lacks venv or ensurepip (on Debian and Ubuntu: the package python3-venv)" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "installing billcast into $(VENV) (once; about 600 MB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing the development extras into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
