# `make study` and `make test` need Python 3.11+ and make; everything else they install into .venv.
PYTHON ?= python3
BIN := .venv/bin
CODE := tal_lib tests experiments examples setup.py .ci
QUICK := -m "not slow" tests/data tests/evaluation tests/models/parts tests/reports/test_advice.py tests/reports/test_efficiency.py \
  tests/test_architecture.py tests/test_packaging.py tests/test_project.py tests/test_segments.py tests/training/test_checkpoints.py
# compiled modules are kept: a hundred processes of the tests import the library
TEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses $(or $(WORKERS),2) --dist worksteal
STUDY := --results results/quick --runs runs/quick_study

.PHONY: help study quick-test test coverage hapt costs gpu rehearsal demo report site lint format types lock lowest clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | awk -F '\t' '{printf "make %-12s %s\n", $$1, $$2}'

.venv/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@echo "Installing into .venv (some minutes, once) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' --constraint requirements.lock
	@touch $@

study: .venv/.installed  ## the quick study on generated recordings
	@$(BIN)/tal sweep notebooks/sweeps/quick.yaml --jobs 2 $(STUDY)
	@$(BIN)/tal report $(STUDY)

quick-test: .venv/.installed  ## the fast tests: under a minute on two cores
	@$(TEST) $(QUICK)

test: .venv/.installed  ## all tests, in WORKERS (2) processes
	@$(TEST)

coverage: .venv/.installed  ## all tests, and the lines that no test ran: build/coverage/index.html
	@$(TEST) --cov --cov-report term:skip-covered --cov-report html:build/coverage

hapt: .venv/.installed  ## the older runs on hapt (first study, zero-shot, streams), where they are missing
	@$(BIN)/tal data fetch hapt
	@$(BIN)/tal sweep notebooks/sweeps/hapt_first.yaml --jobs 2
	@$(BIN)/tal sweep notebooks/sweeps/hapt.yaml --jobs 2
	@$(BIN)/tal sweep notebooks/sweeps/open_set.yaml --jobs 2
	@$(BIN)/tal sweep notebooks/sweeps/streams.yaml --jobs 2
	@$(BIN)/tal report

COSTS := inference_cost size_cost training_cost quantization inference_length export mixed_precision end_to_end

costs: .venv/.installed  ## measure every cost that is missing or stale: many hours, on an idle machine (BUSY=1: on a busy one too)
	@$(BIN)/python -m tal_lib.process.quiet || test -n '$(BUSY)'
	@$(BIN)/tal data fetch hapt
	@for sweep in $(COSTS); do plan=$$($(BIN)/tal sweep $$sweep --dry-run) || exit 1; echo "$$plan" | sed "/^[0-9a-f]\{16\}  /d; s/^/$$sweep: /"; done
	@failed=0; for sweep in $(COSTS); do $(BIN)/tal sweep $$sweep --again stale || failed=1; done; $(BIN)/tal report && exit $$failed

gpu: .venv/.installed  ## everything that needs a CUDA GPU, in slices of MINUTES (10); SLICES=1: the next one alone (docs/gpu.md)
	@$(BIN)/python -c 'import pynvml' 2> /dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check 'nvidia-ml-py>=12' || echo "no utilisation, no energy"
	@$(BIN)/tal data fetch hapt || echo "hapt was not found: its training is left out"
	@$(BIN)/python -m tal_lib.sweeps.slices --minutes $(or $(MINUTES),10) $(if $(SLICES),--slices $(SLICES))

rehearsal: .venv/.installed  ## the THUMOS14 study at full size with generated features: time, memory, bounds of mAP; no result
	@$(BIN)/python experiments/rehearsal.py

demo: .venv/.installed  ## live detections on rendered videos, in a browser: minutes of training first, no download
	@$(BIN)/python -m tal_lib.video.demo

report: .venv/.installed  ## tables, figures and rendered notebooks from the committed ledgers
	@$(BIN)/tal report

site: .venv/.installed  ## explorer, results, notebooks and documentation, offline: build/site/index.html
	@$(BIN)/tal site

lint: .venv/.installed  ## style, formatting and types, without changing a file
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check $(CODE)
	@$(MAKE) --no-print-directory types

types: .venv/.installed  ## types alone (pyright, which fetches itself from npm once)
	@$(BIN)/pyright --version > /dev/null 2>&1 || echo "pyright cannot be fetched from npm: types were not checked"
	@! $(BIN)/pyright --version > /dev/null 2>&1 || $(BIN)/pyright --pythonpath $(BIN)/python

format: .venv/.installed  ## fix style and formatting
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format $(CODE)

lock:  ## requirements.lock and environment.yml from pyproject.toml (UPGRADE=1: the newest versions in the ranges)
	@$(PYTHON) .ci/lock.py $(if $(UPGRADE),--upgrade)

lowest: .venv/.installed  ## the quick tests with the oldest version of each dependency, in a separate environment
	@mkdir -p build
	@$(PYTHON) .ci/lock.py --lowest > build/lowest.txt
	@test -x build/lowest/bin/python || $(PYTHON) -m venv build/lowest
	@build/lowest/bin/python -m pip install --quiet --disable-pip-version-check --editable . --constraint build/lowest.txt pytest hypothesis
	@build/lowest/bin/python -m pytest $(QUICK)

clean:  ## the environment and all runs; committed results stay
	rm -rf .venv runs results/quick build
