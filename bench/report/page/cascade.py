"""How right both stages of a cascade are together, by the share of the texts that the first one answers."""

from __future__ import annotations

from bench.judge.summary import Summary
from bench.report.page.cells import Table, count, measured, metric_of, percent, table_of
from bench.report.page.charts import Chart, Json, Look, axis_of, layout_of, marker_of
from bench.report.page.parts import Figure, Section, code, figure_section, key_of
from exporter.cascade.trial import CascadeTrial, CurvePoint
from exporter.int8.select import points

LOOKS = {
    "both stages": Look("var(--s0)", "circle", "solid"),
    "the model alone": Look("var(--s1)", "square", "dash"),
    "the threshold chosen": Look("var(--s2)", "star", "solid"),
}


def cascade_section(summary: Summary) -> Section | None:
    """Show the thresholds that the export tried for a first stage; None where it shipped none."""
    trial, metric = summary.cascade, summary.task.metric
    if trial is None or trial.chosen is None or trial.calibration_score is None:
        return None
    (chosen,) = (point for point in trial.curve if point.threshold == trial.chosen.threshold)
    takeaway = (
        f"At the threshold chosen, the first stage answers {chosen.answered:.0%} of the texts. The {metric} of both "
        f"stages together differs from that of {code(trial.artifact)} alone by "
        f"{points(chosen.score - trial.calibration_score)} points."
    )
    how = (
        f"Each point is a threshold that the export tried on {trial.calibration_texts:,} calibration texts, on which "
        "neither stage was trained. The further to the right, the more the first stage answers."
    )
    chart = Chart("cascade-chart", _lines(trial, chosen), _layout(metric))
    others = "the model's" if trial.chosen.stack is None else "those of both stages' logits, added"
    caption = (
        f"Thresholds from the most careful one on; {metric} of both stages together. Turned wrong, turned right: "
        f"answers of the first stage that differ from {others}."
    )
    figure = Figure(takeaway, how, [chart], 340, "cascade-table", key_of(LOOKS, LOOKS))
    table = table_of("cascade-table", caption, _table(summary, trial))
    return figure_section("cascade", "First stage", figure, table)


def _lines(trial: CascadeTrial, chosen: CurvePoint) -> list[Json]:
    both, alone, at = LOOKS.values()
    shares = [100 * point.answered for point in trial.curve]
    curve = _line(shares, [100 * point.score for point in trial.curve], both)
    model = _line([0.0, max(shares)], [100 * (trial.calibration_score or 0.0)] * 2, alone)
    star = _line([100 * chosen.answered], [100 * chosen.score], at)
    return [
        curve | {"mode": "lines+markers", "marker": marker_of(both, 7)},
        model | {"mode": "lines"},
        star | {"mode": "markers", "marker": marker_of(at, 14)},
    ]


def _line(x: list[float], y: list[float], look: Look) -> Json:
    return {
        "type": "scatter",
        "x": x,
        "y": y,
        "line": {"color": look.colour, "dash": look.dash, "width": 2},
        "cliponaxis": False,
        "hovertemplate": "%{x:.0f} % answered first: %{y:.2f} %<extra></extra>",
    }


def _layout(metric: str) -> Json:
    answered = axis_of("answered by the first stage, % of the texts", rangemode="tozero")
    return layout_of(answered, axis_of(f"{metric}, %"))


def _table(summary: Summary, trial: CascadeTrial) -> Table:
    return [
        {
            "Answered first, %": percent(point.answered, "{:.0f}"),
            "Probability from": measured(point.threshold, "{:.4f}".format),
            f"{metric_of(summary)}, %": percent(point.score),
            "Turned wrong": count(point.harmful),
            "Turned right": count(point.helpful),
        }
        for point in trial.curve
    ]
