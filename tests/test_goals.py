"""What is promised, beside what records say: met, missed or not measured, and never a guess."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from bench_records import make_record

from bench.judge.goals import PEER, Goal, goals, table
from bench.judge.interval import Interval
from bench.results import Bulk

EXPORT: Any = SimpleNamespace(gpu=None, duration_s=80.0, cascades=())
TRAINING: Any = SimpleNamespace(ratios=(4.4, 4.0, 5.0))


@pytest.fixture
def by_name(monkeypatch: pytest.MonkeyPatch) -> dict[str, Goal]:
    monkeypatch.setattr("bench.judge.goals.PEER", "transformers-pipeline")
    return {goal.what: goal for goal in goals(make_record(), TRAINING, EXPORT, None)}


def test_ratios_are_those_of_the_record(by_name: dict[str, Goal]) -> None:
    one = by_name["one text, `onnx-int8-cpu`"]
    assert one.found
    assert one.found.low < one.found.estimate < one.found.high < 0.5
    assert one.is_met
    many = by_name["many texts, `onnx-int8-cpu`"]
    assert many.found
    share = many.found.estimate  # of both there is one of that name: the last is the share of the machine's rate
    text = 85e6 * 240 / 1.6e12 / ((1.1 + 0.066 * 240 + 0.130 * 57.6) / 1.35e3)
    assert share == pytest.approx(text, rel=0.05)
    assert by_name["training"].found == Interval(4.0, 4.4, 5.0)


def test_a_cascade_is_compared_with_its_model_and_its_rate_of_products_is_not_looked_at() -> None:
    record = make_record()
    (int8,) = [engine for engine in record.engines if engine.name == "onnx-int8-cpu"]
    faster = [
        replace(b, engine="both", seconds=tuple(s / 3 for s in b.seconds), first_stage=(1,) * len(b.texts))
        for b in record.bulks
        if b.engine == int8.name
    ]
    singles = [
        replace(s, engine="both", total_s=tuple(1.2 * t for t in s.total_s))
        for s in record.singles
        if s.engine == int8.name
    ]
    (own,) = [accuracy for accuracy in record.accuracies if accuracy.engine == int8.name]
    right = [i for i, labels in enumerate(record.labels) if own.predicted[i] == labels]
    wrong = tuple((1 - p[0],) if i in right[:20] else p for i, p in enumerate(own.predicted))
    both = replace(
        record,
        engines=(*record.engines, replace(int8, name="both")),
        bulks=(*record.bulks, *faster),
        singles=(*record.singles, *singles),
        accuracies=(*record.accuracies, replace(own, engine="both", predicted=wrong)),
    )
    export = SimpleNamespace(cascades=(SimpleNamespace(artifact="onnx-int8", added_bytes=400_000),))
    before, found = goals(record, None, EXPORT, None), goals(both, None, export, None)  # type: ignore[arg-type]
    assert [goal for goal in found if "`both`" not in goal.what] == before
    many, _, one, tail, accuracy, size = [goal for goal in found if "`both`" in goal.what]
    assert tail.found
    assert tail.found.estimate == pytest.approx(1.2)
    assert not tail.is_met
    assert accuracy.found
    assert accuracy.found.estimate == pytest.approx(-100 * 20 / len(record.labels))
    assert accuracy.found.low < accuracy.found.estimate < accuracy.found.high
    assert not accuracy.is_met
    assert size.found
    assert size.found.estimate == pytest.approx(0.4)
    assert size.is_met
    assert many.found
    assert many.against == int8.name
    assert many.found.estimate == pytest.approx(3)
    assert many.is_met
    assert one.found
    assert one.found.estimate == pytest.approx(1.2)
    assert not one.is_met


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_a_cascade_before_openvino_is_compared_with_that_model_and_does_not_stand_for_it(precision: str) -> None:
    record = make_record()
    (int8,) = [engine for engine in record.engines if engine.name == "onnx-int8-cpu"]
    model, both = f"onnx-{precision}-openvino", f"cascade-{precision}-openvino"

    def bulks(name: str, times: float, **values: Any) -> list[Bulk]:
        own = [bulk for bulk in record.bulks if bulk.engine == int8.name]
        return [replace(b, engine=name, seconds=tuple(s / times for s in b.seconds), **values) for b in own]

    infos = [replace(int8, name=name, artifact=model, precision=precision) for name in (model, both)]
    answered = (1,) * len(record.bulks[0].texts)
    trials = [SimpleNamespace(artifact=name, added_bytes=n) for name, n in (("onnx-int8", 9), (model, 300_000))]
    found = goals(
        replace(
            record,
            engines=(*record.engines, *infos),
            bulks=(*record.bulks, *bulks(model, 2), *bulks(both, 6, first_stage=answered)),
        ),
        None,
        SimpleNamespace(cascades=trials),  # type: ignore[arg-type]
        None,
    )
    many = {(goal.what, goal.against): goal for goal in found}
    assert many[f"many texts, `{model}`", PEER].bound < 4
    speed = many[f"many texts, `{both}`", model].found
    assert speed
    assert speed.estimate == pytest.approx(3)
    size = many[f"size of the artifact, `{both}`", f"{model} without it"].found
    assert size
    assert size.estimate == pytest.approx(0.3)


def test_what_was_not_measured_is_not_met(by_name: dict[str, Goal]) -> None:
    assert by_name["many texts, `openvino`"].found is None
    assert not by_name["many texts, `openvino`"].is_met
    text = table(make_record(), [*by_name.values()])
    assert "| many texts, `openvino` | transformers-pipeline | ≥ 1.6× | - | not measured |" in text
    assert "| training | plain `Trainer` + peft, fp32 | ≥ 4× | 4.40× [4.00, 5.00] | met |" in text


def test_with_amx_more_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.judge.goals.PEER", "transformers-pipeline")
    record = make_record()
    amx = replace(record, environment=replace(record.environment, instruction_sets=("AMX",)))
    before, after = (goals(r, None, EXPORT, None)[0] for r in (record, amx))
    assert (before.bound, after.bound) == (1.3, 1.6)
    assert before.found == after.found


def test_a_gpu_has_goals_of_its_own() -> None:
    record = make_record()
    renamed = {
        "onnx-int8-cpu": "onnx-fp16-cuda",
        "onnx-fp32-cpu": "onnx-fp32-cuda",
        "pytorch-fp32-cpu": "pytorch-fp16-cuda",
    }
    on_gpu = replace(
        record,
        config=replace(record.config, device="cuda"),
        chosen="onnx-fp16",
        environment=replace(record.environment, gpu="a card"),
        singles=tuple(replace(s, engine=renamed.get(s.engine, s.engine)) for s in record.singles),
        bulks=tuple(replace(b, engine=renamed.get(b.engine, b.engine)) for b in record.bulks),
        engines=tuple(replace(e, name=renamed.get(e.name, e.name), device="cuda") for e in record.engines),
    )
    found = goals(on_gpu, None, SimpleNamespace(gpu="a card", duration_s=95.0), 44.0)  # type: ignore[arg-type]
    text = table(on_gpu, found)
    assert "a card, 2 threads" in text
    assert "| `python -m trainer`, whole | - | ≤ 45 s | 44.00 s | met |" in text
    assert "| `python -m exporter --target cuda`, whole | - | ≤ 90 s | 95.00 s | missed |" in text
    (one,) = [goal for goal in found if goal.what == "one text, `onnx-fp16-cuda`"]
    assert one.found
    assert one.found.estimate < 0.6
    (torch,) = [goal for goal in found if goal.against == "pytorch-fp16-cuda"]
    assert torch.is_met
    assert not next(goal for goal in found if goal.against == "transformers-pipeline-fp16-cuda").is_met
