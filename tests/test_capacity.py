"""A model's bounds are read from its tables, and what stands behind a text's end changes no answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from local_worker import LocalWorker
from toys import WORDS, make_decoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PretrainedConfig, PreTrainedModel

from exporter.config import ExportConfig
from exporter.export import export
from exporter.proof.reference import TorchModel, load_trained
from exporter.runtime import Classifier
from trainer.config import TrainConfig
from trainer.data.sources import locate_base
from trainer.errors import UserError
from trainer.model.capacity import Capacity, check_length, check_padding, check_tokens, measure_capacity
from trainer.model.load import load_classifier, load_tokenizer, make_encoder, settle_padding
from trainer.run import RunDir
from trainer.training.train import train

SIZE: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
ENCODER = SIZE | {"intermediate_size": 64, "max_position_embeddings": 20}

BOUNDS: dict[str, tuple[PretrainedConfig, int | None]] = {
    "from 0": (transformers.BertConfig(**ENCODER), 20),
    "after padding": (transformers.RobertaConfig(**ENCODER, pad_token_id=1), 18),
    "after another padding": (transformers.XLMRobertaConfig(**ENCODER, pad_token_id=5), 14),
    "mpnet": (transformers.MPNetConfig(**ENCODER, pad_token_id=1), 18),
    "with an offset": (
        transformers.OPTConfig(**SIZE, ffn_dim=64, max_position_embeddings=20, word_embed_proj_dim=32),
        20,
    ),
    "a decoder's": (transformers.GPT2Config(vocab_size=64, n_positions=20, n_embd=32, n_layer=2, n_head=2), 20),
    "in pieces of a window": (transformers.LongformerConfig(**ENCODER, pad_token_id=1, attention_window=6), 18),
    "rotary": (transformers.LlamaConfig(**ENCODER), None),
    "relative": (transformers.DebertaV2Config(**ENCODER, relative_attention=True, position_biased_input=False), None),
    "in buckets": (
        transformers.T5Config(vocab_size=64, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2,
                              decoder_start_token_id=0),
        None,
    ),
}  # fmt: skip


def make_model(config: PretrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    settle_padding(model.config, 3)
    return model.eval()


@pytest.mark.parametrize("kind", BOUNDS)
def test_the_longest_text_and_the_largest_token_are_those_that_the_model_can_take(kind: str) -> None:
    config, positions = BOUNDS[kind]
    model = make_model(config)
    assert measure_capacity(model) == Capacity(positions, 64)

    end = min(config.eos_token_id or 0, 63)  # T5 wants it

    def run(length: int, token: int) -> None:
        with torch.no_grad():
            model(input_ids=torch.tensor([[2] * (length - 2) + [token, end]]))

    run(positions or 100, 63)
    for length, token in [(5, 64), *([(positions + 2, 2)] if positions else [])]:
        with pytest.raises((IndexError, RuntimeError)):  # as PyTorch says it
            run(length, token)


def test_measuring_leaves_the_model_as_it_was() -> None:
    model = make_model(BOUNDS["from 0"][0]).train()
    state = torch.get_rng_state()
    measure_capacity(model)
    check_padding(model)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_a_length_beyond_the_positions_is_refused() -> None:
    check_length(Capacity(40, 64), 40)
    check_length(Capacity(None, 64), 10**6)
    with pytest.raises(UserError, match="`--max-length 41` is more than this model's 40 positions"):
        check_length(Capacity(40, 64), 41)


def test_a_token_without_a_row_is_refused_by_name_and_a_row_without_a_token_is_not(checkpoint: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    check_tokens(Capacity(64, len(tokenizer)), tokenizer)
    check_tokens(Capacity(64, len(tokenizer) + 7), tokenizer)
    check_tokens(Capacity(64, None), tokenizer)
    tokenizer.add_tokens(["<order>"])
    with pytest.raises(
        UserError, match=r"the token `<order>` with the number \d+, and the model has \d+ rows"
    ) as error:
        check_tokens(Capacity(64, len(tokenizer) - 1), tokenizer)
    assert "resize_token_embeddings" in error.value.hint


def test_a_model_that_reads_its_answer_from_the_padding_is_refused_by_name() -> None:
    config = transformers.XLNetConfig(vocab_size=64, d_model=32, n_layer=2, n_head=2, d_inner=64)
    with pytest.raises(UserError, match="a `xlnet` answers otherwise when a text is padded"):
        check_padding(make_model(config))


def test_a_model_that_wants_more_than_tokens_and_a_mask_is_refused_by_name() -> None:
    config = transformers.FNetConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, intermediate_size=32)
    with pytest.raises(UserError, match=r"a `fnet` (cannot take a text of 5 tokens|answers otherwise)"):
        check_padding(make_model(config))  # transformers 5 lets it take a mask, and it ignores it


# Padding of the tokenizer and of the configuration, and which is taken.
PADDINGS: dict[str, tuple[str | None, int | None, int]] = {
    "nowhere": (None, None, 0),  # the end token
    "in the tokenizer": ("<pad>", None, 1),
    "in both": ("<pad>", 1, 1),
    "in both, and not the same": ("<pad>", 2, 2),
    "in the configuration": (None, 1, 1),
    "in the configuration, and none": ("<pad>", -1, 1),
}


DECODERS = [*(("llama", padding) for padding in PADDINGS), *((kind, "nowhere") for kind in ("qwen3", "gpt2", "opt"))]


@pytest.mark.parametrize(("kind", "padding"), DECODERS)
def test_a_decoder_answers_in_a_batch_as_it_does_alone(tmp_path: Path, kind: str, padding: str) -> None:
    pad, own, taken = PADDINGS[padding]
    base = locate_base(str(make_decoder(tmp_path, kind, pad=pad, pad_token_id=own)))
    tokenizer = load_tokenizer(base.folder)
    model, _ = load_classifier(base, ("no", "yes"))
    assert settle_padding(model.config, tokenizer.pad_token_id) == model.config.pad_token_id == taken
    check_padding(model)
    encoder = make_encoder(tokenizer, 20, "head", taken)
    texts = [" ".join(WORDS[:5]), WORDS[3], "", f"{WORDS[1]} <end> <end>", f"{WORDS[1]} <pad>", " ".join(WORDS * 2)]
    encoded = encoder.encode(texts)
    assert min(map(len, encoded)) == 1
    engine = TorchModel(model, encoder)
    alone = np.concatenate([engine.run([one]) for one in encoded])
    np.testing.assert_allclose(engine.run(encoded), alone, atol=1e-5)
    np.testing.assert_allclose(engine.run(encoded, 30), alone, atol=1e-5)
    for text, row in zip(texts, alone, strict=True):
        if text:  # transformers itself takes no empty one
            ids = torch.tensor([tokenizer(text)["input_ids"][:20]])
            np.testing.assert_allclose(row, model(input_ids=ids).logits[0].detach(), atol=1e-5)


def test_a_tokenizer_with_nothing_to_pad_with_is_refused(tmp_path: Path) -> None:
    make_decoder(tmp_path, "llama")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="neither a padding token nor an end token") as error:
        load_tokenizer(tmp_path)
    assert "tokenizer.pad_token = " in error.value.hint


def test_a_decoder_is_trained_exported_and_quantized(tmp_path: Path, toy_config: TrainConfig) -> None:
    config = replace(
        toy_config,
        model=str(make_decoder(tmp_path / "base", "llama")),
        lora_targets=("q_proj", "v_proj"),
        run_dir=tmp_path / "run",
    )
    train(config)
    run = RunDir(config.run_dir)
    assert run.load().training.best.accuracy > 0.8  # type: ignore[union-attr]
    export(ExportConfig(run_dir=run.path, quantize="dynamic", accept_undecided=True, verify_samples=8), LocalWorker)
    texts = ["soup", "the bank saw a loan", "", " ".join(WORDS)]
    answers = Classifier.load(run.export / "onnx-fp32").logits(texts)
    np.testing.assert_allclose(answers, load_trained(run).logits(texts), atol=1e-4)
    assert (run.export / "onnx-int8" / "model.onnx").is_file()
