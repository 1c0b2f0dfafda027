"""A run's linear classifier and its calibration texts: made of training texts, of texts apart, and of no others."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from faults import is_killed
from toys import make_texts, write_csv

from trainer.config import TrainConfig
from trainer.data import read_examples
from trainer.data.load import MOST_LEFT_OVER, Columns, Examples, load_splits
from trainer.errors import UserError
from trainer.lexical import sample as sampling
from trainer.lexical.file import read_lexical
from trainer.lexical.sample import sample
from trainer.model.load import load_tokenizer, make_encoder
from trainer.run import RunDir, reload_splits
from trainer.text.encoding import Encoder
from trainer.training import train as training
from trainer.training.train import train


@pytest.fixture(scope="module")
def config(toy_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Of 600 texts 120 are evaluated on, 330 are trained on, and 150 are left over."""
    folder = tmp_path_factory.mktemp("lexical")
    data = write_csv(folder / "topics.csv", [*make_texts(600)])
    return replace(toy_config, dataset=str(data), max_train_samples=330, epochs=1, run_dir=folder / "run")


@pytest.fixture(scope="module")
def run(config: TrainConfig) -> RunDir:
    train(config)
    return RunDir(config.run_dir)


def test_it_answers_texts_that_it_was_not_fitted_on(run: RunDir) -> None:
    record = run.load()
    encoder = make_encoder(load_tokenizer(run.adapter), record.max_length, record.truncation, record.pad_token_id)
    evaluation = read_examples(run.evaluation, record.label_names)
    logits = read_lexical(run.lexical, 4).logits(encoder.tokens(evaluation.texts))
    assert (logits.argmax(axis=1) == evaluation.labels).mean() > 0.8  # chance is 0.25
    assert (record.lexical_reason, record.lexical_texts) == ("", 330)
    assert record.lexical_accuracy
    assert 0.8 < record.lexical_accuracy <= 1


def test_another_file_in_its_place_is_refused(run: RunDir, copy_of: Callable[[RunDir], RunDir]) -> None:
    run = copy_of(run)
    content = bytearray(run.lexical.read_bytes())
    content[-1] ^= 1
    run.lexical.write_bytes(content)
    with pytest.raises(UserError, match=r"lexical.safetensors` is not the file that"):
        run.load()
    run.lexical.unlink()
    with pytest.raises(UserError, match=r"lexical.safetensors` is not the file that"):
        run.load()


def test_a_run_without_one_says_why_and_leaves_none_of_another(
    trained: RunDir, run: RunDir, config: TrainConfig, copy_of: Callable[[RunDir], RunDir]
) -> None:
    assert (trained.load().lexical_sha256, trained.load().lexical_reason) == ("", "128 texts are too few")
    run = copy_of(run)
    train(replace(config, max_train_samples=100, overwrite=True, run_dir=run.path))
    assert run.load().lexical_sha256 == ""
    assert not run.lexical.exists()
    train(replace(config, overwrite=True, run_dir=run.path))
    assert run.load().lexical_sha256
    assert run.lexical.is_file()


@pytest.mark.parametrize("has_one", [True, False])
def test_new_results_replace_the_old_ones_wholly_wherever_that_is_killed(
    run: RunDir, trained: RunDir, tmp_path: Path, *, has_one: bool
) -> None:
    new, old = (run, trained) if has_one else (trained, run)
    for moment in count(1):
        place = RunDir(Path(shutil.copytree(old.path, tmp_path / str(moment))))
        shutil.copytree(new.path, place.new_results().path)
        was_killed = is_killed(place.path, moment, place.settle)
        assert place.load() == new.load()
        assert place.lexical.is_file() == has_one
        if not was_killed:
            break
    assert moment > 4


def test_nothing_is_trained_or_evaluated_on_calibration_texts_where_texts_are_left_over(run: RunDir) -> None:
    record, splits = run.load(), reload_splits(run.load())
    calibration = read_examples(run.calibration, record.label_names)
    assert record.calibration_is_apart
    assert (len(splits.train), len(splits.evaluation), len(calibration)) == (330, 120, 150)
    assert not set(calibration.texts) & {*splits.train.texts, *splits.evaluation.texts}
    assert np.bincount(calibration.labels).min() > 30  # type: ignore[arg-type]


def test_training_never_gives_up_a_text(trained: RunDir, tmp_path: Path) -> None:
    assert not trained.load().calibration_is_apart
    rows = make_texts(3000)
    data = str(write_csv(tmp_path / "a.csv", [*rows]))
    whole, part, most = (load_splits(data, None, max_train_samples=limit) for limit in (0, 300, 2399))
    assert (len(whole.train), whole.left_over) == (2400, None)
    assert (len(most.train), most.left_over) == (2399, None)  # one text left over is not worth it
    assert part.left_over
    assert (len(part.train), len(part.left_over)) == (300, MOST_LEFT_OVER)


def test_a_text_that_is_trained_on_is_not_left_over_in_another_row(tmp_path: Path) -> None:
    rows = make_texts(300)
    again = [(text.upper(), label) for text, label in rows]
    ours, theirs = (
        write_csv(tmp_path / name, [*part]) for name, part in (("a.csv", rows + again), ("b.csv", rows[:9]))
    )
    splits = load_splits(str(ours), str(theirs), max_train_samples=300)
    assert splits.left_over
    used = {text.lower() for part in (splits.train, splits.evaluation) for text in part.texts}  # type: ignore[union-attr]
    assert not {text.lower() for text in splits.left_over.texts} & used  # type: ignore[union-attr]


def test_the_hash_of_the_data_is_that_of_earlier_versions(tmp_path: Path) -> None:
    """What is left over says nothing of what was trained, and runs made before it was kept can still be read again."""
    data = str(write_csv(tmp_path / "a.csv", [*make_texts(300)]))
    splits = load_splits(data, None, max_train_samples=100)
    assert splits.left_over
    assert splits.sha256() == replace(splits, left_over=None).sha256()


def test_several_labels_keep_texts_from_training_as_before(tmp_path: Path) -> None:
    data = str(write_csv(tmp_path / "a.csv", [*make_texts(600)]))
    splits = load_splits(data, None, columns=Columns(task="multi-label"), max_train_samples=200)
    assert splits.calibration
    assert splits.left_over is None


@pytest.mark.parametrize("words", [10, 100])
def test_texts_are_drawn_by_the_tokens_that_they_cost(
    words: int, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, examples = Encoder.load(checkpoint, 24, "head", 0), Examples(["soup " * words] * 400, [0, 1] * 200)
    assert len(sample(encoder, examples, 1000, 0)) == 400
    assert len(sample(encoder, examples, 300, 0)) == 300
    monkeypatch.setattr(sampling, "MOST_TOKENS", 100 * words)
    assert np.bincount(sample(encoder, examples, 1000, 0).labels).tolist() == [50, 50]  # type: ignore[arg-type]


def test_a_classifier_that_cannot_be_fitted_costs_no_training(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is fitted before anything is trained or replaced."""
    run = RunDir(tmp_path / "run")

    def fail(*_: object) -> str:
        raise RuntimeError("no memory")

    monkeypatch.setattr(training, "fit_lexical", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        train(replace(config, run_dir=run.path))
    assert not run.checkpoints.exists()
