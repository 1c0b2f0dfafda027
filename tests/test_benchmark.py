"""Each backend on the built-in sample, timed by pytest-benchmark.

The backends are those of `python -m bench`, but share one process: use this to watch one of them over time, and the
command to compare them.

Deselected by default: `make bench`.
"""

from __future__ import annotations

from typing import Any

import pytest

from bench.backends import BackendSpec, choose_specs, load_backend, why_unusable
from bench.environment import gpu_name
from exporter.artifacts import load_export
from exporter.config import ExportConfig
from exporter.export import export
from exporter.runtime import usable_cores
from exporter.timing import draw_batches
from trainer.config import TrainConfig
from trainer.data import read_examples
from trainer.run import RunDir
from trainer.train import train

pytestmark = pytest.mark.bench


@pytest.fixture(scope="module")
def sample_run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    path = tmp_path_factory.mktemp("sample")
    train(TrainConfig(model="sample", dataset="sample", epochs=1, run_dir=path / "run"))
    export(ExportConfig(path / "run", quantize="dynamic"))
    return RunDir(path / "run")


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("spec", choose_specs(None), ids=lambda spec: spec.name)
def test_latency(benchmark: Any, sample_run: RunDir, spec: BackendSpec, batch_size: int) -> None:
    if reason := why_unusable(spec, load_export(sample_run), gpu_name()):
        pytest.skip(reason)
    backend = load_backend(spec, sample_run, usable_cores())
    texts = read_examples(sample_run.evaluation, sample_run.load().label_names).texts
    batches = iter(draw_batches(texts, batch_size, calls=64, seed=0))
    logits = benchmark.pedantic(
        lambda batch: backend.logits(batch), setup=lambda: ((next(batches),), {}), rounds=60, warmup_rounds=3
    )
    assert logits.shape == (batch_size, 2)
