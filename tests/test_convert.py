"""Every graph answers as its model does, whatever the shape of a batch; optimum's graph and ours are one classifier."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from local_worker import LocalWorker
from test_model import SIZE, TOYS
from toys import make_tokenizer
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel, set_seed

from exporter.config import ExportConfig, Exporter
from exporter.convert.graph import finish_conversion, fuse
from exporter.convert.to_onnx import convert
from exporter.export import export
from exporter.int8.recipes import RECIPES, Ingredients
from exporter.runtime import Classifier
from trainer.errors import UserError
from trainer.run import RunDir
from trainer.tasks import SingleLabel

HAS_OPTIMUM = importlib.util.find_spec("optimum") is not None
needs_optimum = pytest.mark.skipif(not HAS_OPTIMUM, reason="the extra `optimum` is not installed")
LONGEST = 120
LENGTHS = (1, 2, 3, 7, 16, 33, LONGEST)
BATCHES = (1, 2, 8)

HEADS = SIZE | {"num_key_value_heads": 1}
WIDE = {"d_model": 32, "vocab_size": 64, "pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 2}
OTHERS: dict[str, PretrainedConfig] = {
    # without a line in the table of architectures, and variants of some that have one
    "bart": transformers.BartConfig(**WIDE, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
                                    decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
                                    forced_eos_token_id=None),
    "deberta-v3": transformers.DebertaV2Config(**SIZE, relative_attention=True, position_buckets=8,
                                               pos_att_type=["p2c", "c2p"], share_att_key=True,
                                               norm_rel_ebd="layer_norm", type_vocab_size=0),
    "gemma": transformers.GemmaConfig(**HEADS, head_dim=16),
    "gpt2": transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, pad_token_id=0),
    "llama": transformers.LlamaConfig(**HEADS),
    "mistral": transformers.MistralConfig(**HEADS, sliding_window=8),
    "qwen2": transformers.Qwen2Config(**HEADS),
    "qwen3": transformers.Qwen3Config(**HEADS, head_dim=16),
    "xlnet": transformers.XLNetConfig(vocab_size=64, d_model=32, n_layer=2, n_head=2, d_inner=64, pad_token_id=0),
}  # fmt: skip
CONFIGS = {name: config for name, (config, _) in TOYS.items()} | OTHERS
QUICK = ("distilbert", "bert", "deberta-v3", "modernbert", "llama")
"""One of each kind: the default, token types, relative positions, windows, a decoder."""
SELECTED = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in CONFIGS]


def make_model(name: str, folder: Path) -> PreTrainedModel:
    """Save a classifier of three classes whose answers depend on every token."""
    values = CONFIGS[name].to_dict()
    room = {key: LONGEST + 8 for key in ("max_position_embeddings", "n_positions") if key in values}
    config = type(CONFIGS[name])(**values | room | {"num_labels": 3})
    set_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.normal_(0, 0.2)
    model.save_pretrained(folder)
    make_tokenizer(folder)
    return model


def feeds(texts: int, tokens: int, pad: int, names: set[str]) -> dict[str, np.ndarray]:
    """Return random inputs called `names`: all rows but the last are padded, and each ends with the token [SEP]."""
    rng = np.random.default_rng(texts * 1000 + tokens)
    ids, mask = rng.integers(5, 64, (texts, tokens)), np.ones((texts, tokens), np.int64)
    for row, end in enumerate([*rng.integers(1, tokens + 1, texts - 1), tokens]):
        ids[row, end - 1], ids[row, end:], mask[row, end:] = 3, pad, 0
    every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.arange(tokens) % 2 * mask}
    return {name: every[name] for name in names}


def check_all_shapes(model: PreTrainedModel, path: Path) -> set[str]:
    """Compare a graph with its model at all lengths and batch sizes, and return the names of its inputs."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = {node.name for node in session.get_inputs()}
    answers = []
    for tokens in LENGTHS:
        for texts in BATCHES:
            given = feeds(texts, tokens, model.config.pad_token_id, names)
            with torch.no_grad():
                expected = model(**{name: torch.from_numpy(array) for name, array in given.items()}).logits.numpy()
            (found,) = session.run(None, given)
            np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=f"{texts} texts of {tokens} tokens")
            answers.append(found)
    assert np.ptp(np.concatenate(answers)) > 0.5  # a model that says the same of everything would prove nothing
    return names


@pytest.mark.parametrize("name", SELECTED)
def test_a_graph_answers_as_its_model_does_at_any_length_and_batch_size(name: str, tmp_path: Path) -> None:
    model = make_model(name, tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "onnx")
    names = check_all_shapes(model, tmp_path / "onnx" / "model.onnx")
    several = getattr(model.config, "type_vocab_size", 0) > 1
    assert names == {"input_ids", "attention_mask"} | ({"token_type_ids"} if several else set())


@pytest.mark.parametrize("name", SELECTED)
def test_int8_of_every_architecture_is_small_and_answers_alike(name: str, tmp_path: Path) -> None:
    model = make_model(name, tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "onnx")
    path, int8 = tmp_path / "onnx" / "model.onnx", tmp_path / "int8.onnx"
    finish_conversion(path, {})
    next(recipe for recipe in RECIPES if recipe.name == "dynamic-channel-int8").make(
        path, int8, Ingredients([], SingleLabel(2))
    )
    sessions = [onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]) for file in (path, int8)]
    names = {node.name for node in sessions[0].get_inputs()}
    rows = [feeds(1, tokens, model.config.pad_token_id, names) for tokens in range(2, 40)]
    full, small = (np.concatenate([session.run(["logits"], row)[0] for row in rows]) for session in sessions)
    assert np.abs(small - full).mean() < np.ptp(full) / 20
    assert sum(node.op_type == "MatMulInteger" for node in onnx.load(int8).graph.node) >= 2 * 2


@needs_optimum
@pytest.mark.parametrize("name", ["distilbert", "bert", "xlm-roberta"])
def test_the_graphs_of_both_exporters_answer_alike_and_are_fused_alike(name: str, tmp_path: Path) -> None:
    make_model(name, tmp_path / "model")
    answers, fused = [], []
    for way in get_args(Exporter):
        convert(tmp_path / "model", tmp_path / way, way)
        fused.append(fuse(tmp_path / way / "model.onnx", tmp_path / f"{way}.onnx", tmp_path / "model"))
        session = onnxruntime.InferenceSession(tmp_path / f"{way}.onnx", providers=["CPUExecutionProvider"])
        given = feeds(3, 20, 0, {node.name for node in session.get_inputs()})
        one_type = {key: np.zeros_like(value) for key, value in given.items() if key == "token_type_ids"}
        answers.append(session.run(["logits"], given | one_type)[0])
    assert fused[0]["Attention"] == fused[1]["Attention"] == 2
    np.testing.assert_allclose(*answers, atol=1e-5)


@needs_optimum
def test_optimum_can_be_asked_to_export(trained: RunDir, copy_of: Callable[[RunDir], RunDir]) -> None:
    run = copy_of(trained)
    record = export(ExportConfig(run.path, exporter="optimum", verify_samples=8), LocalWorker)
    assert (record.config.exporter, record.shortcut, record.fused["Attention"]) == ("optimum", True, 1)
    assert Classifier.load(run.export / "onnx-fp32").predict(["goal race team"])[0].label == "sport"


@pytest.mark.skipif(HAS_OPTIMUM, reason="it is installed")
def test_where_optimum_is_missing_its_extra_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs the package `optimum-onnx`") as error:
        export(ExportConfig(tmp_path, exporter="optimum"), LocalWorker)
    assert "lora2onnx[train,optimum]" in error.value.hint


def test_what_cannot_be_written_in_onnx_is_refused_by_its_reason(tmp_path: Path) -> None:
    config = transformers.FNetConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, intermediate_size=64, type_vocab_size=1, pad_token_id=0
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "model")
    make_tokenizer(tmp_path / "model")
    with pytest.raises(UserError, match="PyTorch cannot export this model: ") as error:
        convert(tmp_path / "model", tmp_path / "onnx")
    assert "another base model" in error.value.hint
