"""Trains on the same texts twice, in turns: as `python -m trainer` does, and with a plain `Trainer` and peft.

The plain one is what tutorials write: fp32, texts cut at the same length and padded to the longest of their batch, in
random order, and for the rest the defaults of both libraries. Model, LoRA, batch size and learning rate are the run's.
"""

from __future__ import annotations

import math
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from accelerate.state import AcceleratorState

from bench.measure.environment import read_environment
from bench.training.record import TrainingSpeed, TrainingSpeedConfig
from trainer.config import TrainConfig
from trainer.data.load import Splits
from trainer.data.sources import Base, locate_base
from trainer.errors import UserError
from trainer.model.load import build_model, inputs_of, settle_padding
from trainer.progress import quiet_libraries, say
from trainer.records import file_sha256, write_record
from trainer.run import RunDir, TrainRecord, reload_splits
from trainer.tasks import task_of
from trainer.text.encoding import Encoder

if TYPE_CHECKING:
    from peft import PeftModel

    from trainer.training.hardware import Hardware

FILE = "training_speed.json"
TEXTS = 4_000
"""Training texts that rounds draw from."""
STEPS = range(8, 201)
"""Of a round: fewer say little, and nobody waits for more."""
ROUNDS = 5
"""About as many are aimed at."""
LEAST_ROUNDS, MOST_ROUNDS = 2, 10
FIRST_STEPS = 4
"""Of a first round, which is not counted: it tells how long a step takes."""


def compare(config: TrainingSpeedConfig) -> TrainingSpeed:
    """Measure, and leave the record beside the run's.

    Raises:
        UserError: there is no run that was trained here, or its texts or its base model have changed since.
    """
    from trainer.model.trained import adapter_encoder
    from trainer.training.hardware import choose_hardware

    run = RunDir(config.run_dir)
    record = run.load()
    if run.has_checkpoint():
        raise UserError(
            f"the run in `{run.path}` has no adapter: it was trained otherwise than what is compared",
            "name a run that was trained with LoRA on a base model",
        )
    splits = _some(reload_splits(record))
    asked = record.training.config  # type: ignore[union-attr]  # without one, there are no texts either
    quiet_libraries()
    with run.held(), tempfile.TemporaryDirectory() as scratch:
        training = replace(asked, run_dir=Path(scratch), gradient_accumulation_steps=1)
        hardware = choose_hardware(training.device, training.precision)
        base = locate_base(record.base.name, record.base.revision)
        sides = _make_sides(training, record, base, adapter_encoder(run, record), splits, hardware)
        texts, seconds = take_turns(sides, len(splits.train), training.batch_size, config.minutes)
    speed = TrainingSpeed(
        config=config,
        run_sha256=file_sha256(run.record),
        environment=read_environment(torch.get_num_threads()),
        device=hardware.name,
        precision=hardware.precision,
        texts=texts,
        batch_size=training.batch_size,
        max_length=record.max_length,
        plain_s=tuple(plain for plain, _ in seconds),
        ours_s=tuple(ours for _, ours in seconds),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_record(run.path / FILE, speed)
    return speed


def _some(splits: Splits) -> Splits:
    count = len(splits.train)
    chosen = random.Random(0).sample(range(count), min(TEXTS, count))
    return replace(splits, train=splits.train.take(chosen), evaluation=splits.evaluation.take(range(1)))


class Side:
    """One way to train, whose trainer can be asked again and again.

    accelerate keeps the precision of the trainer that was made last for all of a process; it is put back for each turn.
    """

    def __init__(self, trainer: transformers.Trainer, train: Callable[[transformers.Trainer], object]) -> None:
        self._trainer, self._train = trainer, train
        self._rows, self._clock = trainer.train_dataset, _Clock()
        self._state = dict(AcceleratorState._shared_state)
        trainer.add_callback(self._clock)

    def seconds(self, chosen: Sequence[int]) -> float:
        """Return how long training takes on each of the chosen texts once."""
        AcceleratorState._shared_state.clear()
        AcceleratorState._shared_state.update(self._state)
        self._trainer.train_dataset = [self._rows[i] for i in chosen]
        self._train(self._trainer)
        return self._clock.seconds


class _Clock(transformers.TrainerCallback):
    """Times the loop from its first step to its last, on whatever device."""

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self._began = _now()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self.seconds = _now() - self._began


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def take_turns(
    sides: tuple[Side, Side],
    texts: int,
    batch_size: int,
    minutes: float,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[int, list[tuple[float, float]]]:
    """Let both train on the same of `texts` texts, on others in each round, until the time is up.

    Returns:
        How many texts there are in a round, and the seconds of both for each round, of which there are two at least.
    """
    ends, rng = clock() + 60 * minutes, random.Random(0)
    first = rng.sample(range(texts), min(FIRST_STEPS * batch_size, texts))
    step_s = sum(_round(sides, first)) / math.ceil(len(first) / batch_size)
    steps = min(max(int((ends - clock()) / ROUNDS / step_s), STEPS[0]), STEPS[-1])
    size = min(steps * batch_size, texts)
    seconds: list[tuple[float, float]] = []
    while len(seconds) < LEAST_ROUNDS or (len(seconds) < MOST_ROUNDS and clock() + sum(seconds[-1]) < ends):
        chosen = rng.sample(range(texts), size)
        first_s, second_s = _round(sides if len(seconds) % 2 == 0 else sides[::-1], chosen)
        seconds.append((first_s, second_s) if len(seconds) % 2 == 0 else (second_s, first_s))
        say("round {}: {:.1f} and {:.1f} s".format(len(seconds), *seconds[-1]))
    return size, seconds


def _round(sides: tuple[Side, Side], chosen: Sequence[int]) -> tuple[float, float]:
    return sides[0].seconds(chosen), sides[1].seconds(chosen)


def _make_sides(
    config: TrainConfig, record: TrainRecord, base: Base, encoder: Encoder, splits: Splits, hardware: Hardware
) -> tuple[Side, Side]:
    """Return the plain training and ours, each with a model of its own."""
    from trainer.training.loop import encode_rows, keep_stdout_clean, make_collator, run_loop
    from trainer.training.train import make_trainer

    task = task_of(record.task, len(record.label_names))
    trainer = make_trainer(config, _build_model(config, record, base), encoder, splits, task, hardware)
    trainer.args.num_train_epochs, trainer.args.eval_strategy, trainer.args.save_strategy = 1, "no", "no"
    ours = Side(trainer, lambda trainer: run_loop(trainer, None))
    model = _build_model(config, record, base)
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"  # or it would be what ours has just asked for
    arguments = transformers.TrainingArguments(
        output_dir=str(config.run_dir),
        num_train_epochs=1,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.peak_learning_rate,
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        use_cpu=hardware.device == "cpu",
        dataloader_pin_memory=hardware.device == "cuda",
    )
    plain = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=encode_rows(encoder, task, splits.train),
        data_collator=make_collator(encoder, inputs_of(model)),
    )
    keep_stdout_clean(plain)
    return Side(plain, transformers.Trainer.train), ours


def _build_model(config: TrainConfig, record: TrainRecord, base: Base) -> PeftModel:
    model = build_model(
        base,
        record.label_names,
        task=record.task,
        lora_r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        lora_targets=config.lora_targets,
        seed=config.seed,
    )
    settle_padding(model.get_base_model().config, record.pad_token_id)
    return model
