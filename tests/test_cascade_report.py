"""What an export says of a cascade: thresholds, verdict, speeds, other texts; or why there is none."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from pathlib import Path

import pytest
from bench_records import make_record as make_bench_record

from bench.judge.summarise import summarise
from exporter.card import tell_cascade
from exporter.cascade.speed import speed_of
from exporter.cascade.stage import Cascade, Stack
from exporter.cascade.trial import CascadeJudged, CascadeTrial, CurvePoint, ShiftScore
from exporter.int8.budget import accuracy_change
from exporter.proof.timing import Spread
from exporter.records import ExportRecord
from exporter.report import cascade, summary
from trainer.records import read_record

CURVE = tuple(CurvePoint(1 - i / 100, i / 20, 0.9 - i / 1000, i, 1, -i / 1000, -i / 500) for i in range(1, 21))
JUDGED = CascadeJudged(0.345, accuracy_change(3, 12, 2_000, tried=7), "within budget")
SPEED = speed_of([1, 1, 4], [0.05, 0.05, 4.2], Spread(1.9, 2.0, 2.1))
TRIAL = CascadeTrial(
    shipped=True,
    reason="within budget",
    artifact="onnx-int8",
    calibration_texts=1_500,
    calibration_score=0.875,
    curve=CURVE,
    chosen=Cascade(1.5, CURVE[6].threshold, 0.9, 10, 900),
    judged=JUDGED,
    speed=SPEED,
)


@pytest.fixture(scope="module")
def record() -> ExportRecord:
    """One of schema 6, which knew nothing of cascades."""
    return read_record(Path(__file__).parent / "data" / "records" / "ExportRecord-6-5225d7e.json", ExportRecord)


def test_a_record_from_before_says_nothing_of_a_cascade(record: ExportRecord) -> None:
    assert record.cascade is None
    assert "cascade" not in summary(record)


def test_it_shows_the_curve_the_verdict_the_speeds_and_other_texts(record: ExportRecord) -> None:
    shift = (
        ShiftScore("a.csv", 40, 0.8, 0.75, 0.5),
        ShiftScore("b.csv", 9, 0.6, 0.6, 0.0),
        ShiftScore("c.csv", 2, 0.5),
    )
    text = summary(replace(record, cascade=TRIAL, shift=shift))
    rows = [line for line in text.splitlines() if line[:3] in ("20%", "35%", "40%", "60%", "80%", "100")]
    assert [row.split()[0] for row in rows] == ["20%", "35%", "40%", "60%", "80%", "100%"]
    assert [row.split() for row in rows if "chosen" in row] == [
        ["35%", "0.9300", "89.30%", "7/1", "-0.70", "-1.40", "<-", "chosen"]
    ]
    assert "accuracy 87.50% on 1,500 calibration texts" in text
    assert "on 2,000 evaluation texts it answers 34% first; together: accuracy +0.45 points" in text
    assert "worse/better 3/12" in text
    assert "2.00x [1.90, 2.10] the speed of onnx-int8 alone with many texts, and 1.40x [1.40, 1.40] one by one" in text
    assert "5% of the time of onnx-int8 alone in the median, and 102% at the 95th percentile" in text
    assert "\ncascade before onnx-int8: within budget" in text
    assert "a.csv, 40 texts: accuracy of onnx-fp32 80.00%, 75.00% with its first stage, which answers 50%" in text
    assert "b.csv, 9 texts: accuracy of onnx-fp32 60.00%, and its first stage answers none of them" in text
    assert "c.csv, 2 texts: accuracy of onnx-fp32 50.00%\n" in text


def test_openvino_is_recommended_only_where_it_is_faster_than_both_stages(record: ExportRecord) -> None:
    openvino = replace(record.artifacts[-1], name="onnx-int8-openvino", engine="openvino")
    rung = replace(record.candidates[0], recipe="static-openvino", engine="openvino")
    both = replace(
        record,
        artifacts=(*record.artifacts, openvino),
        candidates=(*record.candidates, rung),
        openvino_recipe=rung.recipe,
    )
    for beside, recommended in ((None, True), (Spread(0.5, 0.6, 0.9), True), (Spread(0.9, 1.2, 1.3), False)):
        found = replace(both, cascade=replace(TRIAL, beside_openvino=beside))
        assert (found.with_openvino is not None) == recommended
        assert ("faster with `openvino` installed" in summary(found)) == recommended
        assert ("the speed of the artifact for OpenVINO with many" in summary(found)) == (beside is not None)


def test_it_shows_what_became_of_both_where_there_is_one_for_openvino_too(record: ExportRecord) -> None:
    beside = replace(TRIAL, beside_openvino=Spread(0.5, 0.6, 0.9))
    openvino = replace(record.artifacts[-1], name="onnx-int8-openvino", engine="openvino")
    own = replace(TRIAL, artifact=openvino.name, reason="cheaper", calibration_score=0.8)
    found = replace(record, artifacts=(*record.artifacts, openvino), cascade=beside, cascade_openvino=own)
    text = cascade(found)
    assert found.cascades == (beside, own)
    assert "\ncascade before onnx-int8: within budget\ncascade before onnx-int8-openvino, which alone has" in text
    assert text.endswith("\ncascade before onnx-int8-openvino: cheaper")
    assert "0.60x [0.50, 0.90] the speed of the artifact for OpenVINO, first stage included, with many texts" in text
    text = cascade(replace(found, cascade_openvino=replace(own, shipped=False)))
    assert text.endswith("\nno cascade before onnx-int8-openvino: cheaper")
    assert "the speed of the artifact for OpenVINO with many texts" in text


def test_it_says_that_steadiness_is_that_of_the_model_alone(record: ExportRecord) -> None:
    assert record.variations
    assert "without its first stage, the same texts" not in summary(record)
    assert summary(replace(record, cascade=TRIAL)).count("without its first stage, the same texts") == len(
        record.variations
    )


def test_the_page_shows_accuracy_by_the_share_answered_first_where_a_cascade_was_shipped() -> None:
    pytest.importorskip("plotly", reason="the page's charts need plotly")
    from bench.report.page.page import render_page

    record = make_bench_record()
    assert 'id="cascade"' not in render_page(summarise(record))
    page = render_page(summarise(replace(record, cascade=TRIAL)))
    (chart,) = [c for c in json.loads(page.split('id="charts">')[1].split("</script>")[0]) if "cascade" in c["id"]]
    both, alone, chosen = chart["data"]
    assert both["x"] == pytest.approx([100 * point.answered for point in CURVE])
    assert both["y"] == pytest.approx([100 * point.score for point in CURVE])
    assert set(alone["y"]) == {87.5}
    assert (chosen["x"], chosen["y"]) == ([pytest.approx(35)], [pytest.approx(89.3)])
    assert "the first stage answers 35% of the texts" in page
    assert "differs from that of <code>onnx-int8</code> alone by +1.80 points" in page
    table = page.split('<table id="cascade-table">')[1].split("</table>")[0]
    assert table.count("<tr>") == 1 + len(CURVE)


STACKED = replace(TRIAL, stacked_score=0.9, chosen=Cascade(1.5, CURVE[6].threshold, 0.9, 10, 900, Stack(0.6, 0.4)))


def test_it_says_that_logits_are_added_and_what_the_columns_are_then(record: ExportRecord) -> None:
    text = summary(replace(record, cascade=STACKED, shift=(ShiftScore("d.csv", 9, 0.6, 0.7, 0.0),)))
    assert "accuracy 87.50% on 1,500 calibration texts, and 90.00% with both stages' logits added:" in text
    assert "worse/better: than the sum of the logits" in text
    assert "worse/better: than" not in summary(replace(record, cascade=TRIAL))
    assert "d.csv, 9 texts: accuracy of onnx-fp32 60.00%, 70.00% with its first stage, which answers 0%" in text


def test_the_page_says_what_answers_of_a_stacked_cascade_differ_from() -> None:
    pytest.importorskip("plotly", reason="the page's charts need plotly")
    from bench.report.page.page import render_page

    pages = [render_page(summarise(replace(make_bench_record(), cascade=trial))) for trial in (TRIAL, STACKED)]
    for others, page in zip(("the model's", "those of both stages' logits, added"), pages, strict=True):
        assert f"answers of the first stage that differ from {others}." in html.unescape(page)


def test_it_says_why_there_is_none(record: ExportRecord) -> None:
    none = CascadeTrial(shipped=False, reason="`--no-cascade` was given")
    assert "\nno cascade: `--no-cascade` was given\n" in summary(replace(record, cascade=none))


def test_the_card_says_it_before_how_to_use_it() -> None:
    card = tell_cascade("# onnx-int8\n\nOld.\n\n## Use\n\nLike this.\n", JUDGED, SPEED, stacked=False)
    before, told, after = card.split("\n\n", 2)[0], card.split("\n\n")[2], card[card.index("## Use") :]
    assert (before, after) == ("# onnx-int8", "## Use\n\nLike this.\n")
    assert "`lexical.safetensors`" in told
    assert "34% of the evaluation texts" in told
    assert "accuracy +0.45 points [" in told
    assert "2.00x the speed" in told
