"""Adapters and checkpoints that were trained elsewhere are exported like our own, or refused with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local_worker import LocalWorker
from safetensors.torch import load_file, save_file
from toys import TOPICS, make_texts, write_csv

import exporter.__main__
import trainer.adopt.__main__
from exporter.export import export
from exporter.proof.reference import load_trained
from exporter.records import load_export
from exporter.runtime import Classifier
from trainer.data import read_examples
from trainer.run import RunDir

Command = Callable[..., tuple[int, str, str]]

NAMES = tuple(TOPICS)

EXPORTER = partial(exporter.__main__.main, partial(export, start=LocalWorker))


@pytest.fixture
def adapter(trained: RunDir, tmp_path: Path) -> Path:
    """A folder as peft saves it: two files, no tokenizer, no label names."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(trained.adapter / name, folder / name)
    return folder


@pytest.fixture
def merged(exported: RunDir, tmp_path: Path) -> Path:
    """A folder as transformers saves it."""
    folder = tmp_path / "merged"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(exported.export / "pytorch-fp32" / name, folder / name)
    return folder


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "reviews.csv", list(make_texts(120, seed=9, longest=20)))


@pytest.fixture
def adopt(command: Command, tmp_path: Path, texts: Path) -> Callable[..., tuple[int, str, str]]:
    """Runs the exporter on a folder from elsewhere."""

    def run(folder: Path, *flags: object, dataset: Path = texts) -> tuple[int, str, str]:
        every = ["--adapter", folder, "--dataset", dataset, "--run-dir", tmp_path / "run", "--verify-samples", 8]
        return command(EXPORTER, *every, *flags)

    return run


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_peft_folder_is_exported_and_answers_as_it_did(
    adapter: Path, adopt: Command, trained: RunDir, tmp_path: Path
) -> None:
    status, out, _ = adopt(adapter, "--label-names", *NAMES, "--max-length", 24, "--quantize", "weight-only")
    assert status == 0
    run = RunDir(tmp_path / "run")
    record, texts = load_export(run), [text for text, _ in make_texts(20, seed=4)]
    answers = Classifier.load(run.export / "onnx-fp32").logits(texts)
    np.testing.assert_allclose(answers, load_trained(trained).logits(texts), atol=1e-4)
    adopted = run.load().adopted
    assert adopted
    assert (adopted.adapter, adopted.label_names, adopted.max_length) == (adapter, NAMES, 24)
    assert record.score > 0.8
    assert f"accuracy of onnx-fp32: {record.score:.2%} on {record.texts} evaluation texts\n" in out
    card = (run.export / "onnx-fp32" / "README.md").read_text()
    assert "It was trained elsewhere on top of `checkpoint" in card
    assert "best epoch" not in card
    parts = [read_examples(path, NAMES).texts for path in (run.evaluation, run.calibration)]
    assert [len(part) for part in parts] == [96, 24]  # at most a fifth for calibration
    assert not set(parts[0]) & set(parts[1])


def test_a_merged_checkpoint_is_exported_with_its_own_names(
    merged: Path, adopt: Command, exported: RunDir, tmp_path: Path
) -> None:
    assert adopt(merged)[0] == 0
    run, texts = RunDir(tmp_path / "run"), [text for text, _ in make_texts(20, seed=4, longest=15)]
    classifier = Classifier.load(run.export / "onnx-fp32")
    assert classifier.artifact.label_names == NAMES
    assert classifier.artifact.max_length == 64  # the model's positions
    expected = Classifier.load(exported.export / "onnx-fp32").logits(texts)
    np.testing.assert_allclose(classifier.logits(texts), expected, atol=1e-4)


def test_names_in_another_order_are_noticed_by_the_accuracy(adapter: Path, adopt: Command) -> None:
    status, out, _ = adopt(adapter, "--label-names", *NAMES[1:], NAMES[0])
    assert status == 0
    assert "worse than guessing among 4; are its labels in another order?" in out


def test_integers_need_no_names(adapter: Path, adopt: Command, tmp_path: Path) -> None:
    rows = [(text, NAMES.index(topic)) for text, topic in make_texts(60, seed=9)]
    assert adopt(adapter, dataset=write_csv(tmp_path / "numbers.csv", list(rows)))[0] == 0
    assert load_export(RunDir(tmp_path / "run")).score > 0.8


NAMED = ("--label-names", *NAMES)


def keep(folder: Path, which: Callable[[str], bool]) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name: w for name, w in load_file(path).items() if which(name)}, path)


def no_head(folder: Path) -> None:
    keep(folder, lambda name: ".classifier." not in name)


def two_topics(folder: Path) -> Path:
    return write_csv(folder / "two.csv", [row for row in make_texts(60) if row[1] in NAMES[:2]])


REFUSED: dict[str, tuple[Callable[[Path], Any], tuple[object, ...], str]] = {
    "no names": (lambda _: None, (), "the order of the classifier's labels is not known"),
    "no head": (no_head, ("--label-names", *NAMES), "nor its base has `classifier."),
    "other head": (
        two_topics,
        ("--label-names", *NAMES[:2]),
        "of the adapter has the shape [4], and 2 labels need [2]",
    ),
    "unseen class": (two_topics, ("--label-names", *NAMES), "has no text with the label `music`"),
    "other names": (
        lambda _: None,
        ("--label-names", *"abcd"),
        "has the label `food`, and the classifier's labels are a",
    ),
    "prompt": (lambda folder: edit(folder / "adapter_config.json", peft_type="PROMPT_TUNING"), (), "cannot be merged"),
    "unknown": (
        lambda folder: edit(folder / "adapter_config.json", peft_type="NEWEST"),
        (),
        "does not know the adapter",
    ),
    "pointer": (
        lambda folder: (folder / "adapter_model.safetensors").write_text("version https://git-lfs"),
        ("--label-names", *NAMES),
        "is not a safetensors file",
    ),
    "missing layer": (lambda folder: keep(folder, lambda name: "layer.1" not in name), NAMED, "does not fit its base"),
    "other rank": (lambda folder: edit(folder / "adapter_config.json", r=4), NAMED, "does not fit its base"),
    "pickle": (
        lambda folder: (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin"),
        (),
        "has no `adapter_model.safetensors`",
    ),
    "task": (
        lambda folder: edit(folder / "adapter_config.json", task_type="TOKEN_CLS"),
        (),
        "classifies single tokens",
    ),
    "no base": (
        lambda folder: edit(folder / "adapter_config.json", base_model_name_or_path=None),
        (),
        "does not name its base model",
    ),
    "base gone": (
        lambda folder: edit(folder / "adapter_config.json", base_model_name_or_path="/gone"),
        (),
        "no checkpoint folder `/gone`",
    ),
    "damaged": (lambda folder: (folder / "adapter_config.json").write_text("{"), (), "is not a JSON object"),
    "empty": (lambda folder: [path.unlink() for path in folder.iterdir()], (), "has no `config.json`"),
    "absent": (shutil.rmtree, (), "no folder `"),
    "too long": (lambda _: None, ("--label-names", *NAMES, "--max-length", 65), "more than this model's 64 positions"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_whole_classifier_is_refused(adapter: Path, adopt: Command, tmp_path: Path, what: str) -> None:
    change, flags, message = REFUSED[what]
    changed = change(adapter)
    status, out, err = adopt(
        adapter, *flags, **({"dataset": changed} if what in ("other head", "unseen class") else {})
    )
    assert (status, out) == (2, "")
    assert message in err
    assert "hint: " in err
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("written", ["names", "integers"])
def test_a_dataset_that_counts_its_classes_otherwise_is_read_by_their_names(
    merged: Path, adopt: Command, tmp_path: Path, written: str
) -> None:
    """Integers that the dataset itself names, in another order than the checkpoint's."""
    import datasets

    order = tuple(reversed(NAMES))
    texts, topics = zip(*make_texts(60, seed=9), strict=True)
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=order)})
    rows = datasets.Dataset.from_dict({"text": texts, "label": [order.index(t) for t in topics]}, features=features)
    path = tmp_path / "reviews.parquet"
    if written == "integers":
        rows.to_parquet(path)
    else:
        path = write_csv(tmp_path / "reviews.csv", list(zip(texts, topics, strict=True)))
    assert adopt(merged, dataset=path)[0] == 0
    run = RunDir(tmp_path / "run")
    truth = dict(zip(texts, topics, strict=True))
    found = read_examples(run.evaluation, NAMES)
    assert [NAMES[label] for label in found.labels] == [truth[text] for text in found.texts]
    assert load_export(run).score > 0.8


def test_code_in_a_checkpoint_is_never_run(merged: Path, adopt: Command, tmp_path: Path) -> None:
    (merged / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    edit(merged / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"})
    status, _, err = adopt(merged)
    assert status == 2
    assert "error: " in err
    assert not (tmp_path / "ran").exists()


def test_more_classes_than_calibration_texts(adopt: Command, tmp_path: Path, checkpoint: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    names = [f"class {i}" for i in range(70)]
    model = AutoModelForSequenceClassification.from_pretrained(
        checkpoint, num_labels=70, id2label=dict(enumerate(names))
    )
    folder = tmp_path / "many"
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(checkpoint / name, folder / name)
    rows = [(f"{text} {names[i % 70].split()[1]}", names[i % 70]) for i, (text, _) in enumerate(make_texts(420))]
    assert adopt(folder, dataset=write_csv(tmp_path / "many.csv", list(rows)))[0] == 0


def test_a_base_that_moved_is_named(adapter: Path, adopt: Command, checkpoint: Path) -> None:
    edit(adapter / "adapter_config.json", base_model_name_or_path="/gone")
    assert adopt(adapter, "--label-names", *NAMES, "--model", checkpoint)[0] == 0
    assert load_export(RunDir(adapter.parent / "run")).score > 0.8


def test_a_trained_run_is_never_replaced(
    adapter: Path, command: Command, trained: RunDir, copy_of: Callable[[RunDir], RunDir], texts: Path
) -> None:
    trained = copy_of(trained)
    (trained.path / "run.partial").mkdir()
    flags = ["--adapter", adapter, "--dataset", texts, "--label-names", *NAMES, "--run-dir", trained.path]
    status, _, err = command(EXPORTER, *flags)
    assert status == 2
    assert "already holds a trained run" in err
    assert trained.load().training is not None


def test_the_same_adapter_again_is_the_same_run_and_another_one_replaces_it(
    adapter: Path, merged: Path, command: Command, texts: Path, tmp_path: Path
) -> None:
    run = RunDir(tmp_path / "run")
    flags = ("--dataset", texts, "--label-names", *NAMES, "--run-dir", run.path)
    assert command(trainer.adopt.__main__.main, adapter, *flags)[0] == 0
    first = run.record.read_bytes()
    run.export_record.write_text("of the first")
    (run.path / "run.partial").mkdir()  # as an interruption in the middle of the exchange leaves it
    run.record.rename(run.path / "run.partial" / "run.json")
    assert command(trainer.adopt.__main__.main, adapter, *flags)[0] == 0
    assert run.record.read_bytes() == first
    assert command(trainer.adopt.__main__.main, merged, *flags)[0] == 0
    assert not run.has_adapter()
    assert {path.name for path in run.path.iterdir()} == {"run.json", "adapter", "data", "export.json"}


def test_a_folder_with_other_files_is_left_alone(adapter: Path, adopt: Command, tmp_path: Path) -> None:
    (tmp_path / "run" / "data").mkdir(parents=True)
    (tmp_path / "run" / "data" / "mine.txt").write_text("precious")
    status, _, err = adopt(adapter, "--label-names", *NAMES)
    assert status == 2
    assert "holds no adopted run" in err
    assert (tmp_path / "run" / "data" / "mine.txt").exists()


def test_the_command_makes_a_run_and_names_the_next_one(
    adapter: Path, command: Command, texts: Path, tmp_path: Path
) -> None:
    flags = ["--dataset", texts, "--label-names", *NAMES, "--run-dir", tmp_path / "run"]
    status, out, err = command(trainer.adopt.__main__.main, adapter, *flags)
    assert (status, err.splitlines()) == (
        0,
        [f'reads {texts}: 120 rows, separated by commas, text in "text", label in "label"'],
    )
    record = RunDir(tmp_path / "run").load(calibration=True)
    assert (record.training, record.label_names) == (None, NAMES)
    assert "labels food, money, music, sport, 96 evaluation texts, up to 64 tokens\n" in out
    assert out.endswith(f"\nnext: python -m exporter --quantize --run-dir {tmp_path / 'run'}\n")


def test_the_exporter_adopts_only_with_an_adapter(adapter: Path, command: Command, tmp_path: Path) -> None:
    for flags, message in (
        (["--dataset", "x.csv"], "`--dataset` needs `--adapter`"),
        (["--max-length", 9], "`--max-length` needs `--adapter`"),
        (["--adapter", adapter], "an adapter from elsewhere needs texts to be checked on"),
    ):
        status, out, err = command(EXPORTER, *flags, "--run-dir", tmp_path / "run")
        assert (status, out) == (2, "")
        assert f"error: {message}\n\nhint: add `--" in err
    assert not (tmp_path / "run").exists()
