"""Whether there is a cascade to try: what it takes, checked, or a sentence on what is missing."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.cascade.choose import can_choose
from exporter.config import ExportConfig
from exporter.int8.budget import accuracy_change
from exporter.proof.verify import UNTOUCHED, VerificationError
from exporter.subject import Subject
from trainer.data import Examples
from trainer.data.load import MOST_LEFT_OVER
from trainer.data.splitting import without
from trainer.errors import UserError
from trainer.lexical.file import read_lexical
from trainer.lexical.model import Lexical
from trainer.records import file_sha256
from trainer.run import TrainRecord


@dataclass(frozen=True)
class Ready:
    """A first stage, and the texts to choose on when it answers."""

    lexical: Lexical
    calibration: Examples
    """Texts that neither stage was trained on."""


def make_ready(subject: Subject, config: ExportConfig, recipes: int) -> Ready | str:
    """Return what it takes to try a cascade, or why none is tried, in a sentence.

    Args:
        subject: the run.
        config: what is asked for.
        recipes: how many recipes are to be judged on the evaluation texts beside the cascade, at most.

    Raises:
        UserError: the first stage is not the one that the run's record describes.
        VerificationError: a calibration text is an evaluation text, too.
    """
    if reason := _objection(subject, config, 1 + recipes):
        return reason
    lexical, texts = _read_first_stage(subject), len(subject.calibration)
    if both := texts - len(without(subject.calibration.texts, subject.evaluation.texts)):
        raise VerificationError(
            f"{both:,} texts of `{subject.run.calibration}` are in `{subject.run.evaluation}`, too: nothing may be "
            f"chosen on evaluation texts",
            UNTOUCHED,
        )
    if not can_choose(MOST_LEFT_OVER, config.max_drop / 100):
        return (
            f"a budget of {config.max_drop:g} points is too small: {MOST_LEFT_OVER:,} calibration texts, the most that "
            "are kept, could not show so small a loss even if no answer changed"
        )
    if not can_choose(texts, config.max_drop / 100):
        return (
            f"{texts:,} calibration texts are too few to choose a threshold on, even if no answer changed; up to "
            f"{MOST_LEFT_OVER:,} are kept of the texts that `--max-train-samples` leaves"
        )
    return Ready(lexical, subject.calibration)


def _objection(subject: Subject, config: ExportConfig, tried: int) -> str | None:
    """Return why no cascade is tried, None where one is."""
    train, texts = subject.train, len(subject.evaluation)
    if config.no_cascade:
        return "`--no-cascade` was given"
    if config.target == "cuda":
        return "it is judged and timed on CPUs, and `--target cuda` is for GPUs"
    if config.quantize is None:
        return "it is tried with `--quantize` alone"
    if train.task == "multi-label":
        return "a first stage answers with one label, and these texts may have several"
    if not train.lexical_sha256:
        return train.lexical_reason or f"this run has no first stage; `{TrainRecord.MADE_BY}` fits one"
    if not train.calibration_is_apart:
        return "all labelled texts were trained on; a lower `--max-train-samples` leaves some to choose thresholds on"
    if accuracy_change(0, 0, texts, tried=tried).lower <= -config.max_drop / 100:
        return (
            f"{texts:,} evaluation texts are too few to show that the best of {tried} candidates stays within the "
            f"budget of {config.max_drop:g} points, even if no answer changed"
        )
    return None


def _read_first_stage(subject: Subject) -> Lexical:
    path = subject.run.lexical
    if not path.is_file() or file_sha256(path) != subject.train.lexical_sha256:
        raise UserError(
            f"`{path}` is not the file that `{subject.run.record}` describes",
            f"restore it, or run `{TrainRecord.MADE_BY} --overwrite` again",
        )
    return read_lexical(path, len(subject.train.label_names))
