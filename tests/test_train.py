"""A training run learns, leaves exactly what it says, can be repeated and resumed, and guards what is there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from toys import INTERRUPTED, TOKENIZER_FILES, make_texts, start, write_csv

import trainer.__main__
from trainer.config import TrainConfig
from trainer.data import read_examples
from trainer.errors import UserError
from trainer.records import read_record, write_record
from trainer.run import RunDir, Training, TrainRecord, reload_splits
from trainer.tasks import MultiLabel, SingleLabel, Task
from trainer.training.hardware import choose_device, choose_hardware, choose_precision, gain_of_bf16
from trainer.training.loop import CheckpointKeeper, scores_of
from trainer.training.resume import STATE, last_checkpoint, seal_checkpoint
from trainer.training.train import train

Command = Callable[..., tuple[int, str, str]]

LEFT = {
    "run.json",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "data/calibration.jsonl",
    "data/evaluation.jsonl",
} | {f"adapter/{name}" for name in TOKENIZER_FILES}


def training_of(run: RunDir) -> Training:
    training = run.load().training
    assert training is not None
    return training


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_it_learns_the_rule_and_leaves_exactly_its_files(trained: RunDir) -> None:
    record, training = trained.load(), training_of(trained)
    assert files(trained.path) == LEFT
    assert training.best.accuracy > 0.8  # chance is 0.25
    assert record.label_names == ("food", "money", "music", "sport")
    assert (training.train_texts, record.evaluation_texts) == (128, 32)
    assert (training.best.accuracy, -training.best.loss) == max((e.accuracy, -e.loss) for e in training.epochs)


def test_calibration_texts_are_training_texts(trained: RunDir, topics_csv: Path) -> None:
    names = trained.load().label_names
    calibration, evaluation = (read_examples(path, names) for path in (trained.calibration, trained.evaluation))
    assert len(set(calibration.texts)) == 64
    assert not set(calibration.texts) & set(evaluation.texts)
    assert set(calibration.texts) <= {line.rpartition(",")[0] for line in topics_csv.read_text().splitlines()}


def test_the_kept_weights_are_those_of_the_best_epoch(trained: RunDir) -> None:
    """Score the saved adapter on the saved texts: the loss must be the best epoch's."""
    from exporter.proof.reference import load_trained

    record = trained.load()
    examples = read_examples(trained.evaluation, record.label_names)
    logits = torch.from_numpy(load_trained(trained).logits(examples.texts))
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(examples.labels))
    assert float(loss) == pytest.approx(training_of(trained).best.loss, abs=1e-5)


def test_the_adapter_is_named_after_its_base_and_knows_no_cache(trained: RunDir, toy_config: TrainConfig) -> None:
    config = json.loads((trained.adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(Path(toy_config.model or "").resolve())


def test_a_run_can_be_repeated_from_its_record(
    trained: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a process that has trained in another precision before, which leaves this variable."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    config = training_of(trained).config
    train(replace(config, run_dir=tmp_path / "again"))
    first, again = (
        load_file(run.adapter / "adapter_model.safetensors") for run in (trained, RunDir(tmp_path / "again"))
    )
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_training_data_is_read_again_as_it_was(toy_config: TrainConfig, tmp_path: Path) -> None:
    """From where it was found, whatever the working directory, and refused when it is not the same."""
    rows = make_texts(80)
    theirs, mine = (
        write_csv(tmp_path / name, list(part)) for name, part in (("a.csv", rows[:60]), ("b.csv", rows[60:]))
    )
    config = replace(toy_config, dataset=str(theirs), epochs=1, run_dir=tmp_path / "run")
    with contextlib.chdir(tmp_path):
        train(replace(config, dataset="a.csv", eval_dataset="b.csv", max_train_samples=40))
    record = RunDir(config.run_dir).load()
    splits = reload_splits(record)
    assert splits.evaluation == read_examples(RunDir(config.run_dir).evaluation, record.label_names)
    assert len(splits.train) == 40
    assert not set(splits.train.texts) & set(splits.evaluation.texts)
    with mine.open("a") as file:
        file.write("one more text,food\n")
    with pytest.raises(UserError, match="the training data of this run has changed since"):
        reload_splits(record)
    assert record.training is not None
    with pytest.raises(UserError, match="too old to recognise its training data"):
        reload_splits(replace(record, training=replace(record.training, data_sha256="")))
    with pytest.raises(UserError, match="trained elsewhere"):
        reload_splits(replace(record, training=None))


def test_only_whoever_needs_calibration_texts_misses_them(trained: RunDir, copy_of: Callable[[RunDir], RunDir]) -> None:
    run = copy_of(trained)
    write_record(run.record, replace(run.load(), calibration_sha256=""))  # as in the oldest runs
    run.calibration.unlink()
    assert run.load().calibration_sha256 == ""
    with pytest.raises(UserError, match="too old: it has no calibration texts") as error:
        run.load(calibration=True)
    assert "run `python -m trainer --overwrite` again" in error.value.hint


def test_fewer_epochs_without_a_gain_stop_the_run(toy_config: TrainConfig, tmp_path: Path) -> None:
    config = replace(toy_config, epochs=30, learning_rate=0.1, early_stopping_patience=1, run_dir=tmp_path / "run")
    result = train(config)
    assert result is not None
    epochs = result.training.epochs
    assert len(epochs) < 30
    assert result.training.best_epoch == epochs[-1].epoch - 1


def test_divergence_is_an_error_and_no_run(toy_config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="diverged"):
        train(replace(toy_config, learning_rate=1e30, epochs=1, run_dir=tmp_path / "run"))
    assert not RunDir(tmp_path / "run").record.exists()


def test_an_existing_run_is_not_replaced_unless_asked(trained: RunDir, copy_of: Callable[[RunDir], RunDir]) -> None:
    run = copy_of(trained)
    config = replace(training_of(run).config, run_dir=run.path, epochs=1)
    with pytest.raises(UserError, match="already holds") as error:
        train(config)
    assert "--overwrite" in error.value.hint
    train(replace(config, overwrite=True))
    assert len(training_of(run).epochs) == 1
    assert files(run.path) == LEFT


@pytest.mark.parametrize("overwrite", [True, False])
def test_training_never_deletes_what_is_not_a_run(toy_config: TrainConfig, tmp_path: Path, *, overwrite: bool) -> None:
    mine = {"data/texts.csv", "adapter/mine.txt", "checkpoints/config.json", "run.json"}
    for name in mine:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match="holds no run"):
        train(replace(toy_config, run_dir=tmp_path, overwrite=overwrite))
    assert files(tmp_path) == mine


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_run_directory_that_cannot_be_is_refused(toy_config: TrainConfig, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        train(replace(toy_config, run_dir=tmp_path / place))


def test_resuming_nothing_is_an_error(toy_config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no interrupted run"):
        train(replace(toy_config, run_dir=tmp_path, resume=True))


def flags_of(config: TrainConfig) -> list[str]:
    names = ("model", "dataset", "learning_rate", "max_length", "device", "precision", "run_dir")
    return [part for name in names for part in (f"--{name.replace('_', '-')}", str(getattr(config, name)))]


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_what_it_would_have_been(
    command: Command, toy_config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(toy_config, run_dir=tmp_path / "run")
    flags = [*flags_of(config), "--epochs", "12"]
    with start([sys.executable, "-m", "trainer", *flags]) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith("epoch 2/12"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode in INTERRUPTED
    assert "error: interrupted" in rest
    assert "--resume" in rest
    assert "Traceback" not in rest
    run = RunDir(config.run_dir)
    assert not run.record.exists()
    with pytest.raises(UserError, match="no trained run"):
        run.load()

    for more, message in (([], "interrupted run"), (["--resume", "--seed", "1"], "`--seed 42`")):
        status, _, err = command(trainer.__main__.main, *flags, *more)
        assert status == 2
        assert message in err

    moved = {**json.loads(run.unfinished.read_text()), "data_sha256": "other"}
    kept = run.unfinished.read_text()
    run.unfinished.write_text(json.dumps(moved))
    status, _, err = command(trainer.__main__.main, *flags, "--resume")
    assert status == 2
    assert "not that of the interrupted run" in err
    run.unfinished.write_text(kept)

    (run.checkpoints / "checkpoint-9999").mkdir()  # as a crash in the middle of saving leaves it
    status, _, err = command(trainer.__main__.main, *flags, "--resume")
    assert status == 0
    assert re.findall(r"epoch (\d+)/12", err)[0] in ("2", "3", "4")
    assert [epoch.epoch for epoch in training_of(run).epochs] == list(range(1, 13))
    assert files(run.path) == LEFT
    train(replace(config, epochs=12, batch_size=16, run_dir=tmp_path / "straight"))
    resumed, straight = (
        load_file(r.adapter / "adapter_model.safetensors") for r in (run, RunDir(tmp_path / "straight"))
    )
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


def test_without_a_network_the_defaults_say_that_the_sample_stands_in(tmp_path: Path) -> None:
    """The command as a new user runs it, asking a Hub that refuses connections."""
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"HF_HOME": str(tmp_path / "cache"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    limits = ["--max-train-samples", "32", "--max-eval-samples", "16", "--epochs", "1", "--max-length", "16"]
    line = [sys.executable, "-m", "trainer", "--run-dir", str(tmp_path / "run"), "--device", "cpu", *limits]
    done = subprocess.run(line, capture_output=True, text=True, check=True, env=environment)
    assert done.stderr.count("WARNING: the Hugging Face Hub cannot be reached") == 2
    record = read_record(tmp_path / "run" / "run.json", TrainRecord)
    assert (record.base.name, record.base.stands_in_for) == ("sample", "distilbert-base-uncased")
    assert (record.dataset.name, record.dataset.stands_in_for) == ("sample", "stanfordnlp/imdb")


def test_without_a_network_a_model_that_was_named_is_an_error(command: Command, tmp_path: Path) -> None:
    flags = ["--model", "distilbert-base-uncased", "--dataset", "sample", "--run-dir", tmp_path / "run"]
    status, _, err = command(trainer.__main__.main, *flags)
    assert status == 2
    assert "error: cannot reach the Hugging Face Hub for `distilbert-base-uncased`" in err


def test_the_summary_gives_scores_examples_and_the_next_command(
    command: Command, toy_config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(toy_config, run_dir=tmp_path / "run")
    status, out, err = command(trainer.__main__.main, *flags_of(config), "--epochs", 1)
    assert status == 0
    record = training_of(RunDir(config.run_dir))
    assert f"accuracy {record.best.accuracy:.1%}" in out
    assert f"evaluation loss {record.best.loss:.3f}" in out
    assert sum(" (labelled " in line for line in out.splitlines()) == 4
    assert f"next: python -m exporter --quantize --run-dir {config.run_dir}" in out
    assert f"training {record.trainable_parameters:,} of {record.total_parameters:,} parameters" in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="no `cuda` device"):
        choose_device("cuda")


def test_precision_is_bf16_only_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert choose_precision("auto", "cpu", lambda: 1.5) == "bf16"
    assert choose_precision("auto", "cpu", lambda: 1.1) == "fp32"
    times = {torch.float32: iter([9.0, *[3.0] * 7]), torch.bfloat16: iter([2.0] * 8)}
    assert gain_of_bf16(lambda dtype: next(times[dtype])) == 1.5
    assert gain_of_bf16() > 0
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": False})
    assert choose_precision("auto", "cpu") == "fp32"
    assert choose_precision("auto", "mps") == "fp32"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert choose_precision("auto", "cuda") == "fp32"
    with pytest.raises(UserError, match="fp16"):
        choose_precision("fp16", "cpu")


def test_a_resumed_run_keeps_its_precision_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert choose_hardware("cpu", "auto", "fp32").precision == "fp32"
    assert choose_hardware("cpu", "auto", "bf16").precision == "bf16"
    assert choose_hardware("cpu", "fp32", "bf16").precision == "fp32"
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert choose_hardware("cpu", "auto", "bf16").precision == "fp32"


def test_the_first_of_several_processes_chooses_the_precision_of_all() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    script = """if True:
        import os, torch
        from trainer.training import hardware
        rank = int(os.environ["RANK"])
        torch.cpu.get_capabilities = lambda: {"amx_bf16": True}
        hardware.gain_of_bf16 = lambda: 2.0 - rank
        chosen = hardware.choose_hardware("cpu", "auto").precision
        os.write(1, f"{rank} {chosen}\\n".encode())  # at once: both processes write to the same pipe
    """
    ended = subprocess.run([*command, "--no-python", sys.executable, "-c", script], capture_output=True, text=True)
    assert sorted(ended.stdout.split("\n"))[1:] == ["0 bf16", "1 bf16"], ended.stderr


def test_batches_on_a_cpu_have_few_widths(toy_config: TrainConfig, tmp_path: Path) -> None:
    """For each width, libraries keep what they compile: with all of them, memory would grow all the time."""
    seen = set()

    def look(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, torch.nn.Embedding) and torch.is_grad_enabled():
            seen.add(inputs[0].shape[-1])

    hook = torch.nn.modules.module.register_module_forward_pre_hook(look)
    try:
        train(replace(toy_config, epochs=1, run_dir=tmp_path / "run"))
    finally:
        hook.remove()
    assert seen == {16, toy_config.max_length}


# --- which epoch is kept


@pytest.mark.parametrize(
    ("best", "entry", "is_refused"), [(5, {}, True), (5, {"eval_merit": 0.9}, False), (None, {}, False)]
)
def test_a_run_whose_best_epoch_was_chosen_otherwise_is_not_resumed(
    tmp_path: Path, best: int | None, entry: dict[str, float], is_refused: bool
) -> None:
    checkpoint = tmp_path / "checkpoint-5"
    checkpoint.mkdir()
    state = {"best_global_step": best, "log_history": [{"loss": 1.0}, {"eval_loss": 0.3, "step": 5, **entry}]}
    (checkpoint / STATE).write_text(json.dumps(state))
    seal_checkpoint(checkpoint)
    if is_refused:
        with pytest.raises(UserError, match="kept the epoch of the lowest loss, as older versions did"):
            last_checkpoint(tmp_path)
    else:
        assert last_checkpoint(tmp_path) == str(checkpoint)


def merit(
    task: Task, rows: list[list[float]], truth: list[int] | list[list[int]], *, is_balanced: bool = False
) -> float:
    prediction = transformers.EvalPrediction(np.array(rows, np.float32), np.array(truth, np.float32))
    found: float = scores_of(task, is_balanced=is_balanced)(prediction)["merit"]
    return found


def test_the_merit_of_an_epoch_is_what_it_gets_right_and_by_its_loss_only_where_that_is_alike() -> None:
    truth = [0, 0, 0, 1]
    careful, sure = [[0.1, 0], [0.1, 0], [0, 0.1], [0.1, 0]], [[9, 0], [9, 0], [0, 9], [0, 9]]
    task = SingleLabel(2)
    assert task.loss(np.array(careful), np.array(truth)) < task.loss(np.array(sure), np.array(truth))
    assert merit(task, sure, truth) > merit(task, careful, truth)
    assert merit(task, sure[:2], truth[:2]) > merit(task, careful[:2], truth[:2]), "both are right: the loss decides"
    majority = [[1.0, 0.0]] * 4
    one_more = [[1, 0], [0, 1], [0, 1], [0, 1]]  # wrong twice, but not about the rare label
    assert merit(task, majority, truth) > merit(task, one_more, truth)
    assert merit(task, majority, truth, is_balanced=True) < merit(task, one_more, truth, is_balanced=True)
    several = [[1, 0], [0, 1]]
    right_order = [[-3.0, -4.0], [-4.0, -3.0]]  # below the threshold of any label, but in order
    assert merit(MultiLabel(2, (0.5, 0.5)), right_order, several) == pytest.approx(1, abs=1e-4)


def test_answers_that_are_no_numbers_end_a_training_of_several_labels_in_words() -> None:
    """The library that scores them would speak first."""
    with pytest.raises(UserError, match="training diverged"):
        merit(MultiLabel(2, (0.5, 0.5)), [[float("nan"), 0.0], [0.0, 1.0]], [[1, 0], [0, 1]])


def test_the_epoch_of_the_highest_merit_is_kept(
    toy_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merits, weights = iter([0.1, 0.9, 0.5]), []

    def scores(task: Task, *, is_balanced: bool) -> Callable[[transformers.EvalPrediction], dict[str, Any]]:
        score = scores_of(task, is_balanced=is_balanced)
        return lambda prediction: score(prediction) | {"merit": next(merits)}

    save = CheckpointKeeper.on_save

    def on_save(self: CheckpointKeeper, *arguments: Any, **values: Any) -> None:
        weights.append({name: w.detach().clone() for name, w in values["model"].named_parameters() if w.requires_grad})
        save(self, *arguments, **values)

    monkeypatch.setattr("trainer.training.train.scores_of", scores)
    monkeypatch.setattr(CheckpointKeeper, "on_save", on_save)
    run = RunDir(tmp_path / "run")
    train(replace(toy_config, epochs=3, run_dir=run.path))
    training = run.load().training
    assert training
    assert (training.best_epoch, training.best.epoch, len(training.epochs)) == (2, 2, 3)
    kept = {name.replace(".weight", ""): w for name, w in load_file(run.adapter / "adapter_model.safetensors").items()}
    second, third = (
        {n.replace(".default", "").replace(".weight", ""): w for n, w in own.items()} for own in weights[1:]
    )
    name = next(name for name in kept if name.endswith("lora_B") and name in second)
    assert torch.equal(kept[name], second[name])
    assert not torch.equal(kept[name], third[name])
