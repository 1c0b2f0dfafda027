"""A training that is killed at any change of a file, moved, or started twice loses nothing that was finished."""

from __future__ import annotations

import contextlib
import random
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from faults import faults, is_killed, is_killed_after, meets
from toys import make_texts

from trainer.adopt.adopt import adopt
from trainer.adopt.config import AdoptConfig
from trainer.config import TrainConfig
from trainer.errors import UserError
from trainer.locks import hold
from trainer.pretrain.config import PretrainConfig, PretrainRecord
from trainer.pretrain.output import OutputDir
from trainer.pretrain.train import pretrain
from trainer.records import file_sha256, read_record
from trainer.run import RunDir, UnfinishedRun
from trainer.training.resume import last_checkpoint
from trainer.training.train import train


@pytest.fixture(scope="module")
def short(toy_config: TrainConfig) -> TrainConfig:
    """A training of one epoch."""
    return replace(toy_config, epochs=1, seed=5)


@pytest.fixture(scope="module")
def expected(short: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of what `short` leaves where nobody interrupts it."""
    return weights(train_at(short, tmp_path_factory.mktemp("straight") / "run"))


def train_at(config: TrainConfig, path: Path) -> RunDir:
    train(replace(config, run_dir=path))
    return RunDir(path)


def weights(run: RunDir) -> str:
    return run.load().adapter_sha256["adapter_model.safetensors"]


def finish(config: TrainConfig) -> None:
    """Do what the tool says: start, and resume where it says that there is something to resume."""
    try:
        train(replace(config, overwrite=False))
    except UserError as error:
        if "interrupted run" not in error.message:
            raise
        train(replace(config, overwrite=False, resume=True))


@faults((7,))
def test_a_first_training_killed_anywhere_is_continued_or_begun(
    short: TrainConfig, expected: str, tmp_path: Path, fault: int, moments: Iterable[int]
) -> None:
    for moment in moments:
        run = RunDir(tmp_path / str(moment))
        config = replace(short, run_dir=run.path)
        is_met = meets(fault, run.path, moment, train, config)
        if not (run.record.exists() and not run.unfinished.exists()):
            finish(config)
        assert weights(run) == expected
        if not is_met:
            return


@faults((44, 57))
def test_a_finished_run_stays_until_its_successor_is_whole(
    trained: RunDir, short: TrainConfig, expected: str, tmp_path: Path, fault: int, moments: Iterable[int]
) -> None:
    before = weights(trained)
    for moment in moments:
        run = RunDir(tmp_path / str(moment))
        shutil.copytree(trained.path, run.path)
        config = replace(short, run_dir=run.path, overwrite=True)
        is_met = meets(fault, run.path, moment, train, config)
        assert weights(run) in (before, expected)
        if run.unfinished.exists():
            train(replace(config, overwrite=False, resume=True))
        elif weights(run) == before:
            train(config)
        assert weights(run) == expected
        if not is_met:
            return


@pytest.mark.slow
def test_killed_at_sixty_random_moments(trained: RunDir, toy_config: TrainConfig, tmp_path: Path) -> None:
    """Each time the successor of a finished run goes on from where it was, until it is whole."""
    straight = replace(toy_config, epochs=12, seed=5)
    started = time.monotonic()
    expected = weights(train_at(straight, tmp_path / "straight"))
    duration = time.monotonic() - started
    before, rng, killed, number = weights(trained), random.Random(0), 0, 0
    while killed < 60:
        number += 1
        run = RunDir(tmp_path / str(number))
        shutil.copytree(trained.path, run.path)
        config = replace(straight, run_dir=run.path, overwrite=True)
        while is_killed_after(rng.uniform(0, 1.2) * duration, train, config):
            killed += 1
            assert weights(run) in (before, expected)
            if run.unfinished.exists():
                config = replace(config, overwrite=False, resume=True)
            elif weights(run) == expected:
                break
        assert weights(run) == expected


@faults((3,))
def test_an_interrupted_run_is_replaced_by_another_or_stays(
    short: TrainConfig, tmp_path: Path, fault: int, moments: Iterable[int]
) -> None:
    old = RunDir(tmp_path / "old")
    assert is_killed(old.path, "run.partial", train, replace(short, run_dir=old.path))
    for moment in moments:
        run = RunDir(tmp_path / str(moment))
        shutil.copytree(old.path, run.path)
        config = replace(short, run_dir=run.path, seed=6, overwrite=True)
        is_met = meets(fault, run.path, moment, train, config)
        if run.unfinished.exists():
            started = read_record(run.unfinished, UnfinishedRun).config
            train(replace(started, run_dir=run.path, overwrite=False, resume=True))
            assert run.load().training.config.seed == started.seed  # type: ignore[union-attr]
        elif not run.record.exists():
            train(replace(config, overwrite=False))
        if not is_met:
            return


@pytest.mark.parametrize(
    ("seed", "place"), [(1, "checkpoint-32"), (2, "checkpoint-32/.whole.json"), (3, "run.partial/adapter")]
)
def test_a_moved_run_is_resumed_to_the_bit(toy_config: TrainConfig, tmp_path: Path, seed: int, place: str) -> None:
    """Killed inside an epoch, before a checkpoint was marked, and after the last epoch, the best being another one."""
    config = replace(toy_config, epochs=4, seed=seed, learning_rate=0.05)
    straight = train_at(config, tmp_path / "straight")
    assert is_killed(tmp_path / "run", place, train, replace(config, run_dir=tmp_path / "run"))
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = train_at(replace(config, resume=True), tmp_path / "moved")
    assert weights(moved) == weights(straight)
    assert moved.load().training.epochs == straight.load().training.epochs  # type: ignore[union-attr]


@contextlib.contextmanager
def restored(folder: Path) -> Iterator[None]:
    """Put a folder back as it was."""
    kept = shutil.copytree(folder, folder.with_name("kept"))
    yield
    shutil.rmtree(folder)
    Path(kept).rename(folder)


def test_the_newest_whole_checkpoint_is_taken_whatever_the_clock_says(toy_config: TrainConfig, tmp_path: Path) -> None:
    config = replace(toy_config, epochs=3, run_dir=tmp_path / "run")
    assert is_killed(config.run_dir, "run.partial", train, config)
    checkpoints = RunDir(config.run_dir).checkpoints
    newest = last_checkpoint(checkpoints)
    assert newest == str(checkpoints / "checkpoint-48")
    for step, name in ((5, "checkpoint-5"), (6, "checkpoint-nonsense")):  # as an older version left them
        (checkpoints / name).mkdir()
        (checkpoints / name / "trainer_state.json").write_text(f'{{"global_step": {step}}}')
    assert last_checkpoint(checkpoints) == newest
    for damage in ("whole.json", "optimizer.pt"):
        with restored(Path(newest)):
            (Path(newest) / damage).unlink()
            assert last_checkpoint(checkpoints) != newest
    with restored(Path(newest)):
        (Path(newest) / "adapter_model.safetensors").write_bytes(b"cut off")
        assert last_checkpoint(checkpoints) != newest


def test_a_run_that_early_stopping_had_ended_trains_no_further(toy_config: TrainConfig, tmp_path: Path) -> None:
    config = replace(toy_config, epochs=20, learning_rate=0.1, early_stopping_patience=1)
    straight = train_at(config, tmp_path / "straight").load().training
    assert straight
    assert len(straight.epochs) < 20
    run = tmp_path / "run"
    assert is_killed(run, "run.partial", train, replace(config, run_dir=run))
    resumed = train_at(replace(config, resume=True), run)
    assert resumed.load().training.epochs == straight.epochs  # type: ignore[union-attr]
    assert weights(resumed) == weights(RunDir(tmp_path / "straight"))


@faults((9,))
def test_an_adoption_killed_anywhere_leaves_the_old_run_or_the_new(
    trained: RunDir, topics_csv: Path, tmp_path: Path, fault: int, moments: Iterable[int]
) -> None:
    config = AdoptConfig(trained.adapter, dataset=str(topics_csv), label_names=NAMES)
    first = tmp_path / "first"
    adopt(replace(config, run_dir=first))
    for moment in moments:
        run = RunDir(tmp_path / str(moment))
        shutil.copytree(first, run.path)
        again = replace(config, max_length=16, run_dir=run.path)
        is_met = meets(fault, run.path, moment, adopt, again)
        assert run.load().max_length in (24, 16, RunDir(first).load().max_length)
        assert adopt(again).max_length == 16
        if not is_met:
            return


NAMES = ("food", "money", "music", "sport")


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory: pytest.TempPathFactory) -> PretrainConfig:
    folder = tmp_path_factory.mktemp("pretraining")
    (folder / "texts.txt").write_text("\n".join(text for text, _ in make_texts(60)))
    config = PretrainConfig(
        text=(folder / "texts.txt",),
        vocabulary=256,
        width=64,
        layers=1,
        batch_tokens=128,
        max_length=32,
        device="cpu",
        precision="fp32",
        output_dir=folder / "model",
    )
    pretrain(config)
    return config


@faults((60,))
def test_a_pretraining_killed_anywhere_leaves_the_old_checkpoint_or_one_to_continue(
    pretraining: PretrainConfig, tmp_path: Path, fault: int, moments: Iterable[int]
) -> None:
    before = file_sha256(OutputDir(pretraining.output_dir).weights)
    for moment in moments:
        output = OutputDir(tmp_path / str(moment))
        shutil.copytree(pretraining.output_dir, output.path)
        config = replace(pretraining, output_dir=output.path, seed=7, overwrite=True)
        is_met = meets(fault, output.path, moment, pretrain, config)
        is_old = output.weights.exists() and file_sha256(output.weights) == before
        is_new = (output.path / "run.partial" / "pretrain.json").exists() or not output.unfinished.exists()
        assert is_old or is_new or read_record(output.record, PretrainRecord).config.seed == 7
        if output.unfinished.exists():
            record = pretrain(replace(config, overwrite=False, resume=True))
        else:
            record = pretrain(config)
        assert record
        assert record.config.seed == 7
        assert file_sha256(output.weights) == record.weights_sha256
        if not is_met:
            return


@pytest.mark.parametrize("command", ["train", "adopt", "pretrain"])
def test_a_folder_in_use_is_refused_and_left_alone(
    toy_config: TrainConfig, pretraining: PretrainConfig, topics_csv: Path, tmp_path: Path, command: str
) -> None:
    start: dict[str, Callable[[], object]] = {
        "train": lambda: train(replace(toy_config, run_dir=tmp_path, overwrite=True)),
        "adopt": lambda: adopt(AdoptConfig(tmp_path, dataset=str(topics_csv), run_dir=tmp_path)),
        "pretrain": lambda: pretrain(replace(pretraining, output_dir=tmp_path, overwrite=True)),
    }
    with hold(tmp_path):
        with pytest.raises(UserError, match=r"is used by another command: `.*python.* started "):
            start[command]()
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert not list(tmp_path.iterdir())
