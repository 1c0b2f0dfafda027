PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/demo
EXTRAS ?= train
SECONDS ?= 600
PY := $(VENV)/bin/python

.PHONY: demo test lint format bench fuzz audit help

demo: $(VENV)/installed  ## train, export, quantize and benchmark on the built-in sample
	$(PY) -m trainer --model sample --dataset sample --run-dir $(RUN) --overwrite
	$(PY) -m exporter --quantize --budget-minutes 0.3 --verify-samples 128 --run-dir $(RUN)
	$(PY) -m bench --budget-minutes 3 --restarts 6 --calls 40 --cold-starts 2 --soak-calls 60 --run-dir $(RUN)

test: $(VENV)/tools  ## run the default test suite, offline
	$(PY) -m pytest

lint: $(VENV)/tools  ## check style, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/tools  ## format the code and sort imports
	$(VENV)/bin/ruff check --select I --fix .
	$(VENV)/bin/ruff format .

bench: $(VENV)/tools  ## time every engine on the sample with pytest-benchmark
	$(PY) -m pytest -m bench

fuzz: $(VENV)/tools  ## look for files that end in a traceback, for SECONDS=600
	$(PY) -m pip install --quiet 'atheris>=3.0'
	$(PY) tests/fuzzing/__main__.py --seconds $(SECONDS)

audit: $(VENV)/tools  ## look for published vulnerabilities of the versions that CI installs
	$(PY) -m pip install --quiet 'pip-audit>=2.9'
	$(VENV)/bin/pip-audit --strict --disable-pip --no-deps --requirement .ci/constraints.txt

help:  ## list these targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 10

# What is never imported is never compiled: that halves the time of the installation.
unexport PYTHONDONTWRITEBYTECODE

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --no-compile --editable '.[$(EXTRAS)]'
	touch $@

$(VENV)/tools: $(VENV)/installed
	$(PY) -m pip install --quiet --editable '.[$(EXTRAS),test]'
	touch $@
