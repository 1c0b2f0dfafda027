"""What is frozen costs little in training, and nothing of that is left in what a run saves or answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toys import make_decoder, make_texts

from trainer.config import TrainConfig
from trainer.data.sources import locate_base
from trainer.model.load import build_model, inputs_of, load_tokenizer, make_encoder
from trainer.run import RunDir
from trainer.training.frozen import QuickDropout, logits_of, settle_frozen, shorten_last_layer
from trainer.training.graphs import GraphTrainer, Step, takes_wide_mask
from trainer.training.loop import (
    Hardware,
    full_batches,
    make_collator,
    training_arguments,
    width_step,
)
from trainer.training.train import train

TAKES_WIDE_MASKS = not version("transformers").startswith("4.")


def toy(checkpoint: Path, dropout: float = 0.5) -> Any:
    base = locate_base(str(checkpoint))
    return build_model(base, ("a", "b"), lora_r=2, lora_alpha=4, lora_dropout=dropout, lora_targets=None, seed=0)


def test_what_is_frozen_is_held_in_the_precision_of_the_training_and_drops_nothing(checkpoint: Path) -> None:
    model = toy(checkpoint)
    settle_frozen(model, "cpu", "bf16")
    model.train()
    classifier = model.get_base_model()
    assert {p.dtype for p in classifier.base_model.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    active = {type(m) for m in classifier.base_model.modules() if m.training and not list(m.children())}
    assert active == {QuickDropout}
    assert classifier.classifier.training
    assert classifier.dropout.training
    model.eval()
    assert not any(m.training for m in model.modules())


def test_the_quick_dropout_drops_its_share_and_makes_up_for_it() -> None:
    torch.manual_seed(0)
    dropout, x = QuickDropout(0.1), torch.ones(1000, 333, requires_grad=True)
    y = dropout(x)
    y.sum().backward()
    dropped = y.detach()
    assert float((dropped == 0).float().mean()) == pytest.approx(0.1, abs=0.005)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.005)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.9], rel=1e-4)
    assert torch.equal(x.grad, dropped)
    assert not torch.equal(dropout(x), dropped)
    assert dropout.eval()(x) is x


def test_a_run_in_half_precision_saves_what_a_run_in_fp32_does(toy_config: TrainConfig, tmp_path: Path) -> None:
    """And its last answers are given in that precision, too."""
    saved = {}
    for precision in ("fp32", "bf16"):
        config = replace(toy_config, precision=precision, epochs=1, run_dir=tmp_path / precision)
        result = train(config)
        assert result
        assert len(result.examples) == 4
        saved[precision] = load_file(RunDir(config.run_dir).adapter / "adapter_model.safetensors")
    shapes = [{name: (weight.dtype, weight.shape) for name, weight in weights.items()} for weights in saved.values()]
    assert shapes[0] == shapes[1]
    assert {dtype for dtype, _ in shapes[0].values()} == {torch.float32}


def test_the_last_layer_is_shortened_for_the_first_token_where_that_alone_is_read(
    checkpoint: Path, tmp_path: Path
) -> None:
    """The gradients are the same, too; a decoder, which reads the last token, stays as it is."""
    batch = {
        "input_ids": torch.tensor([[2, *range(5, 15), 3], [2, 9, 8, 3, *[0] * 8]]),
        "attention_mask": torch.tensor([[1] * 12, [1] * 4 + [0] * 8]),
        "labels": torch.tensor([0, 1]),
    }
    model = toy(checkpoint).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # as after some steps: at first they are 0, and hide what goes into them
            weight.data.normal_()
    seen: list[int] = []
    model.get_base_model().distilbert.transformer.layer[-1].ffn.lin2.register_forward_hook(
        lambda _, inputs, __: seen.append(inputs[0].shape[1])
    )
    gradients = []
    for _ in range(2):
        model.zero_grad()
        model(**batch).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
        assert shorten_last_layer(model, batch)
    assert {seen[0], seen[-1]} == {12, 1}
    assert sum(float(g.abs().sum()) for g in gradients[0]) > 0
    for first, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, first)

    from transformers import AutoModelForSequenceClassification

    decoder = AutoModelForSequenceClassification.from_pretrained(make_decoder(tmp_path / "d", "llama", pad="<pad>"))
    decoder.config.pad_token_id = 1
    expected = logits_of(decoder, batch)
    assert not shorten_last_layer(decoder, batch)
    assert torch.equal(logits_of(decoder, batch), expected)


@pytest.mark.parametrize("target", ["c_attn", "c_fc"])
def test_a_decoder_whose_only_linear_layers_are_loras_stays_as_it_is(tmp_path: Path, target: str) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    decoder = AutoModelForSequenceClassification.from_pretrained(make_decoder(tmp_path / "d", "gpt2", pad="<pad>"))
    decoder.config.pad_token_id = 1
    lora = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=[target], fan_in_fan_out=True)
    batch = {
        "input_ids": torch.tensor([[2, 5, 6, 7, 3], [2, 9, 3, 1, 1]]),
        "attention_mask": torch.tensor([[1] * 5, [1] * 3 + [0] * 2]),
    }
    assert not shorten_last_layer(get_peft_model(decoder, lora), batch)


def texts_trainer(
    checkpoint: Path, folder: Path, device: str = "cpu", dropout: float = 0.5
) -> tuple[GraphTrainer, Callable[..., Any]]:
    """A trainer of 37 rows in batches of 8, whose widths are multiples of 32, and what makes its batches."""
    model = toy(checkpoint, dropout)
    encoder = make_encoder(load_tokenizer(checkpoint), 48, "head", 0)
    texts = [text for text, _ in make_texts(37, longest=60)]
    rows = [{"input_ids": e.ids, "sizes": e.sizes, "labels": i % 2} for i, e in enumerate(encoder.encode(texts))]
    collate = make_collator(encoder, inputs_of(model), width_step(48))
    settle_frozen(model, device, "fp32")
    arguments = training_arguments(
        Hardware(device, "fp32"),
        warmup_ratio=0,
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=8,
        save_strategy="no",
    )
    return GraphTrainer(model=model, args=arguments, train_dataset=rows, data_collator=collate), collate


@pytest.mark.skipif(not TAKES_WIDE_MASKS, reason="transformers 4 makes masks of its own, and is not captured")
def test_a_captured_training_is_the_same_training(checkpoint: Path, tmp_path: Path) -> None:
    """Here a step stands in for its graph; full batches of each width go through one, and the last batch does not."""
    seen: list[torch.Size] = []

    def stand_in(step: Step, tensors: tuple[torch.Tensor, ...], pool: object) -> Step:  # noqa: ARG001
        step.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
        return step

    weights = []
    for is_captured in (False, True):
        trainer, collate = texts_trainer(checkpoint, tmp_path)
        if is_captured:
            trainer.capture(full_batches(trainer.train_dataset, collate, 8), torch.float32, stand_in)
            assert {tuple(shape) for shape in trainer.steps} == {(8, 32), (8, 48)}
        torch.manual_seed(1)
        trainer.train()
        weights.append([p for p in trainer.model.parameters() if p.requires_grad])
    assert len(seen) == 37 // 8
    assert set(seen) <= {torch.Size((8, 32)), torch.Size((8, 48))}
    for plain, captured in zip(*weights, strict=True):
        torch.testing.assert_close(captured, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not TAKES_WIDE_MASKS, reason="transformers 4 makes masks of its own, and is not captured")
def test_graphs_train_as_steps_do(checkpoint: Path, tmp_path: Path) -> None:
    """Without dropout, which draws other numbers in a graph."""
    weights = []
    for is_captured in (False, True):
        trainer, collate = texts_trainer(checkpoint, tmp_path, "cuda", dropout=0.0)
        trainer.model.get_base_model().dropout.p = 0.0
        if is_captured:
            trainer.capture(full_batches(trainer.train_dataset, collate, 8), torch.float32)
            assert {tuple(shape) for shape in trainer.steps} == {(8, 32), (8, 48)}
        torch.manual_seed(1)
        trainer.train()
        weights.append([p for p in trainer.model.parameters() if p.requires_grad])
    for plain, captured in zip(*weights, strict=True):
        torch.testing.assert_close(captured, plain, rtol=1e-3, atol=1e-4)


def test_what_cannot_be_captured_is_trained_without(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> Step:
        raise RuntimeError("called a synchronizing CUDA operation\nmore")

    trainer, collate = texts_trainer(checkpoint, tmp_path)
    trainer.capture(full_batches(trainer.train_dataset, collate, 8), torch.float32, refuse)
    assert trainer.steps == {}
    assert "without CUDA graphs: called a synchronizing CUDA operation\n" in capsys.readouterr().err
    trainer.args.gradient_accumulation_steps = 2
    trainer.capture(full_batches(trainer.train_dataset, collate, 8), torch.float32, lambda step, *_: step)
    assert trainer.steps == {}


def test_a_model_is_asked_whether_it_takes_a_mask_that_is_ready_for_attention(checkpoint: Path, tmp_path: Path) -> None:
    trainer, collate = texts_trainer(checkpoint, tmp_path)
    batch = collate(trainer.train_dataset[:8])
    assert not batch["attention_mask"].all()
    assert takes_wide_mask(trainer.model, batch) == TAKES_WIDE_MASKS
    trainer.model.get_base_model().set_attn_implementation("eager")  # which would add 1 where a token is
    assert not takes_wide_mask(trainer.model, batch)


@pytest.mark.parametrize(("max_length", "widths"), [(24, [24]), (256, list(range(32, 257, 32))), (500, 8), (8192, 8)])
def test_batches_on_a_gpu_have_few_widths(max_length: int, widths: list[int] | int) -> None:
    step = width_step(max_length)
    found = sorted({min(-(-length // step) * step, max_length) for length in range(1, max_length + 1)})
    assert found == widths if isinstance(widths, list) else len(found) == widths
