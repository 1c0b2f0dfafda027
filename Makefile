PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/demo
EXTRAS ?= train,test
SECONDS ?= 600
PY := $(VENV)/bin/python

.PHONY: demo test lint format bench fuzz audit help

demo: $(VENV)/installed  ## train, export, quantize and benchmark on the built-in sample
	$(PY) -m trainer --model sample --dataset sample --max-length 512 --run-dir $(RUN) --overwrite
	$(PY) -m exporter --quantize --budget-minutes 1 --run-dir $(RUN)
	$(PY) -m bench --run-dir $(RUN)

test: $(VENV)/installed  ## run the default test suite, offline
	$(PY) -m pytest

lint: $(VENV)/installed  ## check style, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/installed  ## format the code and sort imports
	$(VENV)/bin/ruff check --select I --fix .
	$(VENV)/bin/ruff format .

bench: $(VENV)/installed  ## time every engine on the sample with pytest-benchmark
	$(PY) -m pytest -m bench

fuzz: $(VENV)/installed  ## look for files that end in a traceback, for SECONDS=600
	$(PY) -m pip install --quiet 'atheris>=3.0'
	$(PY) tests/fuzzing/__main__.py --seconds $(SECONDS)

audit: $(VENV)/installed  ## look for published vulnerabilities of the versions that CI installs
	$(PY) -m pip install --quiet 'pip-audit>=2.9'
	$(VENV)/bin/pip-audit --strict --disable-pip --no-deps --requirement .ci/constraints.txt

help:  ## list these targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 10

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@
