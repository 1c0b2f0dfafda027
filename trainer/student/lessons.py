"""What a student learns from beside labels: its teacher's answers, to texts without labels, too."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer.config import TrainConfig
from trainer.data import Splits, read_texts
from trainer.data.sources import find_files
from trainer.data.splitting import distinct, without
from trainer.errors import UserError
from trainer.files.tables import Reading
from trainer.locks import is_first_process
from trainer.progress import say
from trainer.run import RunDir, Teaching
from trainer.student.loss import LABELLED, TEACHER
from trainer.student.teacher import Teacher
from trainer.tasks import Task
from trainer.text.encoding import Encoder
from trainer.text.texts import Text
from trainer.training.hardware import Hardware
from trainer.training.loop import Collator

Row = dict[str, Any]
WAIT_S = 1.0
"""Seconds between two looks for the answers that another process asks for."""


@dataclass(frozen=True)
class Lessons:
    """The texts that a teacher is asked for a training, and where its answers are kept."""

    teacher: Teacher
    labelled: list[Text]
    unlabelled: list[Text]
    temperature: float
    folder: Path
    """Of the unfinished run: a resumed one, and other processes of a distributed one, read the answers there."""

    def sha256(self) -> str:
        """Return one hash over who teaches, and all texts."""
        asked = [self.teacher.run_sha256, self.labelled, self.unlabelled]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    @property
    def answers(self) -> Path:
        """The file of its logits, to the labelled texts and then the unlabelled ones, [texts, classes]."""
        return self.folder / f"teacher-{self.sha256()}.npy"

    def ask(self, hardware: Hardware) -> None:
        """Ask the teacher, once: the first process does, the others wait, and a resumed run has the answers already."""
        texts, path, where = [*self.labelled, *self.unlabelled], self.answers, self.teacher.run.path
        if not is_first_process():
            while not path.exists():
                time.sleep(WAIT_S)
            return
        if path.exists():
            say(f"the teacher in `{where}` has answered {len(texts):,} texts before the interruption")
            return
        say(f"the teacher in `{where}` answers {len(texts):,} texts")
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("wb") as file:
            np.save(file, self.teacher.logits(texts, hardware), allow_pickle=False)
        unfinished.replace(path)

    def facts(self) -> Teaching:
        """Return what the record of a student says of them."""
        path = self.teacher.run.path.resolve()
        return Teaching(path, self.teacher.run_sha256, self.temperature, len(self.unlabelled))

    def add_to(self, rows: Sequence[Row], encoder: Encoder, task: Task) -> list[Row]:
        """Return the rows of labelled texts and those of the others, each with the teacher's logits.

        A row without a label has one in its place, which the loss does not look at.
        """
        blank = task.targets([0 if task.name == "single-label" else ()])[0]
        others = [{"input_ids": e.ids, "sizes": e.sizes, "labels": blank} for e in encoder.encode(self.unlabelled)]
        every = zip([*rows, *others], np.load(self.answers, allow_pickle=False), strict=True)
        return [{**row, TEACHER: of_teacher, LABELLED: i < len(rows)} for i, (row, of_teacher) in enumerate(every)]


def with_lessons(collate: Collator) -> Collator:
    """Return what makes a batch of rows of either kind: with a teacher's logits or, to evaluate, without."""

    def collate_all(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        batch = collate(rows)
        if TEACHER in rows[0]:
            batch[TEACHER] = torch.from_numpy(np.stack([row[TEACHER] for row in rows]))
            batch[LABELLED] = torch.tensor([row[LABELLED] for row in rows])
        return batch

    return collate_all


def prepare_lessons(config: TrainConfig, teacher: Teacher, splits: Splits) -> Lessons:
    """Gather all that there is to ask, before the training; see `read_unlabelled`."""
    folder = RunDir(config.run_dir).checkpoints
    return Lessons(teacher, splits.train.texts, read_unlabelled(config, splits), config.temperature, folder)


def read_unlabelled(config: TrainConfig, splits: Splits) -> list[Text]:
    """Read the texts of `--unlabelled`, each once, without those that have a label and a use already.

    They are trained on, or kept from training: to measure a score on them, or to calibrate.

    Raises:
        UserError: there is no such file, or no text is left.
    """
    if config.unlabelled is None:
        return []
    files = find_files(config.unlabelled)
    if not files:
        raise UserError(f"no file `{config.unlabelled}`", "give files with `--unlabelled`")
    reading, columns = Reading(config.encoding, config.no_header), splits.text_columns
    found = [text for file in files for text in read_texts(file, None, reading, pairs=splits.pairs, trained=columns)]
    texts = [found[i] for i in distinct(found)]
    parts = (splits.train, splits.evaluation, splits.calibration, splits.left_over)
    kept = [texts[i] for i in without(texts, [text for part in parts if part for text in part.texts])]
    if not kept:
        raise UserError("every unlabelled text stands in the dataset, too", "give others with `--unlabelled`")
    say(f"unlabelled: {len(kept):,} of {len(found):,} texts, which are neither in the dataset nor there twice")
    return kept
