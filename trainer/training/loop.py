"""The training loop is the Hugging Face `Trainer`, for its checkpoints, resuming, mixed precision and several GPUs.

Here is what every training asks of it, and what fine-tuning adds: rows, batches and scores of texts.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
import transformers
from torch.nn.attention import sdpa_kernel

from trainer.data.load import NAMES_SHOWN, Examples, abridged
from trainer.errors import UserError
from trainer.progress import left_text, say
from trainer.tasks import Label, Task, as_set
from trainer.text.encoding import Encoded, Encoder
from trainer.training.graphs import KERNELS
from trainer.training.hardware import Hardware
from trainer.training.resume import MERIT, STATE, checkpoint_path, keep_checkpoints, seal_checkpoint

UNEVEN = 2
"""How many times more texts than the rarest label the most frequent has, where the scores of single labels are said."""
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "tokenizers")
"""Those whose versions a record keeps."""

Collator = Callable[[Sequence[dict[str, Any]]], dict[str, torch.Tensor]]
"""Makes a padded batch of rows."""


def training_arguments(
    hardware: Hardware, *, warmup_ratio: float, group_by_length: bool = False, **settings: Any
) -> transformers.TrainingArguments:
    """Return training arguments for a device and a precision, with what all trainings here have in common."""
    # Where neither half precision is asked for, transformers takes the one that this variable names, and it is set by
    # any training that this process has done before.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
    return transformers.TrainingArguments(
        use_cpu=hardware.device == "cpu",
        bf16=hardware.precision == "bf16",
        fp16=hardware.precision == "fp16",
        remove_unused_columns=False,
        dataloader_pin_memory=hardware.device == "cuda",
        accelerator_config={"non_blocking": hardware.device == "cuda"},
        logging_nan_inf_filter=False,  # would wait for the device in every step
        ddp_find_unused_parameters=False,
        disable_tqdm=not sys.stderr.isatty(),
        report_to="none",
        **_named(warmup_ratio=warmup_ratio, group_by_length=group_by_length),
        **settings,
    )


def _named(*, warmup_ratio: float, group_by_length: bool) -> dict[str, Any]:
    """Return the settings that transformers 5 calls otherwise than 4, under their names in the installed version."""
    known = {field.name for field in fields(transformers.TrainingArguments)}
    if "group_by_length" in known:
        order: dict[str, Any] = {"group_by_length": group_by_length}
    else:
        order = {"train_sampling_strategy": "group_by_length" if group_by_length else "random"}
    return order | {"warmup_ratio" if "warmup_ratio" in known else "warmup_steps": warmup_ratio}


def keep_stdout_clean(trainer: transformers.Trainer) -> None:
    """Remove the callbacks that print dictionaries to stdout, which is for results."""
    trainer.remove_callback(transformers.PrinterCallback)
    if trainer.pop_callback(transformers.ProgressCallback):
        trainer.add_callback(_ProgressBar())


class _ProgressBar(transformers.ProgressCallback):
    """The progress bar without its log lines."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        pass


class EpochReport(transformers.TrainerCallback):
    """Says the scores after each epoch, those of single labels too where these are uneven or one is never answered."""

    def __init__(self, task: Task, label_names: Sequence[str], labels: Sequence[Label], hint: str) -> None:
        """Take the labels of the training texts, and the hint for labels that are never answered."""
        self._task, self._names = task, label_names
        counts = Counter(label for of_text in labels for label in as_set(of_text))
        self._is_uneven = max(counts.values()) >= UNEVEN * min(counts.values())
        self._hint = hint
        self._first, self._started = 0.0, time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Note from where on and since when this process trains."""
        self._first, self._started = state.epoch or 0.0, time.monotonic()

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, Any], **kwargs: Any) -> None:  # noqa: ARG002
        """Say those of the epoch that has just ended."""
        if not state.is_world_process_zero:
            return
        done, to_do = state.epoch - self._first, state.num_train_epochs - state.epoch
        left = left_text((time.monotonic() - self._started) / done * to_do) if done > 0 and to_do > 0 else ""
        scores = self._task.headline({name.removeprefix("eval_"): score for name, score in metrics.items()})
        epoch = f"epoch {round(state.epoch)}/{state.num_train_epochs}"
        say(f"{epoch}: {scores}, evaluation loss {metrics['eval_loss']:.3f}{left}")
        for line in self._by_label(metrics):
            say(line)

    def _by_label(self, metrics: dict[str, Any]) -> Iterator[str]:
        recalls = [(recall, name) for name, recall in zip(self._names, metrics["eval_recalls"], strict=True)
                   if recall is not None]  # fmt: skip
        if self._is_uneven:
            lowest = sorted(recalls)[:NAMES_SHOWN]
            which = "recall" if len(lowest) == len(recalls) else f"the lowest of {len(recalls)} recalls"
            shown = ", ".join(f"`{name}` {recall:.1%}" for recall, name in lowest)
            yield f"  macro F1 {metrics['eval_f1_macro']:.1%}; {which}: {shown}"
        answers = zip(self._names, metrics["eval_answers"], strict=True)
        if never := [name for name, number in answers if not number]:
            are = "class {} is" if len(never) == 1 else "classes {} are"
            yield f"  {are.format(abridged(never))} never answered{self._hint}"


class CheckpointKeeper(transformers.TrainerCallback):
    """Marks each checkpoint when it is whole, and only then removes those that are neither the newest nor the best.

    transformers would order them by time, remove them file by file, and look for the best where it was saved.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Forget what an interruption left behind, and find the best checkpoint where it is now."""
        folder = Path(args.output_dir)
        if state.best_global_step:
            state.best_model_checkpoint = str(checkpoint_path(folder, state.best_global_step))
        if state.is_world_process_zero:
            keep_checkpoints(folder, (state.global_step, state.best_global_step))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Mark the checkpoint that has just been saved."""
        accelerate.PartialState().wait_for_everyone()  # each process saves a file of its own
        if state.is_world_process_zero:
            folder = Path(args.output_dir)
            seal_checkpoint(checkpoint_path(folder, state.global_step))
            keep_checkpoints(folder, (state.global_step, state.best_global_step))


def run_loop(trainer: transformers.Trainer, checkpoint: str | None) -> None:
    """Train, from a checkpoint where there is one; a training that had ended by itself goes no further."""
    if checkpoint:
        state = transformers.TrainerState.load_from_json(str(Path(checkpoint, STATE)))
        if state.stateful_callbacks.get("TrainerControl", {}).get("args", {}).get("should_training_stop"):
            trainer.args.num_train_epochs = math.ceil(state.epoch or 0)
    with sdpa_kernel(list(KERNELS)) if trainer.args.device.type == "cuda" else nullcontext():
        trainer.train(resume_from_checkpoint=checkpoint)


def encode_rows(encoder: Encoder, task: Task, examples: Examples) -> list[dict[str, Any]]:
    """Return one row for each example, as `make_collator` takes them.

    It has `input_ids` without padding, the own `sizes` of its texts, and `labels`.
    """
    encoded, targets = encoder.encode(examples.texts), task.targets(examples.labels)
    return [{"input_ids": e.ids, "sizes": e.sizes, "labels": label} for e, label in zip(encoded, targets, strict=True)]


def make_collator(encoder: Encoder, inputs: Sequence[str], multiple: int = 1) -> Collator:
    """Return a function that makes a padded batch of rows, with those `inputs` that a model takes.

    A batch is as wide as its longest row, rounded up to a `multiple` within the encoder's greatest length.
    """

    def collate(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        width = min(-(-longest // multiple) * multiple, encoder.max_length)
        batch = encoder.pad([Encoded(row["input_ids"], truncated=False, sizes=row["sizes"]) for row in rows], width)
        labels = torch.tensor([row["labels"] for row in rows])
        return {name: torch.from_numpy(batch[name]) for name in inputs} | {"labels": labels}

    return collate


CPU_WIDTHS = 16
"""Of what the widths of batches are multiples on a CPU. PyTorch and oneDNN keep what they compile for each size: with
all widths up to 256, a model of 30 MB took 3.4 GB after 625 steps, and without these caches it did not grow."""


def width_step(max_length: int) -> int:
    """Return of what the widths of batches are multiples on a GPU, so that there are about eight of them at most."""
    return max(32, -(-max_length // 64) * 8)


def full_batches(rows: Sequence[dict[str, Any]], collate: Collator, size: int) -> list[dict[str, torch.Tensor]]:
    """Return a batch of `size` rows of each width that there is among batches of `rows`."""
    by_width = {collate([row])["input_ids"].shape[1]: row for row in rows}
    return [collate([row] * size) for row in by_width.values()]


CALMER = "lower `--learning-rate`, or train with `--precision fp32`"
"""What may help where a training diverges."""
TIE = 1e-6
"""By which the loss counts in the merit of an epoch: 10 less are worth one right answer more of 100,000."""


def scores_of(task: Task, *, is_balanced: bool) -> Callable[[transformers.EvalPrediction], dict[str, Any]]:
    """Return a function that scores the answers of a task, to be logged beside the evaluation loss.

    The epoch of the highest merit is kept: of the highest accuracy, or macro F1 where rare labels are to weigh as much
    (`is_balanced`), or of several labels the highest average precision, which depends on no threshold. Ties go to the
    lower loss, in which all texts weigh the same. By loss alone, the first epoch would often be kept: later ones are
    right more often, but too sure where they are wrong.

    Raises:
        UserError: by the function that is returned, where an answer is not a finite number.
    """
    name = "average_precision" if task.name == "multi-label" else "f1_macro" if is_balanced else "accuracy"

    def compute_metrics(prediction: transformers.EvalPrediction) -> dict[str, Any]:
        logits, truth = prediction.predictions, prediction.label_ids.astype(np.int64)
        if not np.isfinite(logits).all():
            raise UserError("training diverged: an answer to an evaluation text is not a finite number", CALMER)
        scores = task.scores(logits, truth)
        return scores | {MERIT: scores[name] - TIE * task.loss(logits, truth)}

    return compute_metrics
