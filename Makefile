PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/demo
PY := $(VENV)/bin/python

.PHONY: demo test lint bench

demo: $(VENV)/installed  ## train, export, quantize and benchmark on the built-in sample
	$(PY) -m trainer --model sample --dataset sample --max-length 512 --run-dir $(RUN) --overwrite
	$(PY) -m exporter --quantize --budget-minutes 1 --run-dir $(RUN)
	$(PY) -m bench --run-dir $(RUN)

test: $(VENV)/installed  ## the default test suite: offline, minutes
	$(PY) -m pytest

lint: $(VENV)/installed  ## style, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(VENV)/installed  ## pytest-benchmark timings of every backend on the sample
	$(PY) -m pytest -m bench

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --editable '.[train,test]'
	touch $@
