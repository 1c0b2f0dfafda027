"""The commands, one after another, as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
from local_worker import LocalWorker
from test_model import TOYS
from toys import QUICK_BENCH, WORDS, make_texts, make_tokenizer, write_csv
from transformers import AutoModel

from exporter.config import ExportConfig
from exporter.export import export
from exporter.records import load_export
from trainer.config import TrainConfig
from trainer.run import RunDir
from trainer.training.train import train

ENGINES = ["onnx-fp32-cpu", "onnx-int8-cpu"]
QUICK = ("albert", "deberta-v2", "distilbert", "modernbert", "roberta")


def run_to_end(*command: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def python_m(*command: object) -> None:
    run_to_end(sys.executable, "-m", *command)


@pytest.mark.slow
def test_a_benchmark_with_its_own_processes(exported: RunDir, copy_of: Callable[[RunDir], RunDir]) -> None:
    run = copy_of(exported)
    quick = ["--restarts", 1, "--calls", 3, "--grid-calls", 0, "--soak-calls", 0, "--engines", *ENGINES]
    assert "\nonnx-int8-cpu " in run_to_end(*QUICK_BENCH, "--run-dir", run.path, *quick)
    assert {path.name for path in run.path.iterdir()} == {
        "adapter", "bench.csv", "bench.html", "bench.json", "bench.md", "data", "export", "export.json", "run.json"
    }  # fmt: skip


@pytest.mark.slow
def test_four_classes_are_trained_exported_and_answered(checkpoint: Path, topics_csv: Path, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    more = write_csv(tmp_path / "more.csv", list(make_texts(40, seed=9)))
    recipe = ["--epochs", 16, "--batch-size", 8, "--learning-rate", 1e-2, "--max-length", 24, "--precision", "fp32"]
    data = ["--model", checkpoint, "--dataset", topics_csv, "--eval-dataset", more, "--run-dir", run.path]
    python_m("trainer", *data, *recipe)
    python_m("exporter", "--quantize", "dynamic", "--budget-minutes", 0, "--run-dir", run.path)
    assert {path.name for path in run.path.iterdir()} == {"adapter", "data", "export", "export.json", "run.json"}

    answers = tmp_path / "answers.jsonl"
    python_m("exporter.predict", "--run-dir", run.path, "--file", more, "--output", answers)
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    truth = dict(make_texts(40, seed=9))
    assert {row["label"] for row in rows} == {"food", "money", "music", "sport"}
    assert sum(row["label"] == truth[row["text"]] for row in rows) > 30


@pytest.mark.parametrize("architecture", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in TOYS])
def test_every_architecture_is_trained_exported_and_proved(topics_csv: Path, tmp_path: Path, architecture: str) -> None:
    config, _ = TOYS[architecture]
    base = tmp_path / "base"
    transformers.set_seed(0)
    AutoModel.from_config(config).save_pretrained(base)
    make_tokenizer(base)
    assert config.vocab_size >= 5 + len(WORDS)
    run = tmp_path / "run"
    train(
        TrainConfig(
            str(base), str(topics_csv), epochs=2, learning_rate=1e-2, batch_size=8,
            max_length=16, precision="fp32", device="cpu", run_dir=run,
        )
    )  # fmt: skip
    export(ExportConfig(run, quantize="weight-only", verify_samples=16), LocalWorker)
    assert [artifact.name for artifact in load_export(RunDir(run)).artifacts][-1] == "onnx-int8"
