"""The search tries every recipe that it can, survives those that break, and stops when time is up."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from exporter.bundle.artifact import Artifact, EngineName
from exporter.engines.engine import ALL_AT_ONCE, ONE_BY_ONE, Batching
from exporter.int8.ladder import Baseline, Ladder, Measured, measure, try_recipes
from exporter.int8.paired import Paired, pair
from exporter.int8.recipes import RECIPES, Ingredients, Recipe, of_family
from exporter.proof.chain import Chain
from exporter.proof.timing import Spread
from exporter.proof.variations import in_batches, vary
from exporter.proof.verify import VerificationError
from exporter.proof.worker import Worker, Workers
from trainer.data import Examples
from trainer.errors import UserError
from trainer.tasks import SingleLabel
from trainer.text.encoding import Encoded, Encoder

TASK = SingleLabel(2)


class Fake(Worker):
    """Answers by a rule on the text and the size of its batch, in a stated time."""

    def __init__(self, right: Callable[[str, int], bool] = lambda *_: True, seconds: float = 0.1) -> None:
        self.right, self.seconds, self.alive = right, seconds, True

    def logits(self, texts: Sequence[str], batching: Batching = ALL_AT_ONCE) -> np.ndarray:
        size = 1 if batching == ONE_BY_ONE else len(texts)
        return np.float32([[0, 1] if self.right(text, size) else [1, 0] for text in texts])

    def run(self, batch: Sequence[Encoded], length: int | None = None) -> np.ndarray:  # noqa: ARG002
        return np.float32([[0, 1]] * len(batch))

    def time(self, texts: Sequence[str]) -> float:  # noqa: ARG002
        return self.seconds

    def is_alive(self) -> bool:
        return self.alive

    def close(self) -> None:
        pass


def write_model(_: Path, output: Path, ingredients: Ingredients) -> Sequence[str]:
    """Leave two products in float, and say so."""
    assert ingredients.deadline > 60
    weights = onnx.numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], [name], name) for name in ("first", "second")]
    onnx.save(helper.make_model(helper.make_graph(nodes, "toy", [], [], [weights])), output)
    return [node.name for node in nodes]


def recipe(name: str, make: Callable[..., None] = write_model, needs: str | None = None) -> Recipe:
    return Recipe(name, "dynamic", make, needs=needs, keeps_weights=False)


def raising(error: Exception) -> Callable[..., None]:
    def make(*_: object) -> None:
        raise error

    return make


class Search:
    """Runs a search whose candidates are their recipes' names, with a clock that says one more minute each time."""

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.unfused, self.now, self.fp32 = folder / "unfused", 0.0, Fake()
        self.unfused.mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(checkpoint / name, self.unfused / name)
        (self.unfused / "config.json").write_text('{"id2label": {"0": "no", "1": "yes"}}')
        texts = Examples(["soup", "bread", "a goal"], [1, 1, 1])
        encoder = Encoder.load(checkpoint, 24, "head", 0)
        chain = Chain(encoder, texts, ("no", "yes"), TASK, most=3, workers=Workers(1, self.start))
        chain.add("unfused", Fake().run)
        self.baseline = Baseline(self.fp32, self.fp32.logits(texts.texts), texts, texts, chain, TASK)
        self.artifact = Artifact("x", "model.onnx", "int8", ("no", "yes"), 24, "head", 0, 0)

    def clock(self) -> float:
        self.now += 60
        return self.now

    def start(self, name: str, *_: object) -> Worker:
        if name == "does not load":
            raise UserError("cannot load", "")
        if name == "takes the baseline down":
            self.fp32.alive = False
            raise UserError("fp32 died", "")
        if name == "answers otherwise":
            return Contrary()
        return Fake()

    def __call__(self, recipes: Sequence[Recipe], minutes: float = 100) -> Ladder:
        ingredients = Ingredients([], TASK)
        return try_recipes(
            recipes, self.unfused, self.artifact, ingredients, self.baseline, minutes=minutes, clock=self.clock
        )


class Contrary(Fake):
    """Answers the other class."""

    def run(self, batch: Sequence[Encoded], length: int | None = None) -> np.ndarray:  # noqa: ARG002
        return np.float32([[1, 0]] * len(batch))


@pytest.fixture
def search(tmp_path: Path, checkpoint: Path) -> Search:
    return Search(tmp_path, checkpoint)


def test_a_recipe_that_breaks_is_a_row_and_not_the_end(search: Search, tmp_path: Path) -> None:
    found = search(
        [
            recipe("breaks", raising(ValueError("the quantizer says no\nin two lines"))),
            recipe("breaks silently", raising(AssertionError())),
            recipe("does not load"),
            recipe("answers otherwise"),
            recipe("passes by", lambda *args: write_model(*args)[1:]),
            recipe("works"),
        ]
    )
    assert [m.recipe.name for m in found.measured] == ["works"]
    assert [(f.recipe, f.reason.partition(":")[0]) for f in found.failed] == [
        ("breaks", "ValueError"),
        ("breaks silently", "AssertionError"),
        ("does not load", "cannot load"),
        ("answers otherwise", "`answers otherwise` is not the same classifier as `unfused`"),
        ("passes by", "left 1 of the products with a constant matrix in float, such as `first`"),
    ]
    assert found.failed[0].reason == "ValueError: the quantizer says no"
    assert (tmp_path / "works" / "golden.json").exists()
    assert not (tmp_path / "answers otherwise").exists()


def changed(harmful: int, helpful: int, *, of: int) -> Paired:
    """Answers of which so many turned wrong, and so many right."""
    truth = np.zeros(of, dtype=np.int64)
    before, after = truth.copy(), truth.copy()
    before[harmful : harmful + helpful] = after[:harmful] = 1
    return pair(TASK, before, after, truth)


def test_intervals_widen_with_the_recipes_judged_and_not_with_those_only_planned() -> None:
    measured = Measured(
        recipe("x"), 1, changed(3, 1, of=1000), 0.0, Spread(1, 2, 3), vary("", np.eye(2), np.eye(2), TASK)
    )
    alone, (first, _) = (
        Ladder((measured,)).judged(0.5)[0],
        Ladder((measured,) * 2, (), ("y: late",)).judged(0.5),
    )
    assert (alone.change.tried, first.change.tried) == (1, 2)
    assert first.change.lower < alone.change.lower < alone.change.upper < first.change.upper


def test_intervals_hold_for_the_candidates_of_one_engine_and_the_cascade_beside_them() -> None:
    def measured(name: str, engine: EngineName) -> Measured:
        same = vary("", np.eye(2), np.eye(2), TASK)
        return Measured(replace(recipe(name), engine=engine), 1, changed(3, 1, of=1000), 0.0, Spread(1, 2, 3), same)

    ladder = Ladder((measured("a", "onnxruntime"), measured("b", "openvino"), measured("c", "onnxruntime")))
    assert [c.change.tried for c in ladder.judged(0.5)] == [2, 1, 2]
    assert [c.change.tried for c in ladder.judged(0.5, cascades=1)] == [3, 2, 3]


def test_a_search_that_outlasts_the_time_is_skipped_and_a_dead_baseline_ends_it(search: Search) -> None:
    found = search([recipe("searches too long", raising(TimeoutError())), recipe("works")])
    assert [m.recipe.name for m in found.measured] == ["works"]
    assert found.skipped == ("searches too long: out of time (`--budget-minutes`)",)
    with pytest.raises(UserError, match="fp32 died"):
        search([recipe("takes the baseline down"), recipe("never tried")])


def test_corrupted_weights_end_the_search(search: Search) -> None:
    with pytest.raises(VerificationError, match="other weights"):
        search([recipe("is corrupted", raising(VerificationError("other weights", ""))), recipe("works")])


def test_time_is_kept_and_the_first_is_tried_in_any_case(search: Search, capsys: pytest.CaptureFixture[str]) -> None:
    found = search([recipe(name) for name in "abcd"], minutes=2.5)
    assert [m.recipe.name for m in found.measured] == ["a", "b", "c"]
    assert found.skipped == ("d: out of time (`--budget-minutes`)",)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("trying ")]
    assert lines[0] == "trying a, 1 of 4"
    assert all(", about " in line and line.endswith(" left") for line in lines[1:])
    assert [m.recipe.name for m in search([recipe("e"), recipe("f")], minutes=0).measured] == ["e"]


def test_what_needs_a_package_that_is_absent_is_skipped(search: Search) -> None:
    found = search([recipe("smooth", needs="no_such_package"), recipe("plain")])
    assert [m.recipe.name for m in found.measured] == ["plain"]
    assert found.skipped == ("smooth: `pip install no_such_package` to have it",)


def test_families_part_the_ladder() -> None:
    recipes = [r for r in RECIPES if r.engine == "onnxruntime"]  # the others depend on what is installed
    parts = [of_family(recipes, family, reduce_range=False) for family in ("dynamic", "static", "weight-only")]
    assert sorted(r.name for part in parts for r in part) == sorted(r.name for r in recipes)
    assert of_family(recipes, "auto", reduce_range=False) == recipes
    left_out = set(recipes) - set(of_family(recipes, "auto", reduce_range=True))
    assert {r.name for r in left_out} == {"static-smoothquant"}


def test_a_candidate_is_measured_beside_fp32(tmp_path: Path) -> None:
    """Class 1 is right throughout. fp32 misses the last text, the candidate, three times as fast, the first two."""
    texts = [str(i) for i in range(100)]
    fp32 = Fake(lambda text, _: text != "99", 0.3)
    gate = Examples(texts, [1] * 100)
    baseline = Baseline(fp32, fp32.logits(texts), gate, gate.take(range(40)), None, TASK)  # type: ignore[arg-type]
    (tmp_path / "model.onnx").write_bytes(b"12345")
    candidate = Fake(lambda text, size: text not in ("0", "1") or size == 1, 0.1)
    measured = measure(recipe("x"), tmp_path, candidate, baseline, threads=1)
    (found,) = Ladder((measured,)).judged(0.5)
    assert (found.change.harmful, found.change.helpful, found.change.texts) == (2, 1, 100)
    assert found.size_bytes == 5
    assert found.speed.median == pytest.approx(3)
    assert found.judgement == "undecided"
    assert (found.texts_to_decide or 0) > 100
    assert (found.batch.texts, found.batch.flips) == (40, 2)  # alone it answers "0" and "1" rightly


def test_an_answer_that_is_no_number_is_not_counted_as_a_class(tmp_path: Path) -> None:
    class Odd(Fake):
        def logits(self, texts: Sequence[str], batching: Batching = ALL_AT_ONCE) -> np.ndarray:  # noqa: ARG002
            return np.full((len(texts), 2), np.nan, dtype=np.float32)

    gate = Examples(["0", "1"], [0, 1])
    baseline = Baseline(Fake(), np.zeros((2, 2), np.float32), gate, gate, None, TASK)  # type: ignore[arg-type]
    with pytest.raises(VerificationError, match="`x` returned NaN or infinity"):
        measure(recipe("x"), tmp_path, Odd(), baseline, threads=1)


def test_a_variation_counts_flips_and_finds_the_largest_move() -> None:
    usual, varied = np.log(np.float32([[0.9, 0.1], [0.6, 0.4]])), np.log(np.float32([[0.8, 0.2], [0.4, 0.6]]))
    found = vary("x", usual, varied, TASK)
    assert (found.name, found.texts, found.flips) == ("x", 2, 1)
    assert found.max_abs_probability == pytest.approx(0.2, abs=1e-6)


def test_batches_are_of_32() -> None:
    sizes: list[int] = []
    fake = Fake(lambda _, size: not sizes.append(size), 0.0)
    usual = np.zeros((40, 2), dtype=np.float32)
    in_batches(fake, Examples([str(i) for i in range(40)], [0] * 40), usual, TASK)
    assert sorted(set(sizes)) == [8, 32]
