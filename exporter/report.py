"""ExportRecord to text: the proof, the ladder, the choice. Pure functions."""

from __future__ import annotations

from itertools import chain

from exporter.bundle.artifact import Artifact
from exporter.cascade.trial import CascadeTrial, CurvePoint
from exporter.config import ExportConfig
from exporter.int8.select import describe, describe_verdict, points
from exporter.proof.timing import Spread
from exporter.records import ExportRecord, OtherRun
from exporter.thresholds import USUAL
from trainer.flags import run_dir_flag


def summary(record: ExportRecord) -> str:
    """Render an export's proof, its ladder, its choice and the next command, for a person."""
    run_dir = record.config.run_dir
    flag = run_dir_flag(run_dir, ExportConfig.run_dir)
    text = '"A text." "And its pair."' if record.artifacts[0].pairs else '"An unforgettable film."'
    parts = [
        proof(record),
        ladder(record) if record.candidates or record.failed else "",
        cascade(record),
        choice(record),
        against(record.against) if record.against else "",
    ]
    return "\n\n".join(
        [part for part in parts if part]
        + [f"next: python -m exporter.predict{flag} {text}\n      python -m bench{flag}"]
    )


def proof(record: ExportRecord) -> str:
    """Render the chain: every link up to the artifacts, with its largest differences."""
    kept = (record.int8_recipe, record.openvino_recipe, record.fp16_recipe)
    tried = {c.recipe for c in record.candidates if c.recipe not in kept} | {f.recipe for f in record.failed}
    links = [c for c in record.comparisons if c.candidate not in tried]
    first = links[0]
    lines = [
        f"proof, on {first.texts} evaluation texts and {first.pieces} pieces of all lengths, "
        "alone and in padded batches:",
        f"{'':<38}{'logits, largest':>16}{'probability, largest':>22}   answers changed",
    ]
    for c in links:
        changed = f"{c.flips_harmful} to wrong, {c.flips_helpful} to right"
        lines.append(
            f"{f'{c.candidate} vs {c.reference}':<38}{c.max_abs_logit:>16.2g}{c.max_abs_probability:>22.2g}   {changed}"
            + f", {c.flips_other} other" * bool(c.flips_other)
        )
    if record.fused:
        lines.append(f"fused: {', '.join(f'{count} {name}' for name, count in record.fused.items())}")
    if record.shortcut:
        lines.append("last layer: computed for the first token alone, because nothing reads the others")
    return "\n".join(lines)


def ladder(record: ExportRecord) -> str:
    """Render the recipes tried, a row each, with what they cost and bring beside `onnx-fp32`."""
    kind = f"recipes for half precision on {record.gpu}" if record.gpu else "recipes"
    texts = record.candidates[0].change.texts if record.candidates else 0
    lines = [
        f"{kind} against onnx-fp32, {record.metric} on {texts:,} evaluation texts, speed one text a call:",
        f"{'':<28}{'MB':>7}{record.metric + ', points':>24}{'worse/better':>14}{'speed':>22}{'batch flips':>13}"
        "   verdict",
    ]
    for c in sorted(record.candidates, key=lambda c: -c.speed.median):
        change = f"{points(c.change.change)} [{points(c.change.lower)}, {points(c.change.upper)}]"
        speed = f"{c.speed.median:.2f}x [{c.speed.low:.2f}, {c.speed.high:.2f}]"
        lines.append(
            f"{c.recipe:<28}{c.size_bytes / 1e6:>7.1f}{change:>24}{f'{c.change.harmful}/{c.change.helpful}':>14}"
            f"{speed:>22}{f'{c.batch.flips}/{c.batch.texts}':>13}   {c.judgement}"
        )
    lines += [f"{failure.recipe:<28}  failed: {failure.reason}" for failure in record.failed]
    lines += [f"not tried: {skipped}" for skipped in record.skipped]
    return "\n".join([*lines, *_gpu_speeds(record)])


def cascade(record: ExportRecord) -> str:
    """Render what became of a first stage before each artifact, and the scores on other texts."""
    return "\n".join([*chain.from_iterable(_trial(record, trial) for trial in record.cascades), *_shift(record)])


def _trial(record: ExportRecord, trial: CascadeTrial) -> list[str]:
    """Render the thresholds tried, and the whole, judged and timed."""
    lines = []
    if trial.curve:
        stacked = trial.stacked_score
        both = "" if stacked is None else f", and {stacked:.2%} with both stages' logits added"
        lines += [
            f"cascade before {trial.artifact}, which alone has {record.metric} {trial.calibration_score:.2%} on "
            f"{trial.calibration_texts:,} calibration texts{both}:",
            f"{'answered by the first stage':<28}{'probability from':>18}{record.metric:>12}{'worse/better':>14}"
            f"{'points, at least':>18}{'for the gate':>14}",
        ]
        shown = [p for i, p in enumerate(trial.curve, 1) if i % 4 == 0 or _is_chosen(trial, p)]
        for p in shown:
            lines.append(
                f"{p.answered:<28.0%}{p.threshold:>18.4f}{p.score:>12.2%}{f'{p.harmful}/{p.helpful}':>14}"
                f"{points(p.lower):>18}{points(p.foreseen):>14}" + "   <- chosen" * _is_chosen(trial, p)
            )
        if stacked is not None:
            lines.append("  worse/better: than the sum of the logits; at least: as if every such answer were wrong")
    if trial.judged:
        c = trial.judged.change
        lines.append(
            f"on {c.texts:,} evaluation texts it answers {trial.judged.answered:.0%} first; together: {c.metric} "
            f"{points(c.change)} points [{points(c.lower)}, {points(c.upper)}], worse/better {c.harmful}/{c.helpful}"
        )
    if trial.speed:
        s = trial.speed
        lines.append(
            f"{_times(s.bulk)} the speed of {trial.artifact} alone with many texts, and {_times(s.one)} one by one; "
            f"one text takes {s.median:.0%} of the time of {trial.artifact} alone in the median, and {s.p95:.0%} at "
            "the 95th percentile, because a text that goes on takes both stages"
        )
    if trial.beside_openvino:
        its = f"the artifact for OpenVINO{', first stage included,' * _has_first_stage(record, record.for_openvino)}"
        lines.append(f"{_times(trial.beside_openvino)} the speed of {its} with many texts")
    before = f" before {trial.artifact}" * bool(trial.artifact)
    return [*lines, f"{'cascade' if trial.shipped else 'no cascade'}{before}: {trial.reason}"]


def _has_first_stage(record: ExportRecord, name: str | None) -> bool:
    return any(trial.shipped and trial.artifact == name for trial in record.cascades)


def _times(speed: Spread) -> str:
    return f"{speed.median:.2f}x [{speed.low:.2f}, {speed.high:.2f}]"


def _is_chosen(trial: CascadeTrial, point: CurvePoint) -> bool:
    """Tell whether a threshold that was tried is the one of the cascade."""
    return trial.chosen is not None and trial.chosen.threshold == point.threshold


def _shift(record: ExportRecord) -> list[str]:
    """Render the scores on texts of other domains."""
    lines = []
    for s in record.shift:
        both = ""
        if s.answered == 0 and s.cascade_score == s.score:
            both = ", and its first stage answers none of them"
        elif s.cascade_score is not None:
            both = f", {s.cascade_score:.2%} with its first stage, which answers {s.answered:.0%}"
        lines.append(f"{s.name}, {s.texts:,} texts: {record.metric} of {record.chosen} {s.score:.2%}{both}")
    return lines


def _gpu_speeds(record: ExportRecord) -> list[str]:
    """Render how fast everything was on the GPU, the fastest with many texts first."""
    if not record.gpu_speeds:
        return []
    lines = ["", f"speed on {record.gpu}, all in turns, with quartiles:"]
    lines.append(f"{'':<24}{'one text, ms':>26}{'many texts, texts/s':>32}")
    for s in sorted(record.gpu_speeds, key=lambda s: -s.texts_per_s.median):
        one, many = s.alone_ms, s.texts_per_s
        alone = f"{one.median:.2f} [{one.low:.2f}, {one.high:.2f}]"
        bulk = f"{many.median:,.0f} [{many.low:,.0f}, {many.high:,.0f}]"
        lines.append(f"{s.name:<24}{alone:>26}{bulk:>32}")
    if record.attention:
        lines.append(f"attention of {record.chosen} is computed by: {', '.join(record.attention)}")
    return lines


def _thresholds(artifact: Artifact) -> list[str]:
    if not artifact.thresholds:
        return []
    if set(artifact.thresholds) == {USUAL}:
        return ["a label is given from a probability of 50 % on: no other thresholds did better on texts kept for that"]
    pairs = zip(artifact.label_names, artifact.thresholds, strict=True)
    found = ", ".join(f"{name} {threshold:.0%}" for name, threshold in pairs)
    return [f"a label is given from this probability on, chosen on texts kept for that: {found}"]


def against(other: OtherRun) -> str:
    """Render how the artifacts compare with another run."""
    lines = [f"against `{other.run}`:"]
    lines += [f"  {verdict.artifact}: {describe_verdict(other, verdict)}" for verdict in other.verdicts]
    if other.unchecked:
        lines.append(f"  not checked, whether the evaluation texts are among {other.unchecked}")
    return "\n".join(lines)


def choice(record: ExportRecord) -> str:
    """Render which artifact to ship, why, and how steady its answers are."""
    lines = []
    if record.score is not None and record.texts is not None:
        labels = len(record.artifacts[0].label_names)
        guessing = f": worse than guessing among {labels}; are its labels in another order?"
        lines.append(
            f"{record.metric} of onnx-fp32: {record.score:.2%} on {record.texts:,} evaluation texts"
            + guessing * (record.metric == "accuracy" and record.score < 1 / labels)
        )
    lines += _thresholds(record.artifacts[0])
    lines.append(f"chosen: {record.chosen}, {record.reason}")
    if record.with_openvino:
        (rung,) = (c for c in record.candidates if c.recipe == record.openvino_recipe)
        lines.append(f"faster with `openvino` installed: {record.with_openvino}, {describe(rung)}")
    without = "without its first stage, " if record.cascade and record.cascade.shipped else ""
    for v in record.variations:
        lines.append(
            f"  {without}the same texts {v.name}: {v.flips} of {v.texts} answers change, "
            f"probabilities by {v.max_abs_probability:.2g} at most"
        )
    lines.append("")
    for artifact in record.artifacts:
        note = "  <- ship this" if artifact.name == record.chosen else ""
        note = "  <- or this, where openvino is installed" if artifact.name == record.with_openvino else note
        lines.append(f"{artifact.size_bytes / 1e6:>8.1f} MB  {record.config.run_dir / 'export' / artifact.name}{note}")
    return "\n".join(lines)
