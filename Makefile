PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/demo
EXTRAS ?= train
SECONDS ?= 600
DEVICE ?= cuda
GPU_RUN ?= runs/gpu
MODEL ?= distilbert-base-uncased
DATASET ?= stanfordnlp/imdb
ENGINES ?= onnx-fp32-cuda onnx-fp16-cuda pytorch-fp16-cuda pytorch-bf16-cuda pytorch-fp16-cuda-graph \
	transformers-pipeline-fp16-cuda
PY := $(VENV)/bin/python

.PHONY: demo test lint format bench gpu fuzz audit help

demo: $(VENV)/installed  ## train, export, quantize and benchmark on the built-in sample
	$(PY) -m trainer --model sample --dataset sample --run-dir $(RUN) --overwrite
	$(PY) -m exporter --quantize --budget-minutes 0.3 --verify-samples 128 --run-dir $(RUN)
	$(PY) -m bench --budget-minutes 3 --restarts 6 --calls 40 --cold-starts 2 --soak-calls 60 --run-dir $(RUN)

test: $(VENV)/tools  ## run the default test suite, offline, in two processes
	$(PY) -m pytest -n 2 --dist loadfile --benchmark-disable

lint: $(VENV)/tools  ## check style, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/tools  ## format the code and sort imports
	$(VENV)/bin/ruff check --select I --fix .
	$(VENV)/bin/ruff format .

bench: $(VENV)/tools  ## time every engine on the sample with pytest-benchmark
	$(PY) -m pytest -m bench

gpu: $(VENV)/$(DEVICE)  ## test and measure on a GPU; what is promised, and what was measured, is left in GPU_RUN/goals.md
	$(PY) -m pytest -m gpu
	$(PY) -m trainer --model $(MODEL) --dataset $(DATASET) --device $(DEVICE) --run-dir $(GPU_RUN) --overwrite
	$(PY) -m bench.training --minutes 0.5 --run-dir $(GPU_RUN)
	$(PY) -m exporter --target cuda --run-dir $(GPU_RUN)
	$(PY) -m bench --device $(DEVICE) --engines $(ENGINES) --budget-minutes 2 --calls 40 --cold-starts 1 --run-dir $(GPU_RUN)
	$(PY) -m bench.goals --run-dir $(GPU_RUN)

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

$(VENV)/cpu: $(VENV)/tools
	touch $@

# Both packages bring the module `onnxruntime`: the one for CUDA takes the place of the other.
$(VENV)/cuda: $(VENV)/tools
	$(PY) -m pip uninstall --quiet --yes onnxruntime
	$(PY) -m pip install --quiet 'onnxruntime-gpu[cuda,cudnn]'
	touch $@
