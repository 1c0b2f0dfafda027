"""All scores: by engine, by label and by length."""

from __future__ import annotations

from collections.abc import Sequence

from bench.judge.summary import Row, Summary
from bench.report.page.cells import Cell, Table, count, engine_cell, percent, plain, table_of, token_range, word
from bench.report.page.parts import Section, code
from bench.results import Accuracy

Scored = Sequence[tuple[Row, Accuracy]]


def accuracy_section(summary: Summary) -> Section | None:
    """Show all scores, by label and by length too; None where nothing was scored."""
    scored = [(row, row.accuracy) for row in summary.rows if row.accuracy]
    if not scored:
        return None
    caption = (
        "Lower is better for log loss, calibration error and Brier score. Turned wrong, turned right: answers that "
        "differ from the reference's."
    )
    body = [
        table_of("accuracy-table", caption, _scores(scored)),
        "<h3>By label</h3>",
        table_of("classes", "Scores by label, in percent.", _by_label(scored)),
        "<h3>By length of the text</h3>",
        table_of("lengths", "Accuracy in percent, by tokens of the text.", _by_length(scored)),
    ]
    return Section("accuracy", "Accuracy in detail", "\n".join(body))


def _scores(scored: Scored) -> Table:
    columns = [
        *("Engine", "Texts", "Accuracy, %", "Weighted F1, %", "Log loss", "Calibration error", "Brier score"),
        *("Turned wrong", "Turned right", "McNemar p"),
    ]
    rows = []
    for row, scores in scored:
        why = "the reference" if row.is_reference else "not measured"
        cells = [
            engine_cell(row),
            count(scores.texts),
            percent(scores.accuracy),
            percent(scores.f1_weighted),
            *(plain(value, "{:.4f}") for value in (scores.loss, scores.calibration_error, scores.brier)),
            count(scores.change.harmful if scores.change else None, why),
            count(scores.change.helpful if scores.change else None, why),
            plain(scores.mcnemar_p, "{:.3g}", why),
        ]
        rows.append(cells)
    return columns, rows


def _by_label(scored: Scored) -> Table:
    rows = [
        [
            Cell(code(row.info.name), row.info.name),
            word(label.label),
            count(label.texts),
            *map(percent, (label.precision, label.recall, label.f1)),
        ]
        for row, scores in scored
        for label in scores.classes
    ]
    return ["Engine", "Label", "Texts", "Precision, %", "Recall, %", "F1, %"], rows


def _by_length(scored: Scored) -> Table:
    buckets = sorted({(part.least, part.most, part.texts) for _, scores in scored for part in scores.lengths})
    rows = []
    for bucket in buckets:
        least, most, texts = bucket
        cells = [token_range(least, most), count(texts)]
        for _, scores in scored:
            by_bucket = {(part.least, part.most, part.texts): part.accuracy for part in scores.lengths}
            cells.append(percent(by_bucket.get(bucket)))
        rows.append(cells)
    return ["Tokens", "Texts", *(code(row.info.name) for row, _ in scored)], rows
