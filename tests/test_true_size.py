"""DistilBERT at its true size, with random weights: every int8 recipe is right and runs, no shortcut is slower."""

from __future__ import annotations

import random
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from exporter.convert.graph import finish_conversion, fuse
from exporter.convert.shortcut import shorten
from exporter.convert.to_onnx import convert
from exporter.engines.onnxruntime import session_options
from exporter.int8.recipes import RECIPES, Ingredients, Recipe
from exporter.int8.weights import check_weights
from exporter.proof.timing import speed_ratio
from trainer.tasks import SingleLabel

pytestmark = pytest.mark.slow

LARGEST = 68e6
"""67 million parameters of a byte, and their scales."""


def feeds(length: int, texts: int = 1) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(length).integers(1000, 30000, (texts, length))
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
    assert fuse(folder / "onnx" / "model.onnx", folder / "whole-fp32.onnx", folder / "checkpoint")["Attention"] == 6
    shutil.copyfile(folder / "onnx" / "model.onnx", folder / "whole.onnx")
    assert shorten(folder / "onnx" / "model.onnx")
    fused = fuse(folder / "onnx" / "model.onnx", folder / "short-fp32.onnx", folder / "checkpoint", shortened=True)
    assert (fused["Attention"], fused["BiasGelu"]) == (5, 6)
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


def test_a_last_layer_for_the_first_token_alone_is_never_slower(model: Path) -> None:
    """Run with `-s`, it prints the speed with the shortcut over that without, in turns on one thread, and quartiles."""
    folder, rng, slower = model.parents[1], random.Random(0), []
    for name, unfused in (("whole", folder / "whole.onnx"), ("short", model)):
        RECIPES[0].make(unfused, folder / f"{name}-int8.onnx", Ingredients([], SingleLabel(2)))
    for precision in ("fp32", "int8"):
        sessions = {
            name: onnxruntime.InferenceSession(
                folder / f"{name}-{precision}.onnx", session_options(1), providers=["CPUExecutionProvider"]
            )
            for name in ("whole", "short")
        }
        for length, texts in ((2, 1), (16, 1), (64, 1), (256, 1), (512, 1), (64, 4), (256, 4), (512, 4)):
            given, seconds = feeds(length, texts), {"whole": list[float](), "short": list[float]()}
            end = time.perf_counter() + 10
            while time.perf_counter() < end or len(seconds["whole"]) < 8:
                for name in rng.sample(list(seconds), len(seconds)):
                    start = time.perf_counter()
                    sessions[name].run(None, given)
                    seconds[name].append(time.perf_counter() - start)
            ratio = speed_ratio(seconds["whole"][1:], seconds["short"][1:])
            sys.stdout.write(
                f"{precision}, {texts} x {length}: {ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}], "
                f"{1e3 * np.median(seconds['whole']):.0f} ms before, {len(seconds['whole']) - 1} turns\n"
            )
            if ratio.high < 1:
                slower.append((precision, texts, length, ratio))
    assert not slower
