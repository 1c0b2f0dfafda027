"""A student learns its teacher's answers: which layers it has, what it is asked for, what its run holds."""

from __future__ import annotations

import math
import re
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from local_worker import LocalWorker
from toys import INTERRUPTED, make_texts, start, write_csv
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, set_seed

import trainer.__main__
from exporter.config import ExportConfig
from exporter.export import export
from exporter.int8.select import describe_verdict
from exporter.proof.against import Other
from exporter.proof.reference import load_trained
from exporter.records import ExportRecord
from exporter.report import summary
from exporter.subject import Subject
from trainer.config import TrainConfig
from trainer.data import read_examples
from trainer.data.load import load_splits
from trainer.data.numbering import number_labels
from trainer.data.sources import Base, Source
from trainer.errors import UserError
from trainer.flags import flag_of
from trainer.model.load import load_classifier
from trainer.records import file_sha256, write_record
from trainer.run import RunDir, Teaching, UnfinishedRun, reload_splits
from trainer.student.layers import evenly, take_layers
from trainer.student.lessons import Lessons, read_unlabelled
from trainer.student.loss import LABEL_SHARE, make_loss
from trainer.student.teacher import Teacher, finite
from trainer.training.hardware import Hardware, has_bf16
from trainer.training.resume import begin
from trainer.training.train import train

TOPICS = ("food", "money", "music", "sport")
FP32 = Hardware("cpu", "fp32")


@pytest.fixture(scope="module")
def student_config(trained: RunDir, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A student of one of the teacher's two layers, with all its weights."""
    return TrainConfig(
        teacher=trained.path,
        epochs=2,
        batch_size=8,
        learning_rate=2e-3,
        max_length=24,
        precision="fp32",
        device="cpu",
        run_dir=tmp_path_factory.mktemp("runs") / "student",
    )


@pytest.fixture(scope="module")
def student(student_config: TrainConfig) -> RunDir:
    train(student_config)
    return RunDir(student_config.run_dir)


def answers(run: RunDir, texts: list[str]) -> np.ndarray:
    return load_trained(run).logits(texts)


def weights_of(run: RunDir) -> dict[str, torch.Tensor]:
    return load_trained(run).model.module.state_dict()


@pytest.mark.parametrize(
    ("layers", "kept", "chosen"),
    [(12, 6, [0, 2, 4, 7, 9, 11]), (4, 2, [0, 3]), (6, 3, [0, 2, 5]), (3, 2, [0, 2]), (2, 1, [0])],
)
def test_layers_are_taken_at_even_distances_with_both_ends(layers: int, kept: int, chosen: list[int]) -> None:
    assert evenly(layers, kept) == chosen


def four_layers(kind: str = "distilbert") -> PreTrainedModel:
    set_seed(1)
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "num_labels": 4}
    ends = {f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "cls", "sep")}
    config = AutoConfig.for_model(kind, **sizes, **ends, intermediate_size=32, max_position_embeddings=32)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    return model.eval()


NAMES_KINDS = pytest.mark.skipif(
    version("transformers").startswith("4."), reason="configurations list no kinds of layers"
)


@pytest.mark.parametrize(
    "kind", ["distilbert", "bert", "roberta", pytest.param("modernbert", marks=NAMES_KINDS), "deberta-v2"]
)
def test_a_student_has_exactly_its_teachers_layers_embeddings_and_head(tmp_path: Path, kind: str) -> None:
    teacher = four_layers(kind)
    small = take_layers(teacher, 2)
    before, after = teacher.state_dict(), small.state_dict()
    numbers = {int(part) for name in after for part in name.split(".") if part.isdecimal()}
    assert numbers == {0, 1}
    for name, weight in after.items():
        source = name.replace(".1.", ".3.")
        assert torch.equal(weight, before[source]), name
    small.save_pretrained(tmp_path / "small")
    again, fresh = load_classifier(Base(tmp_path / "small", Source("small", None, None)), TOPICS)
    assert fresh == []
    ids = torch.tensor([[3, 4, 5, 6]])
    assert torch.equal(again.eval()(input_ids=ids).logits, small.eval()(input_ids=ids).logits)


def test_layers_that_would_look_at_other_tokens_are_refused() -> None:
    """Of ModernBERT under transformers 4, every third layer looks at all tokens, by its place."""
    teacher = four_layers()
    teacher.config.global_attn_every_n_layers = 3
    with pytest.raises(UserError, match="some would look at other tokens"):
        take_layers(teacher, 2)
    teacher.config.global_attn_every_n_layers = 2
    assert take_layers(teacher, 2).config.num_hidden_layers == 2


def test_a_model_that_shares_its_layers_is_refused() -> None:
    with pytest.raises(UserError, match="layers cannot be taken out of a `albert`"):
        take_layers(four_layers("albert"), 2)


def test_a_student_as_large_as_its_teacher_is_refused() -> None:
    with pytest.raises(UserError, match="not smaller than its teacher, which has 4"):
        take_layers(four_layers(), 4)


def test_the_loss_is_what_a_hand_computes() -> None:
    """Teacher 2:1 at temperature 1 is sqrt(2):1 at 2; the student says 1:1."""
    loss = make_loss("single-label", 2.0)
    teacher, student = torch.tensor([[math.log(2), 0.0]]), torch.tensor([[0.0, 0.0]])
    p = math.sqrt(2) / (1 + math.sqrt(2))
    soft = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    labels = torch.tensor([0])
    alone = loss(student, labels, teacher_logits=teacher, is_labelled=torch.tensor([False]))
    assert alone.item() == pytest.approx(soft, abs=1e-6)
    mixed = loss(student, labels, teacher_logits=teacher, is_labelled=torch.tensor([True]))
    assert mixed.item() == pytest.approx((1 - LABEL_SHARE) * soft + LABEL_SHARE * math.log(2), abs=1e-6)
    both = [torch.cat([part, part]) for part in (student, labels, teacher)]
    mean = loss(both[0], both[1], teacher_logits=both[2], is_labelled=torch.tensor([True, False]))
    assert mean.item() == pytest.approx((alone.item() + mixed.item()) / 2, abs=1e-6)


def test_of_several_labels_each_is_a_choice_of_its_own() -> None:
    loss = make_loss("multi-label", 1.0)
    teacher, student = torch.tensor([[math.log(3), 0.0]]), torch.tensor([[0.0, 0.0]])
    soft = (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2  # the second label has no divergence
    found = loss(student, torch.tensor([[1.0, 0.0]]), teacher_logits=teacher, is_labelled=torch.tensor([False]))
    assert found.item() == pytest.approx(soft, abs=1e-6)


def test_the_gradient_of_the_loss_hardly_depends_on_the_temperature() -> None:
    """Hinton et al. 2015, section 2.1: at high temperatures it falls with their square, by which it is multiplied."""
    teacher, labels = torch.tensor([[0.3, -0.2, 0.1]]), torch.tensor([0])
    sizes = []
    for temperature in (10.0, 40.0):
        student = torch.tensor([[0.0, 0.1, 0.2]], requires_grad=True)
        make_loss("single-label", temperature)(
            student, labels, teacher_logits=teacher, is_labelled=torch.tensor([False])
        ).backward()
        sizes.append(student.grad.norm().item())  # type: ignore[union-attr]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_a_teachers_logits_are_those_of_its_run(trained: RunDir) -> None:
    texts = [text for text, _ in make_texts(20, seed=9)]
    teacher = Teacher.open(trained.path, Path("elsewhere"))
    assert np.allclose(teacher.logits(texts, FP32), answers(trained, texts), atol=1e-5)
    fast = teacher.logits(texts, Hardware("cpu", "bf16"))
    assert np.array_equal(fast, teacher.logits(texts, FP32)) != has_bf16("cpu")
    assert np.allclose(fast, answers(trained, texts), atol=0.1)


def test_answers_that_half_precision_cannot_hold_are_asked_for_again() -> None:
    asked = []

    def ask(dtype: torch.dtype) -> torch.Tensor:
        asked.append(dtype)
        return torch.tensor([70_000.0]).to(dtype).float()

    assert finite(ask, torch.float16).item() == 70_000
    assert finite(ask, torch.bfloat16).item() == pytest.approx(70_000, rel=0.01)
    assert asked == [torch.float16, torch.float32, torch.bfloat16]
    with pytest.raises(UserError, match="not a finite number"):
        finite(lambda dtype: torch.tensor([math.nan], dtype=dtype), torch.float32)


def make_lessons(trained: RunDir, folder: Path) -> Lessons:
    labelled, other = [[text for text, _ in make_texts(20, seed=seed)] for seed in (8, 9)]
    return Lessons(Teacher.open(trained.path, Path("elsewhere")), labelled, other, 2.0, folder)


def test_a_teacher_is_asked_once_for_a_run_and_what_it_says_is_kept(
    trained: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lessons = make_lessons(trained, tmp_path)
    lessons.ask(FP32)
    assert [*tmp_path.iterdir()] == [lessons.answers]
    assert np.allclose(np.load(lessons.answers), answers(trained, [*lessons.labelled, *lessons.unlabelled]), atol=1e-5)
    assert "answers 40 texts" in capsys.readouterr().err
    before = lessons.answers.stat().st_mtime_ns
    make_lessons(trained, tmp_path).ask(FP32)
    assert "has answered 40 texts" in capsys.readouterr().err
    assert lessons.answers.stat().st_mtime_ns == before
    other = replace(lessons, labelled=lessons.unlabelled, unlabelled=lessons.labelled)
    assert other.answers != lessons.answers


def test_other_processes_wait_for_the_answers_that_the_first_one_asks_for(
    trained: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lessons = make_lessons(trained, tmp_path)
    monkeypatch.setenv("RANK", "1")
    waiting = threading.Thread(target=lessons.ask, args=("no device",), daemon=True)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    lessons.answers.touch()
    waiting.join(30)
    assert not waiting.is_alive()


def test_a_student_is_a_run_of_its_own_with_one_layer_and_its_teachers_texts(student: RunDir, trained: RunDir) -> None:
    record, of_teacher = student.load(), trained.load()
    layers = {name.split(".layer.")[1][0] for name in weights_of(student) if ".layer." in name}
    assert layers == {"0"}
    assert record.label_names == of_teacher.label_names
    assert record.evaluation_sha256 == of_teacher.evaluation_sha256
    assert record.training
    assert record.training.trainable_parameters == record.training.total_parameters
    assert record.teaching
    assert record.teaching.run == trained.path.resolve()
    assert record.teaching.run_sha256 == file_sha256(trained.record)
    assert (record.teaching.temperature, record.teaching.unlabelled_texts) == (2.0, 0)
    assert not student.has_adapter()
    assert len(reload_splits(record).train) == record.training.train_texts


def test_a_student_answers_as_it_was_trained_to(student: RunDir) -> None:
    record = student.load()
    evaluation = read_examples(student.evaluation, record.label_names)
    right = answers(student, evaluation.texts).argmax(-1) == np.array(evaluation.labels)  # type: ignore[arg-type]
    assert record.training
    assert right.mean() == pytest.approx(record.training.best.accuracy)
    assert right.mean() > 0.5


def test_texts_without_labels_change_a_student(student_config: TrainConfig, student: RunDir, tmp_path: Path) -> None:
    known = read_examples(student.evaluation, student.load().label_names).texts
    others = [text for text, _ in make_texts(40, seed=5)]
    path = write_csv(tmp_path / "more.csv", [(text,) for text in (*others, others[0].upper(), known[0])], ("text",))
    run = RunDir(tmp_path / "run")
    train(replace(student_config, unlabelled=str(path), epochs=1, run_dir=run.path))
    record = run.load()
    assert record.teaching
    assert record.teaching.unlabelled_texts == 40
    plain = RunDir(tmp_path / "plain")
    train(replace(student_config, epochs=1, run_dir=plain.path))
    first, second = weights_of(run), weights_of(plain)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_a_student_of_layers_with_lora_is_saved_merged(student_config: TrainConfig, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    train(replace(student_config, full=False, learning_rate=1e-2, epochs=1, run_dir=run.path))
    record = run.load()
    assert run.has_checkpoint()
    assert not run.has_adapter()
    assert record.training
    assert record.training.trainable_parameters < record.training.total_parameters
    evaluation = read_examples(run.evaluation, record.label_names)
    right = answers(run, evaluation.texts).argmax(-1) == np.array(evaluation.labels)  # type: ignore[arg-type]
    assert right.mean() == pytest.approx(record.training.best.accuracy)


def test_labels_are_numbered_as_the_teacher_does(student_config: TrainConfig, tmp_path: Path) -> None:
    """Where a dataset gives them another order."""
    topics, names = dict(make_texts(200, seed=3)), TOPICS[::-1]
    path = write_csv(tmp_path / "other.csv", [(text, names.index(label)) for text, label in topics.items()])
    config = replace(
        student_config, dataset=str(path), label_names=names, max_train_samples=60, epochs=1, run_dir=tmp_path / "run"
    )
    train(config)
    run = RunDir(config.run_dir)
    record = run.load()
    assert record.label_names == TOPICS
    assert record.calibration_is_apart
    files = (run.evaluation, run.calibration)
    for part in (reload_splits(record).train, *(read_examples(file, TOPICS) for file in files)):
        assert [TOPICS[i] for i in part.labels] == [topics[text] for text in part.texts]  # type: ignore[index]
    write_csv(path, [(text, f"{label} news") for text, label in topics.items()])
    with pytest.raises(UserError, match="label `food news`"):
        train(replace(config, label_names=None, overwrite=True))


def test_labels_that_are_numbers_keep_the_names_that_a_classifier_gives_them(tmp_path: Path) -> None:
    """A dataset's `0` is the classifier's own `0`, wherever that stands, and its first where it has no such name."""
    rows = [(text, int(label in TOPICS[:2])) for text, label in make_texts(40)]
    splits = load_splits(str(write_csv(tmp_path / "a.csv", [*rows])), None)
    swapped = number_labels(splits, ("1", "0"), "single-label")
    assert swapped.train.labels == [1 - label for label in splits.train.labels]  # type: ignore[operator]
    named = number_labels(splits, ("no", "yes"), "single-label")
    assert named.train.labels == splits.train.labels


def test_what_is_kept_apart_is_not_learnt_as_text_without_label(student_config: TrainConfig, tmp_path: Path) -> None:
    data = str(write_csv(tmp_path / "a.csv", [*make_texts(400)]))
    splits = load_splits(data, None, max_train_samples=100)
    assert splits.left_over
    others = [text for text, _ in make_texts(20, seed=5)]
    used = [text for part in (splits.train, splits.evaluation, splits.left_over) for text in part.texts]
    path = write_csv(tmp_path / "more.csv", [(text,) for text in (*used, *others)], ("text",))
    assert read_unlabelled(replace(student_config, unlabelled=str(path)), splits) == others


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"student_layers": 2}, "not smaller than its teacher"),
        ({"seed": 7}, r"was trained on \d+ of the 32 evaluation texts"),
        ({"task": "multi-label"}, "the teacher's is `--task single-label`"),
        ({"teacher": Path("nowhere")}, "no trained run in `nowhere`"),
    ],
)
def test_what_does_not_fit_the_teacher_is_refused(
    student_config: TrainConfig, tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(replace(student_config, run_dir=tmp_path / "run", **changed))  # type: ignore[arg-type]
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_run_is_not_its_own_teacher(student_config: TrainConfig, trained: RunDir) -> None:
    with pytest.raises(UserError, match="its own teacher"):
        train(replace(student_config, run_dir=trained.path, overwrite=True))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "small"}, "takes its layers from a teacher"),
        ({"unlabelled": "more.csv"}, "`--unlabelled` needs `--teacher RUN`"),
        ({"temperature": 3.0}, "`--temperature` needs `--teacher RUN`"),
        ({"student_layers": 2}, "is for `--model small`"),
        ({"teacher": Path("t"), "model": "sample", "student_layers": 2}, "is for `--model small`"),
        ({"teacher": Path("t"), "class_weights": "balanced"}, "`--class-weights`"),
        ({"teacher": Path("t"), "lora_r": 4}, "`--lora-r` needs `--no-full`"),
        ({"full": True, "lora_targets": ("query",)}, "`--lora-targets` needs `--no-full`"),
        ({"teacher": Path("t"), "temperature": 0.0}, "out of range"),
    ],
)
def test_flags_that_mean_nothing_together_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainConfig(**values)  # type: ignore[arg-type]


def test_whoever_sets_lora_of_a_student_is_told_how_to_train_it() -> None:
    with pytest.raises(UserError) as error:
        TrainConfig(teacher=Path("t"), lora_r=4)
    assert error.value.hint == "add `--no-full` to train LoRA, or leave it out"


def test_an_explicit_task_is_never_replaced_by_the_teachers(
    student_config: TrainConfig, trained: RunDir, copy_of: Callable[[RunDir], RunDir], tmp_path: Path
) -> None:
    teacher = copy_of(trained)
    write_record(teacher.record, replace(teacher.load(), task="multi-label"))
    asked = replace(student_config, teacher=teacher.path, task="single-label", run_dir=tmp_path / "student")
    with pytest.raises(UserError, match="the teacher's is `--task multi-label`"):
        train(asked)
    assert Teacher.open(teacher.path, tmp_path).settle(replace(asked, task=None)).task == "multi-label"


def test_all_weights_are_trained_where_that_is_asked_for_without_a_teacher(
    toy_config: TrainConfig, tmp_path: Path
) -> None:
    run = RunDir(tmp_path / "run")
    train(replace(toy_config, full=True, learning_rate=2e-3, epochs=1, run_dir=run.path))
    record = run.load()
    assert record.teaching is None
    assert record.training
    assert record.training.trainable_parameters == record.training.total_parameters
    assert run.has_checkpoint()
    assert not run.has_adapter()


def test_the_command_takes_it_all(
    command: Callable[..., tuple[int, str, str]], trained: RunDir, tmp_path: Path
) -> None:
    flags = ["--teacher", trained.path, "--model", "small", "--epochs", 1, "--max-length", 24, "--device", "cpu"]
    status, out, err = command(trainer.__main__.main, *flags, "--run-dir", tmp_path / "run")
    assert status == 0
    assert "next: python -m exporter --quantize" in out
    assert f"the teacher in `{trained.path}` answers 128 texts" in err


@pytest.fixture(scope="module")
def compared(student: RunDir, trained: RunDir, tmp_path_factory: pytest.TempPathFactory) -> ExportRecord:
    """The student's export, compared with its teacher."""
    run = tmp_path_factory.mktemp("runs") / "compared"
    shutil.copytree(student.path, run)
    asked = ExportConfig(
        run_dir=run, against_run=trained.path, max_drop=5.0, quantize="dynamic", accept_undecided=True, verify_samples=8
    )
    return export(asked, LocalWorker)


def test_an_export_says_what_a_student_loses_against_its_teacher(
    compared: ExportRecord, student: RunDir, trained: RunDir
) -> None:
    against = compared.against
    assert against
    record = student.load()
    evaluation = read_examples(student.evaluation, record.label_names)
    truth = np.array(evaluation.labels)  # type: ignore[arg-type]
    was, is_now = (answers(run, evaluation.texts).argmax(-1) == truth for run in (trained, student))
    first = against.verdicts[0]
    assert [v.artifact for v in against.verdicts] == list(dict.fromkeys(["onnx-fp32", compared.chosen]))
    assert (first.change.harmful, first.change.helpful) == ((was & ~is_now).sum(), (is_now & ~was).sum())
    assert against.score == pytest.approx(was.mean())
    rivals = [c for c in compared.candidates if c.engine == "onnxruntime"]
    assert first.change.tried == (1 + len(rivals) if len(against.verdicts) == 2 else 1)
    assert first.judgement == "undecided"  # 32 texts cannot tell
    assert first.smaller > 1.2
    assert against.run_sha256 == file_sha256(trained.record)
    assert against.unchecked == ""


def test_the_verdict_stands_in_the_report_and_on_the_card(compared: ExportRecord, trained: RunDir) -> None:
    against = compared.against
    assert against
    said = describe_verdict(against, against.verdicts[0])
    assert "undecided of 5 points" in said
    assert said in summary(compared)
    card = (compared.config.run_dir / "export" / "onnx-fp32" / "README.md").read_text()
    assert f"Against the classifier `{trained.path.name}`: {said}" in card
    assert "some layers of a fine-tuned `checkpoint0`, fine-tuned in full on 128 texts" in card
    assert "- lora\n" not in card


def test_a_teacher_that_has_seen_the_evaluation_texts_is_not_compared_with(
    toy_config: TrainConfig, trained: RunDir, tmp_path: Path
) -> None:
    """Whoever was not its student was not checked before."""
    run = RunDir(tmp_path / "run")
    train(replace(toy_config, seed=7, epochs=1, run_dir=run.path))
    with pytest.raises(UserError, match=r"was trained on \d+ of the 32 evaluation texts"):
        Other.read(trained.path, Subject.read(run, calibration=False))


@pytest.fixture(scope="module")
def greedy(toy_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A teacher of 200 texts: of 400, 80 are evaluated on, and 120 are left over."""
    folder = tmp_path_factory.mktemp("greedy")
    data = write_csv(folder / "a.csv", [*make_texts(400)])
    train(replace(toy_config, dataset=str(data), max_train_samples=200, epochs=1, run_dir=folder / "run"))
    return RunDir(folder / "run")


def test_calibration_texts_are_apart_if_the_teacher_was_not_trained_on_them(
    student_config: TrainConfig, greedy: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 320 texts its student is trained on 50, and 120 are left over by both."""
    record, run = greedy.load(), RunDir(tmp_path / "run")
    config = replace(student_config, teacher=greedy.path, max_train_samples=50, epochs=1, run_dir=run.path)
    train(config)
    texts = {*read_examples(run.calibration, record.label_names).texts}
    assert run.load().calibration_is_apart
    assert len(texts) == 120
    assert "of 270 texts kept for calibration, the teacher was trained on 150" in capsys.readouterr().err
    assert not texts & {*reload_splits(record).train.texts}
    assert not texts & {*reload_splits(run.load()).train.texts}


def test_calibration_texts_of_a_teacher_of_unknown_texts_are_not_called_apart(
    student_config: TrainConfig,
    greedy: RunDir,
    copy_of: Callable[[RunDir], RunDir],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    teacher, run = copy_of(greedy), RunDir(tmp_path / "student")
    record = teacher.load()
    assert record.training
    write_record(teacher.record, replace(record, training=replace(record.training, data_sha256="0" * 64)))
    train(replace(student_config, teacher=teacher.path, max_train_samples=50, epochs=1, run_dir=run.path))
    assert not run.load().calibration_is_apart
    assert "cannot be checked: the training data of this run has changed since" in capsys.readouterr().err


def test_a_teacher_of_the_evaluation_texts_is_refused_however_they_are_named(
    student_config: TrainConfig, topics_csv: Path, tmp_path: Path
) -> None:
    config, some = replace(student_config, run_dir=tmp_path / "run"), tmp_path / "some.csv"
    some.write_text("".join(topics_csv.read_text().splitlines(keepends=True)[:41]))
    for changed in ({"dataset": str(topics_csv), "seed": 7}, {"eval_dataset": str(some)}):
        with pytest.raises(UserError, match=r"the teacher was trained on \d+ of the \d+ evaluation texts"):
            train(replace(config, **changed))  # type: ignore[arg-type]


def test_another_seed_is_no_harm_where_nothing_is_held_out(
    toy_config: TrainConfig, student_config: TrainConfig, tmp_path: Path
) -> None:
    data, other = (write_csv(tmp_path / f"{i}.csv", [*make_texts(40, seed=i)]) for i in (1, 2))
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    train(replace(toy_config, dataset=str(data), eval_dataset=str(other), epochs=1, run_dir=teacher))
    train(replace(student_config, teacher=teacher, seed=7, epochs=1, run_dir=run))
    assert RunDir(run).load().evaluation_texts == 40


def test_what_cannot_be_checked_of_a_teacher_is_said(
    student: RunDir, trained: RunDir, copy_of: Callable[[RunDir], RunDir]
) -> None:
    subject, teacher = Subject.read(student, calibration=False), copy_of(trained)
    record = teacher.load()
    write_record(teacher.record, replace(record, training=None))
    assert "which was elsewhere" in Other.read(teacher.path, subject).unchecked
    taught = Teaching(Path("older"), "", 2.0, 9)
    write_record(teacher.record, replace(record, teaching=taught))
    assert Other.read(teacher.path, subject).unchecked == "the 9 texts without labels that it learnt from"


def test_a_run_with_other_labels_is_not_compared_with(
    student: RunDir, trained: RunDir, copy_of: Callable[[RunDir], RunDir]
) -> None:
    other, names = copy_of(trained), ("food", "money", "sport", "music")
    write_record(other.record, replace(other.load(), label_names=names))
    subject = Subject.read(student, calibration=False)
    with pytest.raises(UserError, match="cannot be compared"):
        Other.read(other.path, subject)
    with pytest.raises(UserError, match="with itself"):
        Other.read(student.path, subject)


def test_a_budget_may_be_for_another_run_alone() -> None:
    assert ExportConfig(against_run=Path("big"), max_drop=1.0).max_drop == 1.0
    with pytest.raises(UserError, match="`--max-drop` needs `--quantize`"):
        ExportConfig(max_drop=1.0)


def test_resuming_with_another_teacher_or_other_texts_is_refused(student_config: TrainConfig, tmp_path: Path) -> None:
    run, given = (
        RunDir(tmp_path),
        UnfinishedRun(replace(student_config, run_dir=tmp_path), "base", "data", lessons_sha256="lessons"),
    )
    begin(run, given)
    again = replace(given, config=replace(given.config, resume=True))
    begin(run, again)
    with pytest.raises(UserError, match="the teacher is not that of the interrupted run"):
        begin(run, replace(again, lessons_sha256="others"))


@pytest.mark.slow
def test_an_interrupted_student_resumes_to_what_it_would_have_been(
    student_config: TrainConfig, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    names = ("teacher", "learning_rate", "batch_size", "max_length", "device", "precision")
    flags = [part for name in names for part in (flag_of(name), str(getattr(student_config, name)))]
    flags += ["--epochs", "12", "--run-dir", str(tmp_path / "run")]
    with start([sys.executable, "-m", "trainer", *flags]) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith("epoch 2/12"):
                process.send_signal(signal.SIGINT)
                break
        process.stderr.read()
    assert process.returncode in INTERRUPTED
    status, _, err = command(trainer.__main__.main, *flags, "--resume")
    assert status == 0
    assert re.findall(r"epoch (\d+)/12", err)[0] in ("2", "3", "4")
    straight = RunDir(tmp_path / "straight")
    train(replace(student_config, epochs=12, run_dir=straight.path))
    first, second = weights_of(RunDir(tmp_path / "run")), weights_of(straight)
    assert all(torch.equal(first[name], second[name]) for name in first)
