"""All scores: by engine, by label and by length."""

from __future__ import annotations

from collections.abc import Sequence

from bench.judge.summary import Row, Summary
from bench.report.page.cells import (
    Cell,
    Table,
    count,
    engine_cell,
    measured,
    metric_of,
    name_cell,
    percent,
    table_of,
    token_range,
    word,
)
from bench.report.page.parts import Section, code, lines
from bench.results import Accuracy

Scored = Sequence[tuple[Row, Accuracy]]


def accuracy_section(summary: Summary) -> Section | None:
    """Show all scores, by label and by length too; None where nothing was scored."""
    scored = [(row, row.accuracy) for row in summary.rows if row.accuracy]
    if not scored:
        return None
    caption = (
        "Lower is better for log loss, calibration error and Brier score. Turned wrong, turned right: answers that "
        "differ from the reference's"
        + ("." if summary.task.metric == "accuracy" else ", all labels of a text together.")
    )
    body = [
        table_of("accuracy-table", caption, _scores(scored)),
        "<h3>By label</h3>",
        table_of("classes", "Scores by label, in percent.", _by_label(scored)),
        "<h3>By length of the text</h3>",
        table_of("lengths", f"{metric_of(summary)} in percent, by tokens of the text.", _by_length(scored)),
    ]
    return Section("accuracy", "Accuracy in detail", lines(body))


def _scores(scored: Scored) -> Table:
    rows = []
    for row, scores in scored:
        change = scores.change
        why = "the reference" if row.is_reference else "not measured"
        cells = {
            "Engine": engine_cell(row),
            "Texts": count(scores.texts),
            **_scores_in_percent(scores),
            "Log loss": measured(scores.loss, "{:.4f}".format),
            "Calibration error": measured(scores.calibration_error, "{:.4f}".format),
            "Brier score": measured(scores.brier, "{:.4f}".format),
            "Turned wrong": count(change.harmful if change else None, why),
            "Turned right": count(change.helpful if change else None, why),
            "McNemar p": measured(scores.mcnemar_p, "{:.3g}".format, why),
        }
        rows.append(cells)
    return rows


def _scores_in_percent(scores: Accuracy) -> dict[str, Cell]:
    if scores.f1_micro is None:
        return {"Accuracy, %": percent(scores.accuracy), "Weighted F1, %": percent(scores.f1_weighted)}
    return {
        "Micro F1, %": percent(scores.f1_micro),
        "Macro F1, %": percent(scores.f1_macro),
        "Weighted F1, %": percent(scores.f1_weighted),
        "Average precision, %": percent(scores.average_precision),
        "All labels right, %": percent(scores.accuracy),
    }


def _by_label(scored: Scored) -> Table:
    return [
        {
            "Engine": name_cell(row.info.name),
            "Label": word(label.label),
            "Texts": count(label.texts),
            "Precision, %": percent(label.precision),
            "Recall, %": percent(label.recall),
            "F1, %": percent(label.f1),
        }
        for row, scores in scored
        for label in scores.classes
    ]


def _by_length(scored: Scored) -> Table:
    found = {
        code(row.info.name): {(part.least, part.most, part.texts): part.score for part in scores.lengths}
        for row, scores in scored
    }
    buckets = sorted({bucket for by_bucket in found.values() for bucket in by_bucket})
    return [
        {"Tokens": token_range(least, most), "Texts": count(texts)}
        | {name: percent(by_bucket.get((least, most, texts))) for name, by_bucket in found.items()}
        for least, most, texts in buckets
    ]
