# The few commands a newcomer needs; `make` alone lists them.
PYTHON ?= python3
VENV   ?= .venv
export PATH := $(abspath $(VENV))/bin:$(PATH)
# With /bin/sh, make 3.81 (macOS's) would look for `python` in the PATH it was started with.
SHELL := /bin/bash

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:  # a half-made environment would pass for a complete one
.PHONY: help rehearsal study fleet power compare doctor benchmark test crash-test lint env env-dev env-fleet lock clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

rehearsal: env  ## the whole pipeline in minutes on a CPU: 16 shallow runs, Figure 4, Table 1 (in rehearsal/)
	@tools/rehearse $(REHEARSAL)

study: env  ## all runs of params.yaml side by side, as many at once as this machine can run; then the report
	dvc repro plan download
	python -m tools.study
	dvc repro

fleet: env-fleet  ## all stale runs on this machine or a Ray cluster (FLEET="--address host:port"), then the report
	python -m stages.fleet $(FLEET)

power: env  ## how many seeds detect a difference of d points, at the spread measured so far (POINTS="0.3 1")
	@python -m tools.power $(POINTS)

compare: env  ## compare two orderings (PAIRS="A:B --measure area"), or each with itself before an experiment (PAIRS="--with HEAD")
	@python -m tools.compare $(or $(PAIRS),--help)

doctor:  ## check this machine and this project, change nothing, say how to fix what is wrong
	@$(if $(wildcard $(VENV)/bin/python),python,$(PYTHON)) -B -m tools.doctor

benchmark: env  ## how fast training is here, against plain PyTorch: 18 minutes on an otherwise idle machine
	python -m benchmarks $(BENCHMARK)
	python -m benchmarks.table

test: env-dev  ## the tests: no data, no GPU, no network, minutes
	CUDA_VISIBLE_DEVICES= python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

crash-test: env-dev  ## the long ones of these: kills in every state of the disk, at every epoch, under DVC, and of a fleet; with their counts
	CUDA_VISIBLE_DEVICES= python -m pytest -m slow -s tests/test_crashes.py tests/test_resume.py tests/test_dvc*.py tests/test_fleet_chaos.py

lint: env-dev  ## ruff and mypy, as CI runs them
	ruff check .
	ruff format --check .
	mypy

env: $(VENV)/.user  ## make the environment that the pipeline runs in (then: source .venv/bin/activate)

env-dev: $(VENV)/.dev  ## the same, plus what tests and checks need

env-fleet: $(VENV)/.fleet  ## the same, plus Ray: what a cluster's node needs

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "Python %d.%d found, 3.11 to 3.13 needed: make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv $(VENV)

# Wheels only, each by its hash; antlr4-python3-runtime (DVC's configuration parser needs it) is published only as source.
PIP_INSTALL = python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-binary antlr4-python3-runtime

$(VENV)/.user: requirements.txt | $(VENV)/bin/python
	$(PIP_INSTALL) -r $<
	@touch $@

$(VENV)/.fleet: requirements-fleet.txt | $(VENV)/bin/python
	$(PIP_INSTALL) -r $<
	@touch $@ $(VENV)/.user

$(VENV)/.dev: requirements-dev.txt | $(VENV)/bin/python
	$(PIP_INSTALL) -r $<
	@touch $@ $(VENV)/.user $(VENV)/.fleet

lock: env-dev  ## pin requirements*.in again, with hashes, for Python 3.11-3.13 on Linux and macOS
	uv pip compile $(LOCK) requirements.in -o requirements.txt
	uv pip compile $(LOCK) -c requirements.txt requirements-fleet.in -o requirements-fleet.txt
	uv pip compile $(LOCK) -c requirements-fleet.txt requirements-dev.in -o requirements-dev.txt
LOCK = --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock"

clean:  ## remove pipeline outputs that are not in git (checkpoints and data stay)
	rm -rf plan models plots/report.html rehearsal rehearsal.new dvc_plots .pytest_cache .mypy_cache .ruff_cache
