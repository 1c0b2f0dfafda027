"""What a teacher was trained on: a student is not evaluated on it, and it is not called apart."""

from __future__ import annotations

from trainer.data import Splits
from trainer.data.splitting import without
from trainer.errors import UserError
from trainer.progress import say
from trainer.run import TrainRecord, reload_splits
from trainer.text.texts import Text


def check_unseen(teacher: TrainRecord, splits: Splits, seed: int) -> list[Text] | None:
    """Compare a student's evaluation texts with what its teacher was trained on.

    Args:
        teacher: the record of its run.
        splits: the student's data.
        seed: by which they were split.

    Returns:
        What the teacher was trained on; None where that is not all known, which is said.

    Raises:
        UserError: some of the evaluation texts are among it. The student would learn their labels from its teacher.
    """
    try:
        seen = reload_splits(teacher).train.texts
    except UserError as error:
        say(f"note: whether the teacher was trained on evaluation texts cannot be checked: {error.message}")
        return None
    texts = splits.evaluation.texts
    if known := len(texts) - len(without(texts, seen)):
        raise UserError(
            f"the teacher was trained on {known:,} of the {len(texts):,} evaluation texts", _hint(teacher, seed)
        )
    if unlabelled := teacher.teaching.unlabelled_texts if teacher.teaching else 0:
        say(f"note: whether evaluation texts are among the {unlabelled:,} that the teacher learnt from without labels "
            "cannot be checked")  # fmt: skip
        return None
    own = splits.calibration or splits.left_over
    if own and (known := len(own) - len(without(own.texts, seen))):
        say(f"of {len(own):,} texts kept for calibration, the teacher was trained on {known:,}")
    return seen


def _hint(teacher: TrainRecord, seed: int) -> str:
    own = teacher.training.config.seed if teacher.training else seed
    other = "name an `--eval-dataset` that the teacher was not trained on"
    return other if own == seed else f"add `--seed {own}`, as the teacher had, or {other}"
