"""DistilBERT at its true size, with random weights: every int8 recipe is made, small, right and runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from exporter.convert.graph import finish_conversion, fuse
from exporter.convert.to_onnx import convert
from exporter.int8.recipes import RECIPES, Ingredients, Recipe
from exporter.int8.weights import check_weights
from trainer.tasks import SingleLabel

pytestmark = pytest.mark.slow

LARGEST = 68e6
"""67 million parameters of a byte, and their scales."""


def feeds(length: int) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(length).integers(1000, 30000, (1, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from toys import make_tokenizer
    from transformers import DistilBertConfig, DistilBertForSequenceClassification, set_seed

    set_seed(0)
    folder = tmp_path_factory.mktemp("distilbert")
    DistilBertForSequenceClassification(DistilBertConfig()).save_pretrained(folder / "checkpoint")
    make_tokenizer(folder / "checkpoint")
    convert(folder / "checkpoint", folder / "onnx")
    finish_conversion(folder / "onnx" / "model.onnx", {})
    assert fuse(folder / "onnx" / "model.onnx", folder / "fused.onnx", folder / "checkpoint")["Attention"] == 6
    return folder / "onnx" / "model.onnx"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_recipe_is_small_right_and_runs(recipe: Recipe, model: Path, tmp_path: Path) -> None:
    if not recipe.is_usable():
        pytest.skip(f"`{recipe.needs}` is not installed")
    output = tmp_path / "model.onnx"
    recipe.make(model, output, Ingredients([feeds(length) for length in (16, 40, 64, 96)], SingleLabel(2), threads=2))
    spared = 0.25 * 43e6 * 3 if recipe.name == "dynamic-mixed" else 0  # a quarter of its matrices may stay in float
    assert output.stat().st_size <= LARGEST + spared
    if recipe.keeps_weights:
        compared = check_weights(model, output, recipe.name)
        assert compared == 38 + 2 or (recipe.name == "dynamic-mixed" and compared >= 31)  # products and embeddings
    session = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
    assert np.isfinite(session.run(["logits"], feeds(512))[0]).all()
