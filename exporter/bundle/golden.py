"""Golden answers: what a classifier answered to a few texts when it was exported, for it to prove itself elsewhere.

The same int8 file can be right on one CPU and wrong on another (onnxruntime's issues 5849 and 14642), which no checksum
shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from exporter.bundle.artifact import GOLDEN, EngineName
from exporter.cascade.stage import Stack
from exporter.checksums import IntegrityError
from trainer.limits import MAX_GOLDEN_CHARACTERS, MAX_GOLDEN_TEXTS
from trainer.records import Upgrade, read_record, write_record
from trainer.tasks import FloatArray, Task
from trainer.text.characters import is_unicode
from trainer.text.texts import Text

TEXTS = (
    "Good.",
    "No, not at all.",
    "I did not expect much and was glad to be wrong.",
    "The parcel came late, the box was torn, and nobody picks up the phone.",
    "Prices rose by 3.5 % in May; economists had forecast 2.9 %, so shares fell.",
    "Wir waren um 19:30 Uhr dort - très bien, ¡gracias! 我很喜欢。",
    "It starts slowly, and for a while I thought of leaving. Then the second half comes together, one thread after "
    "another, and what had seemed careless turns out to have been planned from the first minute.",
    "First they changed the menu. Then they changed the chairs, the lamps and the waiters. The soup is cold now, and "
    "the bill is twice what it was. We used to come every Friday. On the way home my father said that nothing stays "
    "good for ever, and my mother said that this was no reason to pay for it. " * 3,
)
"""From one word to several hundred, on many subjects; not meant to be classified well."""

PAIRS = tuple(zip(TEXTS, (*TEXTS[1:], TEXTS[0]), strict=True))
"""What a classifier of pairs is asked: each text with the next."""

Measure = Literal["logit", "probability"]

TOLERANCES: dict[str, tuple[Measure, float]] = {
    "fp32": ("logit", 1e-3),
    "fp16": ("probability", 0.01),
    "bf16": ("probability", 0.03),
    "int8": ("probability", 0.03),
}
"""In int8, a sum that is rounded another way on another CPU can move an activation by a step of its scale. A CPU or an
engine that does not compute in bf16 computes in fp32."""


@dataclass(frozen=True)
class FirstAnswers:
    """Texts, or pairs of texts, that the first stage of a cascade is sure of, and some that it is just not sure of.

    They are made of its tokens with the largest weights, and of no text of anybody.
    """

    texts: tuple[str, ...]
    second_texts: tuple[str, ...]
    """See `Golden`."""
    logits: tuple[tuple[float, ...], ...]
    """Its own, calibrated, for each text."""
    answered: tuple[bool, ...]
    """Whether these are the answer to each text; the others go on to the model."""
    stack: Stack | None = None
    """The weights that the cascade was judged with: no answer of one stage alone would show others."""

    def asked(self) -> list[Text]:
        """Return what the cascade is asked."""
        return _zipped(self.texts, self.second_texts)


@dataclass(frozen=True)
class Golden:
    """Texts, or pairs of texts, and a classifier's logits for each, asked alone."""

    SCHEMA: ClassVar[int] = 4
    UPGRADES: ClassVar[Mapping[int, Upgrade]] = {}
    MADE_BY: ClassVar[str] = "python -m exporter"

    texts: tuple[str, ...]
    logits: tuple[tuple[float, ...], ...]
    """In the order of the label names."""
    measure: Measure
    """What is compared: the largest difference of any logit, or of any probability."""
    tolerance: float
    second_texts: tuple[str, ...] = ()
    """Of the pairs whose first texts are `texts`; none where it reads single texts."""
    first_stage: FirstAnswers | None = None
    """Of a cascade."""

    def asked(self) -> list[Text]:
        """Return what the classifier is asked."""
        return _zipped(self.texts, self.second_texts)


def _zipped(texts: Sequence[str], second_texts: Sequence[str]) -> list[Text]:
    return [*zip(texts, second_texts, strict=True)] if second_texts else [*texts]


Ask = Callable[[Sequence[Text]], FloatArray]


def write_golden(folder: Path, ask: Ask, precision: str, *, pairs: bool, engine: EngineName = "onnxruntime") -> None:
    """Write the golden answers of a classifier into its folder.

    Args:
        folder: the artifact's.
        ask: returns logits for texts asked together.
        precision: decides the tolerance.
        pairs: whether it reads pairs of texts.
        engine: what it was made for.
    """
    measure, tolerance = TOLERANCES[precision]
    if (precision, engine) == ("int8", "openvino"):  # which computes in bf16 what is not in int8
        tolerance += TOLERANCES["bf16"][1]
    logits = tuple(tuple(map(float, ask([text])[0])) for text in (PAIRS if pairs else TEXTS))
    second_texts = tuple(second for _, second in PAIRS) if pairs else ()
    write_record(folder / GOLDEN, Golden(TEXTS, logits, measure, tolerance, second_texts))


def check_golden(folder: Path, ask: Ask, task: Task, *, pairs: bool, on_gpu: bool = False) -> None:
    """Let a classifier answer its golden texts again.

    Args:
        folder: the artifact's.
        ask: returns logits for texts asked together.
        task: what they mean.
        pairs: whether it reads pairs of texts.
        on_gpu: whether a GPU answers. There, fp32 products are in TF32, which keeps as many bits of a factor as fp16.

    Raises:
        IntegrityError: it answers otherwise than when it was exported.
    """
    golden = read_golden(folder, pairs=pairs)
    found = np.concatenate([ask([text]) for text in golden.asked()])
    measure, tolerance = golden.measure, golden.tolerance
    if on_gpu and measure == "logit":
        measure, tolerance = TOLERANCES["fp16"]
    expected = np.array(golden.logits, dtype=np.float32)
    if measure == "probability":
        expected, found = task.probabilities(expected), task.probabilities(found)
    gap = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("nan")
    if not gap <= tolerance:
        raise IntegrityError(
            f"`{folder}` answers differently here than where it was exported: a {measure} differs by {gap:.3g}, "
            f"tolerance {tolerance:g}",
            "export it on this machine, with `--target portable` for CPUs without VNNI; "
            "`golden=False`, or `--no-golden`, loads it all the same",
        )


def read_golden(folder: Path, *, pairs: bool) -> Golden:
    """Read the golden answers in a bundle.

    Raises:
        IntegrityError: there are none, or they are damaged.
    """
    if not (folder / GOLDEN).is_file():
        raise IntegrityError(
            f"`{folder}` has no golden answers to check itself by",
            "copy it again, whole; `golden=False`, or `--no-golden`, loads it without",
        )
    golden = read_record(folder / GOLDEN, Golden)
    if problem := _problem(golden, pairs=pairs):
        raise IntegrityError(f"`{folder / GOLDEN}` is damaged: {problem}", "copy or export the artifact again")
    return golden


def _problem(golden: Golden, *, pairs: bool) -> str | None:
    """Return what the golden answers say that no exporter writes."""
    first = golden.first_stage
    if first and not (len(first.answered) == len(first.texts) and any(first.answered)):
        return "it does not say which texts the first stage answers"
    return next(filter(None, (_problem_of(part, pairs=pairs) for part in (golden, first) if part)), None)


def _problem_of(answers: Golden | FirstAnswers, *, pairs: bool) -> str | None:
    widths = {len(row) for row in answers.logits}
    if not 1 <= len(answers.texts) <= MAX_GOLDEN_TEXTS or len(answers.logits) != len(answers.texts) or len(widths) != 1:
        return f"it does not have a row of logits for each of 1 to {MAX_GOLDEN_TEXTS} texts"
    if len(answers.second_texts) != (len(answers.texts) if pairs else 0):
        return f"its texts are not {'pairs' if pairs else 'single'}, as the classifier reads them"
    texts = (*answers.texts, *answers.second_texts)
    if not all(map(is_unicode, texts)) or sum(map(len, texts)) > MAX_GOLDEN_CHARACTERS:
        return "its texts are too long or not valid Unicode"
    return None
