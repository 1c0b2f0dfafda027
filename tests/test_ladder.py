"""The search tries every recipe that it can, survives those that break, and stops when time is up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.int8 import ladder
from exporter.int8.ladder import Gate, Ladder, Measured, climb, in_batches, measure, recipes, vary
from exporter.int8.recipes import RECIPES, Recipe
from exporter.proof.timing import Spread
from exporter.proof.verify import VerificationError
from trainer.data import Examples
from trainer.errors import UserError


def recipe(name: str, needs: str | None = None) -> Recipe:
    return Recipe(name, "dynamic", lambda *_: None, needs=needs)


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ladder]:
    """Runs a search whose candidates are their recipes' names, with a clock that says one more minute each time."""
    now = [0.0]

    def clock() -> float:
        now[0] += 60
        return now[0]

    class Loaded:
        def __init__(self, name: str, *_: object) -> None:
            if name == "does not load":
                raise UserError("cannot load", "")

        def close(self) -> None:
            pass

    class Row:
        def __init__(self, recipe: Recipe, *_: object) -> None:
            self.recipe, self.harmful, self.helpful, self.speed = recipe, 0, 0, Spread(1, 1, 1)

    class Baseline:
        alive = True

        def is_alive(self) -> bool:
            return self.alive

    monkeypatch.setattr(ladder, "Worker", Loaded)
    monkeypatch.setattr(ladder, "measure", Row)
    monkeypatch.setattr(ladder.time, "monotonic", clock)

    def make(recipe: Recipe, deadline: float) -> Path:
        assert deadline > 60
        if recipe.name == "searches too long":
            raise TimeoutError
        if recipe.name == "breaks":
            raise ValueError("the quantizer says no\nin two lines")
        if recipe.name == "breaks silently":
            raise AssertionError
        if recipe.name == "is corrupted":
            raise VerificationError("other weights", "")
        folder = tmp_path / recipe.name
        folder.mkdir()
        return folder

    def prove(recipe: Recipe, _: Any) -> None:
        if recipe.name == "takes the baseline down":
            Baseline.alive = False
            raise UserError("fp32 died", "")
        if recipe.name == "answers otherwise":
            raise VerificationError("not the same classifier", "")

    def run(rungs: Sequence[Recipe], minutes: float = 100) -> Ladder:
        return climb(rungs, make, prove, Gate(Baseline(), None, None, None, 1), minutes=minutes)  # type: ignore[arg-type]

    return run


def test_a_recipe_that_breaks_is_a_row_and_not_the_end(search: Callable[..., Ladder], tmp_path: Path) -> None:
    names = ["breaks", "breaks silently", "does not load", "answers otherwise", "works"]
    found = search([recipe(name) for name in names])
    assert [m.recipe.name for m in found.measured] == ["works"]
    assert [(f.recipe, f.reason) for f in found.failed] == [
        ("breaks", "ValueError: the quantizer says no"),
        ("breaks silently", "AssertionError: "),
        ("does not load", "cannot load"),
        ("answers otherwise", "not the same classifier"),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["works"]


def test_intervals_widen_with_the_recipes_judged_and_not_with_those_only_planned() -> None:
    measured = Measured(recipe("x"), 1, 3, 1, 0.0, Spread(1, 2, 3), vary("", np.eye(2), np.eye(2)))
    alone, (first, _) = (
        Ladder([measured]).judged(1000, 0.5)[0],
        Ladder([measured] * 2, [], ["y: late"]).judged(1000, 0.5),
    )
    assert (alone.change.tried, first.change.tried) == (1, 2)
    assert first.change.lower < alone.change.lower < alone.change.upper < first.change.upper


def test_a_search_that_outlasts_the_time_is_skipped_and_a_dead_baseline_ends_it(search: Callable[..., Ladder]) -> None:
    found = search([recipe("searches too long"), recipe("works")])
    assert [m.recipe.name for m in found.measured] == ["works"]
    assert found.skipped == ["searches too long: `--budget-minutes` were over"]
    with pytest.raises(UserError, match="fp32 died"):
        search([recipe("takes the baseline down"), recipe("never tried")])


def test_corrupted_weights_end_the_search(search: Callable[..., Ladder]) -> None:
    with pytest.raises(VerificationError, match="other weights"):
        search([recipe("is corrupted"), recipe("works")])


def test_time_is_kept_and_the_first_is_tried_in_any_case(search: Callable[..., Ladder]) -> None:
    found = search([recipe(name) for name in "abcd"], minutes=2.5)
    assert [m.recipe.name for m in found.measured] == ["a", "b", "c"]
    assert found.skipped == ["d: `--budget-minutes` were over"]
    assert [m.recipe.name for m in search([recipe("e"), recipe("f")], minutes=0).measured] == ["e"]


def test_what_needs_a_package_that_is_absent_is_skipped(search: Callable[..., Ladder]) -> None:
    found = search([recipe("smooth", needs="no_such_package"), recipe("plain")])
    assert [m.recipe.name for m in found.measured] == ["plain"]
    assert found.skipped == ["smooth: `pip install no_such_package` to have it"]


def test_families_part_the_ladder() -> None:
    parts = [recipes(family) for family in ("dynamic", "static", "weight-only")]
    assert sorted(r.name for part in parts for r in part) == sorted(r.name for r in RECIPES)
    assert recipes("auto") == list(RECIPES)


class Fake:
    """Answers by a rule on the text and the size of its batch, in a stated time."""

    def __init__(self, right: Callable[[str, int], bool], seconds: float) -> None:
        self.right, self.seconds = right, seconds

    def logits(self, texts: Sequence[str], batch_tokens: int | None = None) -> np.ndarray:  # noqa: ARG002
        return np.float32([[0, 1] if self.right(text, len(texts)) else [1, 0] for text in texts])

    def time(self, texts: Sequence[str]) -> float:  # noqa: ARG002
        return self.seconds


def test_a_candidate_is_measured_beside_fp32(tmp_path: Path) -> None:
    """Class 1 is right throughout. fp32 misses the last text, the candidate, three times as fast, the first two."""
    texts = [str(i) for i in range(100)]
    fp32 = Fake(lambda text, _: text != "99", 0.3)
    gate = Examples(texts, [1] * 100)
    bench = Gate(fp32, fp32.logits(texts), gate, gate.take(range(40)), 1)  # type: ignore[arg-type]
    (tmp_path / "model.onnx").write_bytes(b"12345")
    candidate = Fake(lambda text, size: text not in ("0", "1") or size == 1, 0.1)
    measured = measure(recipe("x"), tmp_path, candidate, bench)  # type: ignore[arg-type]
    (found,) = Ladder([measured]).judged(100, 0.5)
    assert (found.change.harmful, found.change.helpful, found.change.texts) == (2, 1, 100)
    assert found.size_bytes == 5
    assert found.speed.median == pytest.approx(3)
    assert found.judgement == "undecided"
    assert (found.texts_to_decide or 0) > 100
    assert (found.batch.texts, found.batch.flips) == (40, 2)  # alone it answers "0" and "1" rightly


def test_an_answer_that_is_no_number_is_not_counted_as_a_class(tmp_path: Path) -> None:
    class Odd(Fake):
        def logits(self, texts: Sequence[str], batch_tokens: int | None = None) -> np.ndarray:  # noqa: ARG002
            return np.full((len(texts), 2), np.nan, dtype=np.float32)

    gate = Examples(["0", "1"], [0, 1])
    bench = Gate(None, np.zeros((2, 2), np.float32), gate, gate, 1)  # type: ignore[arg-type]
    with pytest.raises(VerificationError, match="`x` answers with something that is no finite number"):
        measure(recipe("x"), tmp_path, Odd(lambda *_: True, 0.1), bench)  # type: ignore[arg-type]


def test_a_variation_counts_flips_and_finds_the_largest_move() -> None:
    usual, varied = np.log(np.float32([[0.9, 0.1], [0.6, 0.4]])), np.log(np.float32([[0.8, 0.2], [0.4, 0.6]]))
    found = vary("x", usual, varied)
    assert (found.name, found.texts, found.flips) == ("x", 2, 1)
    assert found.max_abs_probability == pytest.approx(0.2, abs=1e-6)


def test_batches_are_of_32() -> None:
    sizes: list[int] = []
    fake = Fake(lambda _, size: not sizes.append(size), 0.0)
    usual = np.zeros((40, 2), dtype=np.float32)
    in_batches(fake, Examples([str(i) for i in range(40)], [0] * 40), usual)  # type: ignore[arg-type]
    assert sorted(set(sizes)) == [8, 32]
