"""Each of our engines on the built-in sample, timed by pytest-benchmark: engine by batch by length.

The engines are those of `python -m bench`, but share one process: use this to watch one of them over time, with
`pytest-benchmark compare` on what `--benchmark-autosave` keeps, and the command to compare them.

Deselected by default: `make bench`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.engines.table import choose_engines
from bench.measure.gpu import find_card
from exporter.config import ExportConfig
from exporter.engines.cores import usable_cores
from exporter.engines.spec import EngineSpec
from exporter.export import export
from exporter.records import load_export
from trainer.config import TrainConfig
from trainer.data import read_examples
from trainer.run import RunDir
from trainer.training.train import train

pytestmark = pytest.mark.bench


@pytest.fixture(scope="module")
def sample_run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    path = tmp_path_factory.mktemp("sample")
    train(TrainConfig(model="sample", dataset="sample", epochs=1, run_dir=path / "run"))
    export(ExportConfig(path / "run", quantize="dynamic", budget_minutes=0))
    return RunDir(path / "run")


@pytest.mark.parametrize("length", [32, 128, 256])
@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("spec", choose_engines(None), ids=lambda spec: spec.name)
def test_latency(
    benchmark: Any, sample_run: RunDir, spec: EngineSpec, batch_size: int, length: int, tmp_path: Path
) -> None:
    artifacts = [artifact.name for artifact in load_export(sample_run).artifacts]
    card = find_card()
    if reason := spec.why_unusable(sample_run, artifacts, card[0] if card else None):
        pytest.skip(reason)
    model = spec.load(sample_run, usable_cores(), tmp_path).model
    assert model
    (text, *_) = read_examples(sample_run.evaluation, sample_run.load().label_names).texts
    encoder = model.encoder
    own = length - (encoder.max_length - encoder.room)
    batch = [encoder.resize(encoder.encode([text])[0], own)] * batch_size
    benchmark.extra_info.update(engine=spec.name, batch=batch_size, length=length)
    logits = benchmark.pedantic(model.run, (batch, length), rounds=30, warmup_rounds=3)
    assert logits.shape == (batch_size, 2)
