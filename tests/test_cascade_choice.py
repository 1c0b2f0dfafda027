"""When a first stage answers: chosen on calibration texts, with a margin, and only for texts that are usual."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.cascade.choose import (
    ONE_SIDED,
    SHARE_OF_BUDGET,
    Calibrated,
    choose_cascade,
    choose_guards,
    fit_stack,
    fit_temperature,
    foresee,
)
from exporter.cascade.speed import is_cheaper, speed_of
from exporter.cascade.stage import Cascade, FirstStage, surest
from exporter.cascade.suspicion import find_suspicion
from exporter.int8.budget import critical_value, paired_interval
from exporter.proof.timing import Spread
from trainer.lexical.model import Lexical

BUDGET = 0.02
TEXTS = 2_000


def stages(first_right: np.ndarray, model_right: np.ndarray, sure: np.ndarray | None = None) -> Calibrated:
    """Two stages that answer texts of the class 1 as told; without `sure`, the first is surest of the first text."""
    count = len(first_right)
    margins = np.linspace(8, 0.1, count) if sure is None else sure
    logits = np.stack([np.zeros(count), np.where(first_right, margins, -margins)], axis=1).astype(np.float32)
    ones = np.ones(count, dtype=np.int64)
    return Calibrated(logits, ones.astype(np.float32), 10 * ones, ones > 0, sharp(model_right.astype(np.int64)), ones)


def sharp(answers: np.ndarray) -> np.ndarray:
    """Logits of a model that is always sure."""
    return 9 * np.eye(2, dtype=np.float32)[answers]


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_temperature_is_the_one_that_labels_were_drawn_with(temperature: float, classes: int) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2 * temperature, (20_000, classes)).astype(np.float32)
    shares = np.exp(logits / temperature)
    truth = (rng.random((len(logits), 1)) > (shares / shares.sum(1, keepdims=True)).cumsum(1)).sum(1)
    assert fit_temperature(logits, truth) == pytest.approx(temperature, rel=0.05)


def test_a_first_stage_that_is_always_right_gets_the_sharpest_probabilities() -> None:
    assert fit_temperature(np.float32([[0, 1], [2, 0]]), np.array([1, 0])) == pytest.approx(1 / 16)
    assert fit_temperature(np.float32([[0, 1], [2, 0]]), np.array([0, 1])) == pytest.approx(16)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_weights_of_two_stages_are_those_that_labels_were_drawn_with(classes: int) -> None:
    rng = np.random.default_rng(0)
    first, model = rng.normal(0, 2, (2, 20_000, classes)).astype(np.float32)
    shares = np.exp(0.5 * first + 1.5 * model)
    truth = (rng.random((len(first), 1)) > (shares / shares.sum(1, keepdims=True)).cumsum(1)).sum(1)
    stack = fit_stack(first, model, truth)
    assert (stack.first, stack.model) == (pytest.approx(0.5, rel=0.06), pytest.approx(1.5, rel=0.06))


def test_the_weights_of_a_stage_that_knows_nothing_or_the_contrary_are_the_smallest() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, TEXTS)
    noise = rng.normal(0, 1, (TEXTS, 2)).astype(np.float32)
    model = rng.normal(0, 1, (TEXTS, 2)).astype(np.float32) + np.eye(2, dtype=np.float32)[truth]
    assert fit_stack(noise - np.eye(2, dtype=np.float32)[truth], model, truth).first == pytest.approx(1 / 16)
    assert fit_stack(noise, model, truth).first < 0.15


def test_stages_whose_errors_are_unlike_are_right_more_often_together() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, TEXTS)
    first, model = (rng.normal(0, 1, (TEXTS, 2)) + np.eye(2)[truth] for _ in range(2))
    ones = np.ones(TEXTS, dtype=np.int64)
    logits, known = [stage.astype(np.float32) for stage in (first, model)], ones.astype(np.float32)
    texts = Calibrated(logits[0], known, ones, ones > 0, logits[1], truth)
    apart, added = (choose_cascade(texts, BUDGET, 4_000, 2, stacked=stacked) for stacked in (False, True))
    alone = (model.argmax(1) == truth).mean()
    assert apart.cascade
    assert added.cascade
    assert apart.cascade.stack is apart.stacked_score is None
    assert added.stacked_score
    assert added.stacked_score > alone + 0.03
    chosen = [{p.threshold: p for p in found.curve}[found.cascade.threshold] for found in (apart, added)]
    assert chosen[1].score > max(chosen[0].score, alone)
    assert chosen[1].answered < chosen[0].answered
    changed = (chosen[1].harmful + chosen[1].helpful) / TEXTS
    assert chosen[1].lower < -changed, "an answer that changes counts as lost, also where it becomes right"
    assert chosen[1].lower > -SHARE_OF_BUDGET * BUDGET


def test_what_is_added_is_what_both_say_of_usual_texts_and_the_gate_sees_all_of_it() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, TEXTS)
    first, model = (
        rng.normal(0, 1, (TEXTS, 2)).astype(np.float32) + np.eye(2, dtype=np.float32)[truth] for _ in range(2)
    )
    usual, ones = np.arange(TEXTS) % 3 > 0, np.ones(TEXTS, dtype=np.int64)
    first[~usual] = np.eye(2, dtype=np.float32)[1 - truth[~usual]] * 9  # which no text that is asked about shows
    found = choose_cascade(
        Calibrated(first, ones.astype(np.float32), ones, usual, model, truth), BUDGET, 4_000, 2, stacked=True
    )
    assert found.cascade
    assert found.cascade.stack
    assert found.cascade.stack.first == pytest.approx(found.cascade.stack.model * found.cascade.temperature, rel=0.2)
    added = found.cascade.stack.first / found.cascade.temperature * first + found.cascade.stack.model * model
    answers, alone = np.where(usual[:, None], added, model).argmax(1), model.argmax(1)
    assert found.stacked_score == pytest.approx((answers == truth).mean())
    careful = found.curve[0]
    assert (careful.harmful, careful.helpful) == (0, 0)
    worse, better = ((answers != truth) & (alone == truth)).sum(), ((answers == truth) & (alone != truth)).sum()
    lower, _ = paired_interval(int(worse), int(better), TEXTS, ONE_SIDED)
    z = critical_value(2) + ONE_SIDED
    assert careful.foreseen == pytest.approx(foresee((worse + better) / TEXTS, lower, 4_000, z))


def test_the_threshold_is_the_cheapest_before_the_first_that_may_lose_too_much() -> None:
    right, model = np.ones(TEXTS, dtype=bool), np.ones(TEXTS, dtype=bool)
    right[TEXTS // 2 : TEXTS * 3 // 5] = False
    model[TEXTS * 3 // 5 :] = False  # beyond, there would be much to gain
    found = choose_cascade(stages(right, model), BUDGET, 10**6, 2)
    assert found.cascade
    (chosen,) = [i for i, p in enumerate(found.curve) if p.threshold == found.cascade.threshold]
    assert found.curve[chosen].answered == pytest.approx(0.5)
    assert (found.curve[chosen].harmful, found.curve[chosen + 1].harmful) == (0, 100)
    assert found.curve[chosen].lower > -SHARE_OF_BUDGET * BUDGET >= found.curve[chosen + 1].lower
    assert [p.answered for p in found.curve] == pytest.approx(np.arange(1, 21) / 20)
    assert found.curve[-1].lower > 0.2


def test_what_it_knows_better_pays_for_what_it_knows_worse() -> None:
    right, model = np.ones(TEXTS, dtype=bool), np.ones(TEXTS, dtype=bool)
    model[::10] = False
    right[1::20] = False
    found = choose_cascade(stages(right, model), BUDGET, 10**6, 2)
    assert found.cascade
    assert found.curve[-1].threshold == found.cascade.threshold
    assert (found.curve[-1].harmful, found.curve[-1].helpful) == (100, 200)
    assert found.curve[-1].score == pytest.approx(0.95)


def test_it_leaves_to_the_gate_what_so_many_texts_can_judge() -> None:
    """As many answers get worse as better, so that the loss is none, and the gate's interval widens with each."""
    right, model = np.ones(20_000, dtype=bool), np.ones(20_000, dtype=bool)
    model[::10], right[1::10] = False, False
    answered = []
    for evaluated, tried in ((10**6, 2), (2_000, 2), (2_000, 12), (200, 2)):
        found = choose_cascade(stages(right, model), BUDGET, evaluated, tried)
        points = [p for p in found.curve if found.cascade and p.threshold == found.cascade.threshold]
        assert all(p.foreseen > -BUDGET for p in points)
        answered.append(sum(p.answered for p in points))
    assert answered[0] == pytest.approx(1)
    assert answered == sorted(answered, reverse=True)
    assert answered[1] > answered[2] > answered[3] == 0


def test_what_the_gate_will_find_is_foreseen_by_the_gain_that_can_be_believed() -> None:
    """61 answers of 1,993 got worse and 87 better, a gain of 1.3 points by chance: the gate then saw a loss."""
    z = 3.24
    assert foresee(148 / 1993, 0.0030, 4000, z) < -0.005 < foresee(53 / 1993, 0.0088, 4000, z)
    assert foresee(0.05, 0.05, 4000, z) > 0  # nothing gets worse
    assert foresee(0, -0.001, 4000, z) < -0.001


def test_few_texts_prove_nothing() -> None:
    right = np.ones(100, dtype=bool)
    found = choose_cascade(stages(right, right), BUDGET, 10**6, 2)
    assert found.cascade is None
    assert found.curve


def test_a_loss_as_large_as_allowed_passes_by_luck_alone() -> None:
    """Of the texts that the most careful threshold lets it answer, so many are wrong that the loss is the limit."""
    rng, passed = np.random.default_rng(0), 0
    share = SHARE_OF_BUDGET * BUDGET * 20  # of a twentieth of the texts
    for _ in range(60):
        found = choose_cascade(stages(rng.random(TEXTS) >= share, np.ones(TEXTS, dtype=bool)), BUDGET, 10**6, 2)
        passed += found.cascade is not None
    assert 0 < passed / 60 < 0.15


def test_unusual_texts_are_counted_as_going_on() -> None:
    right = np.arange(TEXTS) % 9 > 0
    texts = stages(right, right)
    texts.tokens[:15], texts.tokens[-15:] = 5_000, 1
    texts.known[500:515] = 0.1
    texts.whole[700:710] = False
    usual = 1 - 55 / TEXTS
    found = choose_cascade(texts, BUDGET, 10**6, 2)
    assert found.cascade
    assert (found.cascade.fewest_tokens, found.cascade.most_tokens) == (10, 10)
    assert found.cascade.least_known == pytest.approx(1)
    sure = surest(texts.lexical / np.float32(found.cascade.temperature))
    assert found.curve[0].threshold == pytest.approx(sure[15 + round(usual * TEXTS / 20) - 1])
    assert [p.answered for p in found.curve] == pytest.approx(np.arange(1, 21) / 20 * usual, abs=1 / TEXTS)


def test_guards_leave_a_hundredth_out() -> None:
    known, tokens = np.arange(1_001, dtype=np.float32) / 1000, np.arange(1_001)
    assert choose_guards(known, tokens) == (pytest.approx(0.01), 10, 990)


def test_what_is_chosen_is_what_the_first_stage_does() -> None:
    rng = np.random.default_rng(1)
    lexical = Lexical(rng.normal(0, 1, (2**12, 1)).astype(np.float16), np.zeros(1, np.float32))
    tokens = [(list(rng.integers(5, 500, rng.integers(3, 60))),) for _ in range(TEXTS)]
    truth = (lexical.logits(tokens)[:, 1] > 0).astype(np.int64)
    flipped = np.where(rng.random(TEXTS) < 0.02, 1 - truth, truth)
    found = choose_cascade(Calibrated.of(lexical, tokens, truth >= 0, sharp(flipped), truth), BUDGET, 10**6, 2)
    assert found.cascade
    _, answered = FirstStage(lexical, found.cascade).answer(tokens)
    (point,) = [p for p in found.curve if p.threshold == found.cascade.threshold]
    assert answered.mean() == pytest.approx(point.answered)
    never = Cascade(found.cascade.temperature, 1.1, 0, 0, 10**6)
    assert not FirstStage(lexical, never).answer(tokens)[1].any()


def test_one_text_and_many_have_to_be_cheaper() -> None:
    many, ones = Spread(1.5, 2.0, 3.0), [1.0] * 50
    speed = speed_of([1, 1, 1, 5, 5], [0.1, 0.1, 0.1, 5.1, 5.1], many)
    assert (speed.median, speed.p95) == (pytest.approx(0.1), pytest.approx(1.02))
    assert speed.one.median == pytest.approx(13 / 10.5)
    assert is_cheaper(speed)
    assert not is_cheaper(speed_of(ones, [1.1] * 50, many))
    assert not is_cheaper(speed_of(ones, [0.5] * 50, Spread(0.9, 1.5, 2.0)))


def test_one_slow_call_decides_nothing() -> None:
    many = Spread(1.5, 2.0, 3.0)
    usual, slow = [0.1, 1.1] * 50, [0.1, 1.1] * 49 + [0.1, 60.0]
    assert is_cheaper(speed_of([1.0] * 100, slow, many))
    assert not is_cheaper(speed_of([0.55] * 99 + [60.0], usual, many))
    assert not is_cheaper(speed_of([1.0] * 100, [0.1] * 10 + [1.5] * 90, many)), "the first block is not all"


def suspicion(first: tuple[float, float], model: tuple[float, float]) -> str | None:
    """Ask about stages that are right on such shares of 1,000 calibration and 500 evaluation texts of two labels."""
    truth = tuple(np.arange(count) % 2 for count in (1_000, 500))

    def answers(shares: tuple[float, float], seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        wrong = [rng.random(len(right)) >= share for right, share in zip(truth, shares, strict=True)]
        return tuple(np.where(w, 1 - right, right) for w, right in zip(wrong, truth, strict=True))

    return find_suspicion(answers(first, 0), answers(model, 1), truth)


def test_a_first_stage_is_believed_unless_something_speaks_against_it() -> None:
    assert suspicion((0.88, 0.88), (0.9, 0.9)) is None
    assert suspicion((0.75, 0.88), (0.77, 0.9)) is None, "other texts may be easier, for both"
    assert "fitted on evaluation texts" in (suspicion((0.88, 0.999), (0.9, 0.9)) or "")
    assert "another order" in (suspicion((0.12, 0.12), (0.9, 0.9)) or "")
