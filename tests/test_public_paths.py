"""What others import stays where it is: model cards and scripts of users name these paths."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("exporter.runtime", "Classifier Prediction"),
        ("exporter.predict", "main"),
        ("exporter.checksums", "write_checksums"),
        ("trainer.data", "Columns Examples Splits load_splits read_examples read_texts"),
        ("trainer.config", "TrainConfig"),
        ("trainer.errors", "UserError"),
        ("trainer.run", "RunDir TrainRecord"),
    ],
)
def test_a_public_path_stays(module: str, names: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in names.split() if not hasattr(found, name)] == []
