"""What an export found out about a cascade: data for its record."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.cascade.stage import Cascade
from exporter.int8.budget import Judgement, ScoreChange
from exporter.proof.timing import Spread


@dataclass(frozen=True)
class CurvePoint:
    """A threshold, and what the cascade would answer to the calibration texts with it."""

    threshold: float
    answered: float
    """The share that the first stage answers."""
    score: float
    """Of both stages together."""
    harmful: int
    """Answers that would be right without the first stage's own, and are wrong."""
    helpful: int
    lower: float
    """Of the change of the score by the first stage's own answers: its lower bound, one-sided, 95 %. Where logits are
    added, as if every answer that changes became wrong, since their sum is likelier to be right."""
    foreseen: float
    """The lower end of the interval that the gate would find, or better, 19 times in 20."""


@dataclass(frozen=True)
class CascadeJudged:
    """Both stages together on the evaluation texts."""

    answered: float
    """The share that the first stage answers."""
    change: ScoreChange
    """Of the score, against `onnx-fp32`."""
    judgement: Judgement


@dataclass(frozen=True)
class CascadeSpeed:
    """How fast both stages are beside the artifact alone, asked the same in turns."""

    bulk: Spread
    """How many times as fast with many texts at a time."""
    one: Spread
    """How many times as fast one by one, in blocks of some texts."""
    median: float
    """The median time of one text, as a share of the artifact's."""
    p95: float
    """The same of the 95th percentile: a text that goes on takes the time of both stages."""


@dataclass(frozen=True)
class CascadeTrial:
    """What became of a cascade. Nothing is known of what was not reached; `reason` says why."""

    shipped: bool
    reason: str
    artifact: str = ""
    """The one whose model is the second stage."""
    calibration_texts: int = 0
    """Those that temperature, guards and threshold were chosen on."""
    calibration_score: float | None = None
    """Of the artifact alone on them."""
    stacked_score: float | None = None
    """Of both stages' logits, added for usual texts, on all of them; None where they are not added."""
    curve: tuple[CurvePoint, ...] = ()
    """The thresholds tried, the most careful one first."""
    chosen: Cascade | None = None
    judged: CascadeJudged | None = None
    speed: CascadeSpeed | None = None
    """None where it is not within the budget."""
    added_bytes: int | None = None
    """To what has to be on disk to answer."""
    beside_openvino: Spread | None = None
    """How many times as fast as the artifact for OpenVINO with many texts, both as they are served. None without one,
    where this is not shipped, and for the cascade before that artifact itself."""


@dataclass(frozen=True)
class ShiftScore:
    """The score on texts of another domain (`--shift`). It decides nothing."""

    name: str
    """Of the file."""
    texts: int
    score: float
    """Of the chosen artifact alone."""
    cascade_score: float | None = None
    """Of both stages; None where no cascade was chosen."""
    answered: float | None = None
    """The share that the first stage answers."""
