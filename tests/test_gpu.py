"""Training and measuring on a CUDA device: `python -m pytest -m gpu`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.config import BenchConfig
from bench.run import bench
from exporter.config import ExportConfig
from exporter.export import export
from trainer.config import TrainConfig
from trainer.training.train import train

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("precision", ["fp32", "fp16", "auto"])
def test_a_run_trained_on_the_gpu_is_measured_there_in_every_precision(
    toy_config: TrainConfig, tmp_path: Path, precision: str
) -> None:
    train(replace(toy_config, device="cuda", precision=precision, run_dir=tmp_path / "run"))  # type: ignore[arg-type]
    export(ExportConfig(tmp_path / "run", quantize="dynamic"))
    record = bench(BenchConfig(tmp_path / "run", calls=3))
    scores = {accuracy.engine: accuracy.accuracy for accuracy in record.accuracies}
    for name in ("adapter-fp32-cuda", "pytorch-fp32-cuda", "pytorch-bf16-cuda", "pytorch-fp16-cuda"):
        assert scores[name] == pytest.approx(scores["pytorch-fp32-cpu"], abs=0.07)
