"""Is B the same classifier as A? Answered on real texts, over a grid of batch sizes and lengths."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from exporter.records import Comparison, Tolerance
from trainer import tasks
from trainer.data import Examples
from trainer.errors import UserError
from trainer.tasks import FloatArray, Task
from trainer.text.encoding import Encoded, Encoder
from trainer.text.texts import Text

UNTOUCHED = "nothing was exported; an earlier export is untouched"

BATCH = 8
GRID_BATCHES = (1, 3, 16)

SAME_NUMBERS = Tolerance(max_abs_logit=1e-3)
"""For links that only reorder fp32 arithmetic: merging, the conversion to ONNX, fusing."""

SAME_HALVES = Tolerance(mean_abs_probability=0.01, sure_flips_share=0.01)
"""For half precision, which keeps 11 bits of a number."""

SAME_ANSWERS = Tolerance(mean_abs_probability=0.05, sure_flips_share=0.05)
"""For int8, which changes every number a little: a broken recipe is far beyond it, a usable one far below."""


class VerificationError(UserError):
    """Two steps of an export differ by more than they may."""

    exit_code = 3


Run = Callable[[Sequence[Encoded]], FloatArray]
"""Returns the logits of a batch of encoded texts, [len(batch), classes]."""


@dataclass(frozen=True)
class Batch:
    """Texts that are scored in one batch."""

    encoded: tuple[Encoded, ...]
    indices: tuple[int, ...] = ()
    """Which of the texts they are; none where they are pieces cut to a length."""

    @property
    def length(self) -> int:
        """Tokens of the longest text, to which the others are padded."""
        return max(len(e) for e in self.encoded)


@dataclass(frozen=True)
class Answers:
    """What a classifier answers to a plan: one row a text, in the order of the batches."""

    logits: FloatArray
    """[texts, classes]."""
    batch_sizes: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    """Tokens that the text's batch was padded to."""
    indices: npt.NDArray[np.int64]
    """Which of the texts each is; -1 for a piece."""

    def of_every(self, every: int, batches: Sequence[Batch]) -> Answers:
        """Return the answers to each so manieth batch of the plan that was asked."""
        kept = np.repeat([i % every == 0 for i in range(len(batches))], [len(batch.encoded) for batch in batches])
        return Answers(self.logits[kept], self.batch_sizes[kept], self.lengths[kept], self.indices[kept])


def choose_examples(examples: Examples, lengths: Sequence[int], most: int) -> Examples:
    """Choose up to `most` examples spread evenly over the range of lengths, shortest and longest included."""
    by_length = sorted(range(len(examples)), key=lambda i: lengths[i])
    spread = np.unique(np.linspace(0, len(by_length) - 1, num=most).round().astype(int))
    return examples.take([by_length[i] for i in spread])


def plan(encoder: Encoder, texts: Sequence[Text]) -> list[Batch]:
    """Plan the batches of a comparison.

    Every other text is scored alone and the rest in padded batches of mixed lengths. To these come pieces of texts
    in a grid: from one token to the most that fit, alone and in batches, of one length and of mixed lengths.
    """
    encoded = encoder.encode(texts)
    mixed = list(range(1, len(texts), 2))
    random.Random(0).shuffle(mixed)
    groups = [[i] for i in range(0, len(texts), 2)] + [mixed[i : i + BATCH] for i in range(0, len(mixed), BATCH)]
    batches = [Batch(tuple(encoded[i] for i in group), tuple(group)) for group in groups]
    longest = encoded[-1:] + encoded[:-1]  # texts come sorted by length: the first piece is the longest text's
    for size in GRID_BATCHES:
        sources = [longest[i % len(longest)] for i in range(size)]
        for tokens in grid_lengths(encoder.room):
            ragged = np.linspace(tokens, 1, num=size).round().astype(int)
            for lengths in {tuple([tokens] * size), tuple(int(n) for n in ragged)}:
                batches.append(Batch(tuple(encoder.resize(e, n) for e, n in zip(sources, lengths, strict=True))))
    return batches


def grid_lengths(room: int) -> list[int]:
    """Return the lengths to try, in tokens: powers of two from 1, and `room` itself."""
    return sorted({min(2**n, room) for n in range(room.bit_length() + 1)})


def check_labels(folder: Path, label_names: tuple[str, ...]) -> None:
    """Refuse a folder whose configuration names its classes otherwise than the training did.

    Raises:
        VerificationError: it does, and whoever loads it with transformers would answer with the wrong name.
    """
    named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("id2label", {})
    found = tuple(named.get(str(i)) for i in range(len(named)))
    if found != label_names:
        raise VerificationError(
            f"`{folder.name}` has the labels {', '.join(map(str, found))}; trained were {', '.join(label_names)}",
            UNTOUCHED,
        )


def ask(name: str, run: Run, batches: Sequence[Batch], classes: int) -> Answers:
    """Let a classifier answer a plan.

    Raises:
        VerificationError: it cannot answer one of the batches, or answers with something that is not a finite number.
    """
    logits = []
    for batch in batches:
        where = f"{len(batch.encoded)} {'text' if len(batch.encoded) == 1 else 'texts'} of up to {batch.length} tokens"
        try:
            rows = run(batch.encoded)
        except UserError as error:
            raise VerificationError(f"`{name}` cannot answer {where}: {error.message}", UNTOUCHED) from None
        if rows.shape != (len(batch.encoded), classes) or not np.isfinite(rows).all():
            raise VerificationError(
                f"`{name}` returned NaN, infinity or another shape than {classes} logits each for {where}", UNTOUCHED
            )
        logits.append(rows)
    return Answers(
        np.concatenate(logits),
        np.concatenate([[len(batch.encoded)] * len(batch.encoded) for batch in batches]),
        np.concatenate([[batch.length] * len(batch.encoded) for batch in batches]),
        np.concatenate([batch.indices or [-1] * len(batch.encoded) for batch in batches]).astype(np.int64),
    )


def compare(
    reference: Answers,
    candidate: Answers,
    truth: tasks.Answers,
    task: Task,
    tolerance: Tolerance,
    *,
    names: tuple[str, str],
) -> Comparison:
    """Measure how far `candidate` is from `reference`.

    Numbers are compared on all texts of the plan, answers on whole texts alone.

    Args:
        reference: answers to a plan.
        candidate: answers to the same plan.
        truth: the right answer to each text.
        task: what the logits mean.
        tolerance: how far it may be; see `check`.
        names: what the two are called: the candidate, then the reference.
    """
    logit_gaps = np.abs(candidate.logits - reference.logits)
    probability_gaps = np.abs(task.probabilities(candidate.logits) - task.probabilities(reference.logits)).max(-1)
    worst = int(logit_gaps.max(-1).argmax())
    whole = reference.indices >= 0
    truth = truth[reference.indices[whole]]
    before, after = task.answers(reference.logits[whole]), task.answers(candidate.logits[whole])
    flips, was_wrong, is_wrong = task.differ(before, after), task.differ(before, truth), task.differ(after, truth)
    sure = task.is_sure(reference.logits[whole])
    return Comparison(
        candidate=names[0],
        reference=names[1],
        texts=len(truth),
        pieces=len(whole) - len(truth),
        max_abs_logit=float(logit_gaps.max()),
        mean_abs_logit=float(logit_gaps.mean()),
        max_abs_probability=float(probability_gaps.max()),
        mean_abs_probability=float(probability_gaps.mean()),
        mean_divergence=task.divergence(reference.logits, candidate.logits),
        worst_batch_size=int(reference.batch_sizes[worst]),
        worst_length=int(reference.lengths[worst]),
        flips_harmful=int((flips & ~was_wrong).sum()),
        flips_helpful=int((flips & ~is_wrong).sum()),
        flips_other=int((flips & was_wrong & is_wrong).sum()),
        sure=int(sure.sum()),
        flips_sure=int((flips & sure).sum()),
        tolerance=tolerance,
    )


def check(comparison: Comparison) -> None:
    """Refuse a comparison that is beyond its tolerance.

    Raises:
        VerificationError: it is.
    """
    tolerance = comparison.tolerance
    worst = f"in a batch of {comparison.worst_batch_size}, {comparison.worst_length} tokens long"
    measured = (
        ("largest logit difference", comparison.max_abs_logit, tolerance.max_abs_logit, worst),
        (
            "mean probability difference",
            comparison.mean_abs_probability,
            tolerance.mean_abs_probability,
            f"on {comparison.texts + comparison.pieces} texts and pieces",
        ),
        (
            "share of sure answers changed",
            comparison.flips_sure / max(comparison.sure, 1),
            tolerance.sure_flips_share,
            f"of {comparison.sure}",
        ),
    )
    for what, value, bound, where in measured:
        if bound is not None and not value <= bound:
            raise VerificationError(
                f"`{comparison.candidate}` is not the same classifier as `{comparison.reference}`: "
                f"{what} {value:.4g} {where}, tolerance {bound:g}",
                UNTOUCHED,
            )
