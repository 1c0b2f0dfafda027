"""The fine-tuning run: data and a base model in; the best epoch's adapter, its evaluation texts and a record out.

The loop itself is the Hugging Face `Trainer`, which brings checkpoints, resuming, mixed precision and several GPUs.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import transformers
from sklearn.metrics import accuracy_score, f1_score

from trainer.config import Device, Precision, TrainConfig
from trainer.data import Examples, Splits, load_splits
from trainer.encoding import Encoded, Encoder
from trainer.errors import UserError
from trainer.flags import typed
from trainer.model import build_model, load_tokenizer, make_encoder, save_adapter
from trainer.records import installed_versions, read_record, write_record
from trainer.run import EpochScores, RunDir, Training, UnfinishedRun, write_run
from trainer.sources import Base, Source, locate_base

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from peft import PeftModel

PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "tokenizers")
EXAMPLES_SHOWN = 4
C = TypeVar("C", bound="DataclassInstance")


@dataclass(frozen=True)
class ExamplePrediction:
    """One evaluation text with the model's answer."""

    text: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class TrainResult:
    """What a run returns: its record, as written to disk, and a few answers to look at."""

    training: Training
    evaluation_texts: int
    examples: tuple[ExamplePrediction, ...]


def train(config: TrainConfig) -> TrainResult | None:
    """Fine-tune a classifier as `config` asks and leave it in `config.run_dir`.

    Returns:
        The result, or None in every process but the first of a distributed run.

    Raises:
        UserError: anything about the input or the machine that the user can mend.
    """
    started = time.monotonic()
    transformers.logging.set_verbosity_error()
    run = RunDir(config.run_dir)
    _check_run_dir(run, config)
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    splits = _load_data(config)
    base = locate_base(config.model)
    say_source("base model", base.source)
    tokenizer = load_tokenizer(base.folder)
    encoder = make_encoder(tokenizer, config.max_length, config.truncation)
    model = _build(config, base, splits, device, precision)
    trainer = _make_trainer(config, run, model, encoder, splits, device, precision)
    if trainer.is_world_process_zero():
        _begin(run, config, base, splits)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "mtime may not be reliable")  # said of epochs shorter than a second
        trainer.train(resume_from_checkpoint=last_checkpoint(run.checkpoints) if config.resume else None)
    trainer.accelerator.wait_for_everyone()  # the first process removes the checkpoints, which the others read
    scores = _epoch_scores(trainer.state.log_history)
    if not trainer.is_world_process_zero():
        return None
    save_adapter(model, base.source, run.adapter)
    tokenizer.save_pretrained(run.adapter)
    examples = _predict_examples(model, encoder, splits)
    training = _training(config, splits, model, scores, device, precision, started)
    write_run(run, base, splits, encoder, training, installed_versions(PACKAGES))
    shutil.rmtree(run.checkpoints)
    return TrainResult(training, len(splits.evaluation), examples)


def choose_device(asked: Device) -> str:
    """Return `cuda`, `mps` or `cpu`: what was asked for, or the best there is.

    Raises:
        UserError: the device asked for is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return next(device for device, present in there.items() if present)
    if not there[asked]:
        raise UserError(f"no `{asked}` device on this machine", "leave out `--device` to take the best there is")
    return asked


def choose_precision(asked: Precision, device: str) -> str:
    """Return the precision to train in; `auto` takes bf16 where the hardware multiplies it natively, else fp32.

    Raises:
        UserError: fp16 was asked for away from a GPU.
    """
    if asked == "fp16" and device != "cuda":
        raise UserError("fp16 training needs a CUDA device", "leave out `--precision` to take the best there is")
    if asked != "auto":
        return asked
    if device == "cuda":
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp32"
    # A CPU with AMX tiles or AVX-512's bf16 products trains about twice as fast in it; others emulate it, slower.
    features = torch.cpu.get_capabilities() if device == "cpu" else {}
    return "bf16" if features.get("amx_bf16") or features.get("avx512_bf16") else "fp32"


def _check_run_dir(run: RunDir, config: TrainConfig) -> None:
    """Refuse to train where nothing can be written, over anything but a run, and over a run unless told to."""
    nearest = next(folder for folder in (run.path, *run.path.resolve().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise UserError(f"cannot write to `{nearest}`", "name another `--run-dir`")
    if run.path.exists() and any(run.path.iterdir()) and not run.is_ours():
        raise UserError(f"`{run.path}` holds something else than a run", "name another `--run-dir`")
    if config.resume:
        if run.record.exists() or not run.unfinished.exists():
            raise UserError(f"no interrupted run in `{run.path}`", "leave out `--resume`")
        check_same(read_record(run.unfinished, UnfinishedRun).config, config, free=("run_dir",))
    elif config.overwrite:
        return
    elif run.record.exists():
        raise UserError(f"`{run.path}` already holds a trained run", "add `--overwrite`, or name another `--run-dir`")
    elif run.unfinished.exists():
        raise UserError(
            f"`{run.path}` holds an interrupted run",
            "`--resume` continues it after its last finished epoch, `--overwrite` starts it again",
        )


def check_same(before: C, now: C, *, free: Sequence[str]) -> None:
    """Refuse to resume under another configuration than the run was started with.

    Args:
        before: the configuration it was started with.
        now: the one it is to continue with.
        free: fields that may differ, beside the device and the two flags that decide about resuming.

    Raises:
        UserError: another field differs.
    """
    for field in dataclasses.fields(now):
        old, new = getattr(before, field.name), getattr(now, field.name)
        if field.name not in {"resume", "overwrite", "device", *free} and old != new:
            raise UserError(
                f"the interrupted run had {typed(field.name, old)}, not {typed(field.name, new)}",
                "repeat its flags, or start again with `--overwrite`",
            )


def _begin(run: RunDir, config: TrainConfig, base: Base, splits: Splits) -> None:
    """Make room for the run and write down what it was given; on `--resume` check that it is given the same."""
    now = UnfinishedRun(config, base.sha256(), splits.sha256())
    if not config.resume:
        run.clear_training()
        write_record(run.unfinished, now)
        return
    before = read_record(run.unfinished, UnfinishedRun)
    if (before.base_sha256, before.data_sha256) != (now.base_sha256, now.data_sha256):
        raise UserError(
            "the data or the base model is not that of the interrupted run",
            "restore them, or start again with `--overwrite`",
        )


def last_checkpoint(checkpoints: Path) -> str | None:
    """Return the newest checkpoint that was written whole: its `trainer_state.json` comes last."""
    whole = [path.parent for path in checkpoints.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def _load_data(config: TrainConfig) -> Splits:
    splits = load_splits(
        config.dataset,
        config.eval_dataset,
        text_column=config.text_column,
        label_column=config.label_column,
        label_names=config.label_names,
        max_train_samples=config.max_train_samples,
        max_eval_samples=config.max_eval_samples,
        seed=config.seed,
    )
    say_source("dataset", splits.source)
    parts = zip(("train", "eval"), (splits.train, splits.evaluation), splits.available, strict=True)
    for name, examples, available in parts:
        limited = f" of {available:,} (`--max-{name}-samples 0` takes all)" if len(examples) < available else ""
        say(f"{name}: {len(examples):,} texts{limited}")
    if splits.duplicates_dropped:
        say(f"dropped {splits.duplicates_dropped:,} training texts that stand elsewhere in the data")
    return splits


def _build(config: TrainConfig, base: Base, splits: Splits, device: str, precision: str) -> PeftModel:
    model = build_model(
        base,
        splits.label_names,
        max_length=config.max_length,
        lora_r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        lora_targets=config.lora_targets,
        seed=config.seed,
    )
    trainable, total = model.get_nb_trainable_parameters()
    say(f"training {trainable:,} of {total:,} parameters ({trainable / total:.2%}) in {precision} on {device}")
    return model


def _training(
    config: TrainConfig,
    splits: Splits,
    model: PeftModel,
    scores: tuple[EpochScores, ...],
    device: str,
    precision: str,
    started: float,
) -> Training:
    trainable, total = model.get_nb_trainable_parameters()
    return Training(
        config=config,
        train_texts=len(splits.train),
        duplicates_dropped=splits.duplicates_dropped,
        trainable_parameters=trainable,
        total_parameters=total,
        epochs=scores,
        best_epoch=min(scores, key=lambda epoch: epoch.loss).epoch,
        device=device_name(device),
        precision=precision,
        duration_s=time.monotonic() - started,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _make_trainer(
    config: TrainConfig,
    run: RunDir,
    model: PeftModel,
    encoder: Encoder,
    splits: Splits,
    device: str,
    precision: str,
) -> transformers.Trainer:
    trainer = transformers.Trainer(
        model=model,
        args=_arguments(config, run, device, precision),
        train_dataset=_rows(encoder, splits.train),
        # By length, so that little of a batch is padding; no score depends on the order.
        eval_dataset=sorted(_rows(encoder, splits.evaluation), key=lambda row: len(row["input_ids"])),
        data_collator=_collator(encoder),
        compute_metrics=_metrics,
        callbacks=[_EpochReport(config.epochs)],
    )
    keep_stdout_clean(trainer)
    if config.early_stopping_patience:
        trainer.add_callback(transformers.EarlyStoppingCallback(config.early_stopping_patience))
    return trainer


def keep_stdout_clean(trainer: transformers.Trainer) -> None:
    """Take away the callbacks that print dictionaries to stdout, which is for results."""
    trainer.remove_callback(transformers.PrinterCallback)
    if trainer.pop_callback(transformers.ProgressCallback):
        trainer.add_callback(_Progress())


def _arguments(config: TrainConfig, run: RunDir, device: str, precision: str) -> transformers.TrainingArguments:
    return training_arguments(
        device,
        precision,
        output_dir=str(run.checkpoints),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size * 2,
        learning_rate=config.learning_rate,
        warmup_ratio=config.warmup_ratio,
        weight_decay=config.weight_decay,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        group_by_length=True,  # most of a batch of texts would otherwise be padding
        seed=config.seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        restore_callback_states_from_checkpoint=True,  # the count of early stopping
        metric_for_best_model="loss",
        greater_is_better=False,
    )


def training_arguments(device: str, precision: str, **settings: Any) -> transformers.TrainingArguments:
    """Return training arguments for a device and a precision, with what all trainings here have in common."""
    # Where neither half precision is asked for, transformers takes the one that this variable names, and it is set by
    # any training that this process has done before.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
    return transformers.TrainingArguments(
        use_cpu=device == "cpu",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        save_total_limit=1,
        remove_unused_columns=False,
        dataloader_pin_memory=device == "cuda",
        ddp_find_unused_parameters=False,
        disable_tqdm=not sys.stderr.isatty(),
        report_to="none",
        **settings,
    )


def _rows(encoder: Encoder, examples: Examples) -> list[dict[str, Any]]:
    encoded = encoder.encode(examples.texts)
    return [{"input_ids": e.ids, "labels": label} for e, label in zip(encoded, examples.labels, strict=True)]


def _collator(encoder: Encoder) -> Callable[[Sequence[dict[str, Any]]], dict[str, torch.Tensor]]:
    def collate(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids, mask = encoder.pad([Encoded(row["input_ids"], truncated=False) for row in rows])
        labels = torch.tensor([row["labels"] for row in rows])
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask), "labels": labels}

    return collate


def _metrics(prediction: transformers.EvalPrediction) -> dict[str, float]:
    predicted = prediction.predictions.argmax(axis=-1)
    return {
        "accuracy": float(accuracy_score(prediction.label_ids, predicted)),
        "f1_weighted": float(f1_score(prediction.label_ids, predicted, average="weighted")),
    }


def _epoch_scores(log: list[dict[str, Any]]) -> tuple[EpochScores, ...]:
    scores = tuple(
        EpochScores(round(entry["epoch"]), entry["eval_accuracy"], entry["eval_f1_weighted"], entry["eval_loss"])
        for entry in log
        if "eval_loss" in entry
    )
    if odd := [epoch for epoch in scores if not math.isfinite(epoch.loss)]:
        raise UserError(
            f"training diverged: the evaluation loss after epoch {odd[0].epoch} is {odd[0].loss}",
            "lower `--learning-rate`, or train with `--precision fp32`",
        )
    return scores


def _predict_examples(model: PeftModel, encoder: Encoder, splits: Splits) -> tuple[ExamplePrediction, ...]:
    """Let the trained model answer the first few evaluation texts."""
    some = splits.evaluation.take(range(min(EXAMPLES_SHOWN, len(splits.evaluation))))
    ids, mask = (torch.from_numpy(array).to(model.device) for array in encoder.pad(encoder.encode(some.texts)))
    with torch.inference_mode():
        probabilities = model.eval()(input_ids=ids, attention_mask=mask).logits.float().softmax(-1).cpu()
    names = splits.label_names
    return tuple(
        ExamplePrediction(text, names[label], names[int(row.argmax())], float(row.max()))
        for text, label, row in zip(some.texts, some.labels, probabilities, strict=True)
    )


def device_name(device: str) -> str:
    """Return the GPU's name, or else the kind of device."""
    return str(torch.cuda.get_device_name()) if device == "cuda" else device


class _EpochReport(transformers.TrainerCallback):
    """Tells the scores after each epoch."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:  # noqa: ARG002
        if state.is_world_process_zero:
            say(
                f"epoch {round(state.epoch)}/{self._epochs}: accuracy {metrics['eval_accuracy']:.1%}, "
                f"weighted F1 {metrics['eval_f1_weighted']:.1%}, evaluation loss {metrics['eval_loss']:.3f}"
            )


class _Progress(transformers.ProgressCallback):
    """The progress bar without its log lines."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        pass


def say_source(kind: str, source: Source) -> None:
    """Tell where a base model or a dataset came from, and loudly where another takes its place."""
    say(f"{kind}: {source.name}{f' at {source.revision}' if source.revision else ''}")
    if source.stands_in_for:
        say(
            f"WARNING: the Hugging Face Hub cannot be reached for `{source.stands_in_for}`. "
            f"The built-in {source.name} takes its place: scores say nothing about `{source.stands_in_for}`."
        )


def say(message: str) -> None:
    """Write a line of progress to stderr, once in a run of several processes."""
    if int(os.environ.get("RANK", "0")) == 0:
        sys.stderr.write(message + "\n")
