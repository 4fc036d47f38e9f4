# `make study` and `make test` need Python 3.11+ and make; everything else they install into .venv.
PYTHON ?= python3
BIN := .venv/bin
STUDY := --results results/quick --runs runs/quick_study

.PHONY: study test hapt costs demo report site lint clean

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@echo "Installing into .venv (some minutes, once) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

study: .venv/.installed  ## the quick study on generated recordings
	@$(BIN)/tal sweep notebooks/sweeps/quick.yaml --jobs 2 $(STUDY)
	@$(BIN)/tal report $(STUDY)

test: .venv/.installed  ## everything that is tested
	@$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

hapt: .venv/.installed  ## the committed results on real recordings, run again where they are missing
	@$(BIN)/tal data fetch hapt
	@$(BIN)/tal sweep notebooks/sweeps/hapt_first.yaml --jobs 2
	@$(BIN)/tal sweep notebooks/sweeps/hapt.yaml --jobs 2
	@$(BIN)/tal sweep notebooks/sweeps/open_set.yaml --jobs 2
	@$(BIN)/tal sweep notebooks/sweeps/streams.yaml --jobs 2
	@$(BIN)/tal report

costs: .venv/.installed  ## costs of inference, training, quantization and export: hours, on a machine that does nothing else
	@$(BIN)/tal data fetch hapt
	@$(BIN)/tal sweep notebooks/sweeps/inference_cost.yaml
	@$(BIN)/tal sweep notebooks/sweeps/training_cost.yaml
	@$(BIN)/tal sweep notebooks/sweeps/quantization.yaml
	@$(BIN)/tal sweep notebooks/sweeps/inference_length.yaml
	@$(BIN)/tal sweep notebooks/sweeps/export.yaml
	@$(BIN)/tal report

demo: .venv/.installed  ## live detections on rendered videos, in a browser: minutes of training first, no download
	@$(BIN)/python -m tal_lib.video.demo

report: .venv/.installed  ## tables, figures and rendered notebooks from the committed ledgers
	@$(BIN)/tal report

site: .venv/.installed  ## the rendered notebooks, tables and figures as a static site: build/site/index.html
	@$(BIN)/tal site

lint: .venv/.installed
	@$(BIN)/ruff check .

clean:  ## the environment and all runs; committed results stay
	rm -rf .venv runs results/quick build
