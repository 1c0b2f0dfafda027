"""Two stages answer as each would alone, in order, from tokens that are found once; a bundle proves both."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cascades import USUAL, learn, put_into
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import TOPICS, WORDS, make_texts, make_tokenizer

from exporter.bundle.artifact import GOLDEN, MANIFEST, Artifact, open_artifact, seal
from exporter.bundle.golden import Golden
from exporter.cascade.bundle import add_cascade
from exporter.cascade.engine import CascadeEngine
from exporter.cascade.explain import reasons
from exporter.cascade.stage import LEXICAL, Cascade, FirstStage, Stack, surest
from exporter.cascade.synthetic import make_texts as make_golden_texts
from exporter.checksums import CHECKSUMS, IntegrityError, write_checksums
from exporter.engines.engine import ALL_AT_ONCE, ONE_BY_ONE, Batching, ModelEngine
from exporter.predict import _folder, main, make_parser
from exporter.runtime import Classifier
from trainer.errors import UserError
from trainer.lexical.file import to_bytes
from trainer.lexical.model import Lexical
from trainer.records import read_record, write_record
from trainer.run import RunDir
from trainer.tasks import FloatArray
from trainer.text.encoding import Encoded, Encoder
from trainer.text.texts import Text

Command = Callable[..., tuple[int, str, str]]

TEXTS = [text for text, _ in make_texts(120, seed=5)]
LABELS = sorted(TOPICS)


class Adding:
    """A model whose logits tell what it read: the sum of the tokens, and how many there are."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.read = encoder, 0

    def run(self, batch: Sequence[Encoded], length: int | None = None) -> FloatArray:  # noqa: ARG002
        self.read += len(batch)
        return np.array([[sum(e.ids), len(e), 0, 0] for e in batch], np.float32)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(folder)
    return folder


def make(tokenizer: Path, cascade: Cascade = USUAL, **options: Any) -> CascadeEngine:
    encoder = Encoder.load(tokenizer, 12, "head", 0)
    texts, labels = zip(*make_texts(160), strict=True)
    lexical = learn(encoder.tokens(texts), [LABELS.index(label) for label in labels], 4)
    return CascadeEngine(ModelEngine(Adding(encoder), **options), FirstStage(lexical, cascade))


@pytest.fixture(scope="module")
def bundle(exported: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the fp32 artifact with a first stage: nothing in it depends on its batch."""
    folder = Path(shutil.copytree(exported.export / "onnx-fp32", tmp_path_factory.mktemp("bundle") / "onnx-fp32"))
    put_into(folder)
    return folder


@pytest.fixture
def own(bundle: Path, tmp_path: Path) -> Path:
    """One to change."""
    return Path(shutil.copytree(bundle, tmp_path / "own"))


# --- the first stage


def test_it_answers_what_it_is_sure_of_and_knows_and_is_used_to(tokenizer: Path) -> None:
    first = make(tokenizer).first
    tokens: list[list[list[int]]] = [[[10, 10, 11]], [[11]], [[10] * 60]]

    def answered(**values: Any) -> list[bool]:
        cascade = replace(Cascade(1.0, 1e-9, 0.0, 0, 10**6), **values)
        sure: list[bool] = replace(first, cascade=cascade).answer(tokens)[1].tolist()
        return sure

    assert answered() == [True, True, True]
    assert answered(fewest_tokens=3) == [True, False, True]
    assert answered(most_tokens=59) == [True, True, False]
    assert answered(least_known=1.01) == [False, False, False]
    assert answered(threshold=1.01) == [False, False, False]
    sure = float(surest(first.lexical.logits(tokens))[1])
    assert answered(threshold=sure - 1e-5)[1]
    assert not answered(threshold=sure + 1e-5)[1]
    assert not answered(threshold=sure - 1e-5, temperature=2.0)[1]


# --- the engine


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join), min_size=1, max_size=30),
    block=st.integers(1, 9),
    batching=st.sampled_from([None, ALL_AT_ONCE, ONE_BY_ONE, Batching(texts=4, tokens=30)]),
)
def test_every_text_is_answered_by_its_stage_alone_whatever_the_blocks(
    tokenizer: Path, texts: list[str], block: int, batching: Batching | None
) -> None:
    both = make(tokenizer, block=block)
    truncated, logits, stages = both.answer_all(texts, batching)
    own, sure = both.first.answer(both.encoder.tokens(texts))
    assert [stage == "lexical" for stage in stages] == sure.tolist()
    encoded = both.encoder.encode(texts)
    models = np.array([[sum(e.ids), len(e), 0, 0] for e in encoded], np.float32)
    np.testing.assert_allclose(logits, np.where(sure[:, None], own, models), rtol=1e-6)
    assert truncated == [e.truncated and not is_sure for e, is_sure in zip(encoded, sure, strict=True)]
    assert both.engine.model.read == (~sure).sum()
    np.testing.assert_array_equal(both.logits(texts, batching or ALL_AT_ONCE), logits)
    assert both.stages(texts) == stages


def test_where_logits_are_added_it_is_those_of_texts_that_are_usual_and_go_on(tokenizer: Path) -> None:
    stacked = replace(USUAL, threshold=0.97, stack=Stack(first=0.5, model=0.25))
    both = make(tokenizer, stacked, block=7)
    texts = [*TEXTS, "the " * 60]  # the last one is unusually long
    _, logits, stages = both.answer_all(texts)
    own, _ = both.first.read(both.encoder.tokens(texts))
    models = np.array([[sum(e.ids), len(e), 0, 0] for e in both.encoder.encode(texts)], np.float32)
    expected = {"lexical": own, "both": 0.5 * own + 0.25 * models, "model": models}
    assert set(stages) == set(expected)
    assert stages[-1] == "model"
    for i, stage in enumerate(stages):
        np.testing.assert_allclose(logits[i], expected[stage][i], rtol=1e-6)
    assert both.stages(texts) == stages


def test_a_text_of_which_only_the_ends_are_tokenized_is_left_to_the_model(tokenizer: Path) -> None:
    both = make(tokenizer, Cascade(1.0, 0.0, 0.0, 0, 10**9))
    word = next(word for word in WORDS if len(word) < 20)
    short = " ".join([word] * 1_000)
    long = short.ljust(2**16, " ")
    truncated, _, stages = both.answer_all([short, long, long + " ", f"{long} {long} {long}"])
    assert stages == ["lexical", "lexical", "model", "model"] == both.stages([short, long, long + " ", long * 3])
    assert truncated == [False, False, True, True]


def test_streams_share_what_goes_on(tokenizer: Path) -> None:
    opened: list[Adding] = []

    def split(streams: int) -> list[Adding]:
        opened.extend(Adding(both.encoder) for _ in range(streams))
        return opened

    both = make(tokenizer, bulk=Batching(texts=2, streams=2), split=split, block=8)
    alone = make(tokenizer)
    expected, stages = alone.answer_all(TEXTS, ONE_BY_ONE)[1:]
    both.answer_all(TEXTS)
    assert not opened  # they pay once 128 texts have gone on
    for _ in range(20):
        np.testing.assert_allclose(both.answer_all(TEXTS)[1], expected, rtol=1e-6)
    assert sum(model.read for model in opened) > 5 * stages.count("model")


def test_no_text_is_tokenised_twice(tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both, counts = make(tokenizer, block=16), []
    tokens = both.encoder.tokens
    monkeypatch.setattr(both.encoder, "tokens", lambda texts: (counts.append(len(texts)), tokens(texts))[1])
    _, _, stages = both.answer_all(TEXTS)
    assert set(stages) == {"lexical", "model"}
    assert sum(counts) == len(TEXTS)


def test_the_model_does_not_wait_until_all_texts_were_asked_the_first_stage(
    tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, events = make(tokenizer, block=8), []
    tokens, run = both.encoder.tokens, both.engine.model.run
    monkeypatch.setattr(both.encoder, "tokens", lambda texts: (events.append("first"), tokens(texts))[1])
    monkeypatch.setattr(both.engine.model, "run", lambda *batch: (events.append("model"), run(*batch))[1])
    both.answer_all(TEXTS)
    assert events.count("first") == len(TEXTS) / 8
    assert "first" in events[events.index("model") :]


# --- the classifier


def test_a_classifier_says_which_stage_answered_and_its_logits_are_the_models(bundle: Path) -> None:
    classifier, alone = Classifier.load(bundle), Classifier.load(bundle, cascade=False)
    found, models = classifier.predict(TEXTS), alone.predict(TEXTS)
    assert {answer.stage for answer in found} == {"lexical", "model"}
    assert {answer.stage for answer in models} == {"model"}
    for answer, other in zip(found, models, strict=True):
        if answer.stage == "model":
            assert (answer.label, answer.truncated) == (other.label, other.truncated)
            assert answer.probabilities == pytest.approx(other.probabilities, abs=1e-5)
        else:
            assert not answer.truncated
            assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
            assert max(answer.probabilities.values()) >= USUAL.threshold
    assert any(o.truncated for a, o in zip(found, models, strict=True) if a.stage == "lexical")
    np.testing.assert_array_equal(classifier.logits(TEXTS), alone.logits(TEXTS))
    assert [answer for _, answer in classifier.stream(iter(TEXTS))] == found
    assert [stage for text in TEXTS[:9] for stage in [classifier.predict([text])[0].stage]] == [
        answer.stage for answer in found[:9]
    ]
    assert classifier.predict([]) == []


def test_a_classifier_adds_the_logits_of_both_and_says_so(own: Path) -> None:
    put_into(own, replace(USUAL, stack=Stack(2.0, 0.5)))
    classifier, alone = Classifier.load(own), Classifier.load(own, cascade=False)
    found = classifier.predict(TEXTS)
    assert {answer.stage for answer in found} == {"lexical", "both"}
    both = classifier.cascade
    assert both
    first, _ = both.first.read(both.encoder.tokens(TEXTS))
    added = np.exp(2 * first + 0.5 * alone.logits(TEXTS))
    shares = added / added.sum(axis=1, keepdims=True)
    for answer, row in zip(found, shares, strict=True):
        if answer.stage == "both":
            assert [*answer.probabilities.values()] == pytest.approx(row.tolist(), abs=1e-4)


def test_another_process_has_both_stages(bundle: Path) -> None:
    classifier = Classifier.load(bundle)
    again = pickle.loads(pickle.dumps(classifier))  # noqa: S301
    assert again.predict(TEXTS) == classifier.predict(TEXTS)
    alone = pickle.loads(pickle.dumps(Classifier.load(bundle, cascade=False)))  # noqa: S301
    assert alone.cascade is None


# --- the bundle


def test_the_golden_texts_are_made_of_its_own_words_on_both_sides_of_the_threshold(bundle: Path) -> None:
    golden = read_record(bundle / GOLDEN, Golden).first_stage
    assert golden
    assert set(" ".join(golden.texts).split()) <= set(WORDS)
    labels = {int(np.argmax(row)) for row, is_own in zip(golden.logits, golden.answered, strict=True) if is_own}
    assert labels == {0, 1, 2, 3}
    gaps = surest(np.array(golden.logits, np.float32)) - USUAL.threshold
    assert set(golden.answered) == {True, False}
    for side in (True, False):
        assert min(abs(gap) for gap, own in zip(gaps, golden.answered, strict=True) if own is side) < 0.05
    artifact = open_artifact(bundle)
    assert artifact.cascade == USUAL
    assert artifact.size_bytes == sum(
        path.stat().st_size for path in bundle.iterdir() if path.name not in (MANIFEST, GOLDEN, CHECKSUMS, "README.md")
    )


def test_pairs_have_golden_texts_too(tokenizer: Path) -> None:
    encoder = Encoder.load(tokenizer, 24, "head", 0, pairs=True)
    texts, labels = zip(*make_texts(160), strict=True)
    pairs: list[Text] = [("we saw it", text) for text in texts]
    lexical = learn(encoder.tokens(pairs), [LABELS.index(label) for label in labels], 4)
    first = FirstStage(lexical, USUAL)
    made = make_golden_texts(first, encoder, 4)
    logits, sure = first.answer(encoder.tokens(made))
    assert {*logits[sure].argmax(axis=1)} == {0, 1, 2, 3}
    assert all(len(pair) == 2 for pair in made)


@pytest.mark.parametrize(
    "values",
    [
        {"threshold": 0.6},
        {"threshold": 0.999},
        {"temperature": 3.1},
        {"fewest_tokens": 30},
        {"most_tokens": 8},
        {"stack": Stack(0.5, 0.5)},
    ],
)
def test_another_threshold_than_it_was_proved_with_is_refused(own: Path, values: dict[str, Any]) -> None:
    artifact = open_artifact(own)
    seal(own, replace(artifact, cascade=replace(USUAL, **values)))
    with pytest.raises(IntegrityError, match=r"the first stage in .* answers differently here"):
        Classifier.load(own)
    assert Classifier.load(own, cascade=False).predict(["soup"])[0].stage == "model"
    assert Classifier.load(own, golden=False).predict(TEXTS)


def test_the_first_stage_of_another_classifier_is_refused(own: Path) -> None:
    encoder = Classifier.load(own).encoder
    texts, labels = zip(*make_texts(160), strict=True)
    swapped = [(LABELS.index(label) + 1) % 4 for label in labels]
    (own / LEXICAL).write_bytes(to_bytes(learn(encoder.tokens(texts), swapped, 4)))
    write_checksums(own)
    with pytest.raises(IntegrityError, match=r"the first stage in .* answers differently here"):
        Classifier.load(own)
    (own / LEXICAL).write_bytes(to_bytes(Lexical(np.ones((2, 1), np.float16), np.zeros(1, np.float32))))
    write_checksums(own)
    with pytest.raises(UserError, match="for another number of classes"):
        Classifier.load(own)


def test_what_the_first_stage_says_of_texts_that_go_on_is_checked_too(own: Path) -> None:
    """Where logits are added, it enters their answers."""
    golden = read_record(own / GOLDEN, Golden)
    first = golden.first_stage
    assert first
    assert not all(first.answered)
    moved = tuple(
        row if own_ else tuple(v + 0.1 for v in row) for row, own_ in zip(first.logits, first.answered, strict=True)
    )
    write_record(own / GOLDEN, replace(golden, first_stage=replace(first, logits=moved)))
    write_checksums(own)
    with pytest.raises(IntegrityError, match=r"the first stage in .* answers differently"):
        Classifier.load(own)


def test_golden_answers_that_say_nothing_of_the_first_stage_are_refused(own: Path) -> None:
    golden = read_record(own / GOLDEN, Golden)
    assert golden.first_stage
    none = replace(golden.first_stage, answered=(False,) * len(golden.first_stage.texts))
    for first_stage, message in ((None, "says nothing of the first stage"), (none, "which texts the first stage")):
        write_record(own / GOLDEN, replace(golden, first_stage=first_stage))
        write_checksums(own)
        with pytest.raises(IntegrityError, match=message):
            Classifier.load(own)


def test_its_file_has_to_be_listed_and_whole(own: Path) -> None:
    sums = own / CHECKSUMS
    listed = sums.read_text()
    sums.write_text("".join(line for line in listed.splitlines(keepends=True) if LEXICAL not in line))
    with pytest.raises(IntegrityError, match=f"no checksum for `{LEXICAL}`"):
        Classifier.load(own)
    sums.write_text(listed)
    (own / LEXICAL).write_bytes(b"\0" * 100)
    with pytest.raises(IntegrityError, match="was changed after the export"):
        Classifier.load(own)
    write_checksums(own)
    with pytest.raises(UserError, match="cannot be read"):
        Classifier.load(own)


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 0.0},
        {"temperature": -1.0},
        {"temperature": 1e300},
        {"threshold": 0.0},
        {"threshold": 1.1},
        {"least_known": -0.1},
        {"least_known": 2.0},
        {"fewest_tokens": -1},
        {"fewest_tokens": 41},
        {"most_tokens": 10**30},
        {"most_tokens": 1.5},
        {"stack": {"first": 0.0, "model": 1.0}},
        {"stack": {"first": 1.0, "model": 1e9}},
        {"stack": {"first": 1.0, "model": float("nan")}},
        {"stack": {"first": 1.0}},
        {"unknown": 1},
    ],
)
def test_a_cascade_that_cannot_be_is_refused(own: Path, values: dict[str, Any]) -> None:
    manifest = json.loads((own / MANIFEST).read_text())
    manifest["cascade"] |= values
    (own / MANIFEST).write_text(json.dumps(manifest))
    write_checksums(own)
    with pytest.raises(UserError, match="damaged"):
        open_artifact(own)


def test_several_labels_have_no_cascade(own: Path) -> None:
    artifact = replace(open_artifact(own), task="multi-label", thresholds=(0.5,) * 4)
    seal(own, artifact)
    with pytest.raises(UserError, match="`cascade` is for one label a text"):
        open_artifact(own)


def test_a_first_stage_that_is_never_sure_is_not_put_into_a_bundle(exported: RunDir, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported.export / "onnx-fp32", tmp_path / "bundle"))
    artifact: Artifact = open_artifact(folder)
    nothing = to_bytes(Lexical(np.zeros((2**8, 4), np.float16), np.zeros(4, np.float32)))
    with pytest.raises(UserError, match="is sure of no text"):
        add_cascade(folder, artifact, nothing, USUAL)


# --- the command


def test_the_weights_that_decided_add_up_to_the_answer(bundle: Path) -> None:
    both = Classifier.load(bundle).cascade
    assert both
    text = "soup bread soup team"
    found = reasons(both.first, both.encoder, text)
    assert {reason.tokens for reason in found} == {
        "soup", "bread", "team", "soup bread", "bread soup", "soup team"
    }  # fmt: skip
    (logits,), _ = both.first.answer(both.encoder.tokens([text]))
    first, second = sorted(logits, reverse=True)[:2]
    assert sum(reason.weight for reason in found) == pytest.approx(first - second, abs=1e-4)
    assert [abs(reason.weight) for reason in found] == sorted((abs(r.weight) for r in found), reverse=True)
    assert found[0].tokens in ("soup", "soup bread", "bread soup")


def test_two_classes_are_explained_by_the_column_of_the_second(tokenizer: Path) -> None:
    encoder = Encoder.load(tokenizer, 24, "head", 0)
    lexical = learn(encoder.tokens(["soup salt", "team goal"]), [0, 1], 2)
    first = FirstStage(lexical, USUAL)
    for text in ("soup", "goal team"):
        logits = first.answer(encoder.tokens([text]))[0][0]
        total = sum(reason.weight for reason in reasons(first, encoder, text))
        assert total == pytest.approx(abs(logits[1] - logits[0]), abs=1e-4)
        assert total > 0


def test_predict_shows_stages_and_reasons(bundle: Path, command: Command) -> None:
    texts = ("soup bread oven salt cheese soup", "the a of")
    status, out, _ = command(main, "--artifact", bundle, "--explain", *texts)
    assert status == 0
    first, *why, last = out.splitlines()
    assert first.startswith("food  (food 9")
    assert "  [lexical]  soup bread" in first
    assert "  [model]  the a of" in last
    assert why
    assert all(line.startswith("    +") for line in why[:3])
    assert any(line.endswith("  soup bread") for line in why)
    alone = command(main, "--artifact", bundle, "--no-cascade", *texts)[1]
    assert "[" not in alone
    assert len(alone.splitlines()) == 2


@pytest.mark.parametrize("cascades", [("onnx-int8",), ("for-openvino",), ("onnx-int8", "for-openvino"), ()])
@pytest.mark.parametrize("is_faster", [True, False])
@pytest.mark.parametrize("is_installed", [True, False])
def test_of_a_run_the_artifact_is_taken_that_is_faster_here_and_for_explaining_one_with_a_first_stage(
    cascades: tuple[str, ...], is_faster: bool, is_installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = [SimpleNamespace(name=n, cascade=n in cascades) for n in ("onnx-fp32", "onnx-int8", "for-openvino")]
    best = "for-openvino" if is_faster else None
    record = SimpleNamespace(chosen="onnx-int8", with_openvino=best, for_openvino="for-openvino", artifacts=artifacts)
    monkeypatch.setattr("exporter.predict.load_export", lambda _: record)
    monkeypatch.setattr("exporter.predict.is_installed", lambda _: is_installed)

    def taken(*flags: str) -> str:
        return _folder(make_parser().parse_args(["--run-dir", "run", *flags])).name

    for_openvino = is_installed and is_faster
    assert taken() == taken("--engine", "openvino") == ("for-openvino" if for_openvino else "onnx-int8")
    assert taken("--no-cascade") == ("for-openvino" if is_installed else "onnx-int8")
    assert taken("--explain") == ("for-openvino" if for_openvino and "for-openvino" in cascades else "onnx-int8")
    for flags in ((), ("--no-cascade",), ("--explain",)):
        assert taken("--engine", "onnxruntime", *flags) == "onnx-int8"


def test_what_is_explained_is_the_first_stage_also_where_openvino_is_recommended(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of(exported)
    put_into(run.export / "onnx-int8")
    record = SimpleNamespace(chosen="onnx-int8", with_openvino="onnx-fp32", artifacts=())  # of which none has one
    monkeypatch.setattr("exporter.predict.load_export", lambda _: record)
    monkeypatch.setattr("exporter.predict.is_installed", lambda _: True)
    for flags in ((), ("--explain",)):
        status, out, _ = command(main, "--run-dir", run.path, *flags, "soup bread oven salt cheese soup")
        assert status == 0
        assert ("[lexical]" in out) == bool(flags)


def test_without_the_first_stage_that_beats_it_the_artifact_for_openvino_is_taken(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of(exported)
    shutil.move(run.export / "onnx-int8", run.export / "for-openvino")
    record = SimpleNamespace(chosen="onnx-int8", with_openvino=None, for_openvino="for-openvino")
    monkeypatch.setattr("exporter.predict.load_export", lambda _: record)
    monkeypatch.setattr("exporter.predict.is_installed", lambda _: True)
    assert command(main, "--run-dir", run.path, "--no-cascade", "soup")[0] == 0
    assert command(main, "--run-dir", run.path, "soup")[0] == 2


def test_answers_in_files_say_their_stage_only_where_there_are_two(
    bundle: Path, command: Command, tmp_path: Path
) -> None:
    texts = ("soup bread oven salt cheese soup", "the a of")
    flags = ("--artifact", bundle, *texts, "--output")
    assert command(main, *flags, tmp_path / "a.csv")[0] == command(main, *flags, tmp_path / "a.jsonl")[0] == 0
    assert command(main, "--no-cascade", *flags, tmp_path / "b.csv")[0] == 0
    header, *rows = (tmp_path / "a.csv").read_text().splitlines()
    assert header.endswith(",truncated,stage")
    assert [row.rpartition(",")[2] for row in rows] == ["lexical", "model"]
    assert (tmp_path / "b.csv").read_text().splitlines()[0].endswith(",truncated")
    assert [json.loads(line)["stage"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [
        "lexical",
        "model",
    ]


def test_what_cannot_be_explained_is_refused(bundle: Path, exported: RunDir, command: Command, tmp_path: Path) -> None:
    for flags, message in (
        (("--artifact", bundle, "--no-cascade"), "both `--explain` and `--no-cascade`"),
        (("--artifact", bundle, "--output", tmp_path / "a.csv"), "both `--explain` and `--output`"),
        (("--artifact", exported.export / "onnx-fp32"), "has no first stage to explain"),
    ):
        status, out, err = command(main, "--explain", *flags, "soup")
        assert (status, out) == (2, "")
        assert message in err
