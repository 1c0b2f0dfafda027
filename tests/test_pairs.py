"""Pairs of texts go through everything: cut as the tokenizers library cuts, trained, exported, proved and answered."""

from __future__ import annotations

import csv
import io
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from bench_records import make_record
from hypothesis import given
from hypothesis import strategies as st
from local_worker import LocalWorker
from tokenizers import Tokenizer, processors
from toys import FILLER, TOPICS, WORDS, make_tokenizer, write_csv
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, set_seed

import exporter.predict
from bench.config import BenchConfig
from bench.engines.pipelines import ENGINES as PIPELINES
from bench.engines.tfidf import fit, load
from bench.judge.summarise import summarise
from bench.measure.workload import Workload
from bench.report.page.page import render_page
from bench.report.tables import markdown
from exporter.bundle.golden import PAIRS, Golden
from exporter.checksums import IntegrityError, write_checksums
from exporter.config import ExportConfig
from exporter.export import export
from exporter.int8.recipes import RECIPES
from exporter.proof.reference import load_trained
from exporter.records import ExportRecord, load_export
from exporter.report import summary
from exporter.runtime import Classifier, windows
from trainer.adopt.adopt import adopt
from trainer.adopt.config import AdoptConfig
from trainer.config import TrainConfig, Truncation
from trainer.data import read_examples, read_texts
from trainer.errors import UserError
from trainer.model.capacity import check_token_types
from trainer.model.load import inputs_of
from trainer.model.trained import load_adapter
from trainer.progress import say_unseparated
from trainer.records import read_record
from trainer.run import RunDir
from trainer.tasks import task_of
from trainer.text.encoding import Encoded, Encoder
from trainer.training.loop import encode_rows, make_collator
from trainer.training.train import train

Command = Callable[..., tuple[int, str, str]]
Pair = tuple[str, str]
NAMES = ("premise", "hypothesis")


def make_pairs(count: int, seed: int = 0) -> list[tuple[Pair, str]]:
    """Return pairs, one text about food and one about money, labelled by which comes first.

    Their words together say nothing about that.
    """
    rng = random.Random(seed)
    pairs: dict[Pair, str] = {}

    def about(topic: str) -> str:
        words = [rng.choice(TOPICS[topic] if rng.random() < 0.6 else FILLER) for _ in range(rng.randint(2, 6))]
        return " ".join([*words, rng.choice(TOPICS[topic])])

    while len(pairs) < count:
        first, second = ("food", "money") if len(pairs) % 2 else ("money", "food")
        pairs[about(first), about(second)] = f"{first} first"
    return [*pairs.items()]


def make_encoder_checkpoint(folder: Path, kind: str, **values: object) -> Path:
    """Save an encoder of two layers, 32 wide, with random weights."""
    set_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
            "vocab_size": 5 + len(WORDS), "max_position_embeddings": 64, "pad_token_id": 0}  # fmt: skip
    model = AutoModel.from_config(AutoConfig.for_model(kind, **size | values))
    model.save_pretrained(folder)
    make_tokenizer(folder)
    described = json.loads((folder / "tokenizer_config.json").read_text())
    described["model_input_names"] = list(inputs_of(model))  # what transformers gives it
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    return folder


def separate(folder: Path, pair: str | None) -> Tokenizer:
    """Return the toy tokenizer with another template for pairs, and none at all where that is None."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = [("[CLS]", 2), ("[SEP]", 3)]
    template = pair and processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=pair, special_tokens=special)
    tokenizer.post_processor = template
    return tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy BERT, which has token types."""
    return make_encoder_checkpoint(tmp_path_factory.mktemp("pairs") / "bert", "bert")


@pytest.fixture(scope="module")
def config(base: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("pairs")
    rows: list[tuple[object, ...]] = [(*pair, label) for pair, label in make_pairs(160)]
    return TrainConfig(
        model=str(base),
        dataset=str(write_csv(folder / "pairs.csv", rows, (*NAMES, "label"))),
        text_column=NAMES,
        epochs=5,
        batch_size=8,
        learning_rate=1e-2,
        max_length=24,
        lora_dropout=0.0,
        precision="fp32",
        device="cpu",
        run_dir=folder / "run",
    )


@pytest.fixture(scope="module")
def run(config: TrainConfig) -> RunDir:
    """A trained and exported run, int8 included."""
    result = train(config)
    assert result
    assert result.training.best.accuracy > 0.9
    assert all(isinstance(example.text, tuple) for example in result.examples)
    asked = ExportConfig(run_dir=config.run_dir, quantize="dynamic", accept_undecided=True, verify_samples=16)
    export(asked, LocalWorker, RECIPES[:1])
    return RunDir(config.run_dir)


@pytest.fixture(scope="module")
def classifier(run: RunDir) -> Classifier:
    return Classifier.load(run.export / load_export(run).chosen)


# --- cutting

WORD_LISTS = st.lists(st.sampled_from(WORDS), max_size=20).map(" ".join)
TEMPLATES = ["[CLS] $A [SEP] $B:1 [SEP]:1", "[CLS] $A [SEP] [SEP] $B [SEP]", "$A [SEP] $B:1", None]


@pytest.mark.parametrize("template", TEMPLATES)
@given(first=WORD_LISTS, second=WORD_LISTS, max_length=st.integers(6, 30))
def test_pairs_are_cut_as_the_tokenizers_library_cuts_the_longer_first(
    base: Path, template: str | None, first: str, second: str, max_length: int
) -> None:
    theirs, sides = separate(base, template), {"head": "right", "tail": "left"}
    for rule, side in sides.items():
        encoder = Encoder(separate(base, template), max_length, rule, 0, pairs=True)  # type: ignore[arg-type]
        theirs.enable_truncation(max_length, strategy="longest_first", direction=side)
        expected = theirs.encode(first, second)
        (encoded,) = encoder.encode([(first, second)])
        batch = encoder.pad([encoded])
        assert encoded.ids == (expected.ids or [0])
        assert batch["token_type_ids"].tolist() == [expected.type_ids or [0]]
        own = [sum(source == text for source in expected.sequence_ids) for text in (0, 1)]
        assert encoded.sizes == tuple(own)
        theirs.no_truncation()
        assert encoded.truncated == (len(theirs.encode(first, second).ids) > max_length)


@given(first=WORD_LISTS, second=WORD_LISTS, max_length=st.integers(5, 30))
def test_head_tail_keeps_both_ends_of_each_text(base: Path, first: str, second: str, max_length: int) -> None:
    def encoded(rule: Truncation, length: int) -> tuple[Encoded, list[int], list[int]]:
        (e,) = Encoder.load(base, length, rule, 0, pairs=True).encode([(first, second)])
        return e, e.ids[1 : 1 + e.sizes[0]], e.ids[2 + e.sizes[0] : -1]

    whole, cut, as_head = encoded("head", 64), encoded("head-tail", max_length), encoded("head", max_length)
    assert cut[0].sizes == as_head[0].sizes
    for body, kept in zip(whole[1:], cut[1:], strict=True):
        quarter = round(len(kept) / 4)
        assert kept == (body[:quarter] + body[len(body) - len(kept) + quarter :] if len(kept) < len(body) else body)


def test_of_very_long_texts_both_ends_are_kept(base: Path) -> None:
    long, other, short = "soup " + "the " * 30_000 + "salt", "goal " + "a " * 60_000 + "race", "bank loan"
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    ids = {text: tokenizer.encode(text, add_special_tokens=False).ids for text in (long, other, short)}
    for first, second, sizes in ((long, short, (18, 2)), (short, long, (2, 18)), (long, other, (10, 10))):
        one, two = ids[first], ids[second]
        (head,) = Encoder.load(base, 23, "head", 0, pairs=True).encode([(first, second)])
        assert head.ids == [2, *one[: sizes[0]], 3, *two[: sizes[1]], 3]
        (tail,) = Encoder.load(base, 23, "tail", 0, pairs=True).encode([(first, second)])
        assert tail.ids == [2, *one[-sizes[0] :], 3, *two[-sizes[1] :], 3]


def test_own_tokens_are_shared_between_the_texts_of_another_length(base: Path) -> None:
    encoder = Encoder.load(base, 24, "head", 0, pairs=True)
    for pair in (("soup bread salt", "goal"), ("", "goal"), ("", "")):
        (encoded,) = encoder.encode([pair])
        for tokens in range(1, encoder.room + 1):
            resized = encoder.resize(encoded, tokens)
            assert (len(resized), sum(resized.sizes)) == (tokens + 3, tokens)
            assert 0 <= resized.sizes[0] - resized.sizes[1] <= 1
            types = encoder.pad([resized])["token_type_ids"][0].tolist()
            assert types == [0] * (resized.sizes[0] + 2) + [1] * (resized.sizes[1] + 1)


def test_padding_has_type_0_and_rows_know_their_types(base: Path, classifier: Classifier) -> None:
    encoder = Encoder.load(base, 24, "head", 0, pairs=True)
    batch = encoder.pad(encoder.encode([("soup", "goal race"), ("a", "b")]), 9)
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0, 0, 0, 0]]
    assert set(classifier.engine.model.feeds(encoder.encode([("a", "b")]))) == set(batch)  # type: ignore[attr-defined]


def test_what_makes_no_pairs_is_refused(base: Path, checkpoint: Path) -> None:
    with pytest.raises(UserError, match="cannot make pairs"):
        Encoder(separate(base, "[CLS] $B [SEP] $A [SEP]"), 24, "head", 0, pairs=True)
    with pytest.raises(UserError, match="leaves no room beside 3 special tokens"):
        Encoder.load(checkpoint, 4, "head", 0, pairs=True)
    three = Encoder(separate(base, "[CLS] $A [SEP] $B:2 [SEP]:2"), 24, "head", 0, pairs=True)
    with pytest.raises(UserError, match="makes pairs with 3 token types, and the model has 2"):
        check_token_types(AutoConfig.from_pretrained(base), three)
    check_token_types(AutoConfig.from_pretrained(base), Encoder.load(base, 24, "head", 0, pairs=True))
    for pairs, text in ((True, "ab"), (False, ("a", "b"))):
        with pytest.raises(TypeError, match="this encoder takes"):
            Encoder.load(base, 24, "head", 0, pairs=pairs).encode([text])  # type: ignore[list-item]


def test_a_tokenizer_that_puts_nothing_between_is_noted(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say_unseparated(Encoder.load(base, 24, "head", 0, pairs=True))
    say_unseparated(Encoder(separate(base, None), 24, "head", 0))
    assert capsys.readouterr().err == ""
    say_unseparated(Encoder(separate(base, "[CLS] $A $B:1 [SEP]:1"), 24, "head", 0, pairs=True))
    assert "puts nothing between the two texts of a pair" in capsys.readouterr().err


# --- training and export


def test_token_types_go_to_models_that_have_several(base: Path, run: RunDir, tmp_path: Path) -> None:
    names = ("input_ids", "attention_mask")
    trained = load_adapter(run, run.load())
    assert inputs_of(trained) == (*names, "token_type_ids")
    for kind in ("roberta", "gpt2"):
        config = {"type_vocab_size": 1} if kind == "roberta" else {"n_embd": 32, "n_layer": 1, "n_head": 2}
        folder = make_encoder_checkpoint(tmp_path / kind, kind, **config)
        assert inputs_of(AutoModelForSequenceClassification.from_pretrained(folder)) == names
    encoder = Encoder.load(base, 24, "head", 0, pairs=True)
    examples = read_examples(run.evaluation, run.load().label_names)
    rows = encode_rows(encoder, task_of("single-label", 2), examples)
    batch = make_collator(encoder, inputs_of(trained))(rows[:4])
    assert batch["token_type_ids"].sum(1).tolist() == [row["sizes"][1] + 1 for row in rows[:4]]


def test_a_model_without_token_types_reads_pairs_too(config: TrainConfig, tmp_path: Path) -> None:
    roberta = make_encoder_checkpoint(tmp_path / "roberta", "roberta", type_vocab_size=1, max_position_embeddings=80)
    train(replace(config, model=str(roberta), epochs=1, run_dir=tmp_path / "run"))
    record = export(ExportConfig(run_dir=tmp_path / "run", verify_samples=8), LocalWorker)
    classifier = Classifier.load(tmp_path / "run" / "export" / record.chosen)
    pair, swapped = classifier.logits([("soup bread", "bank"), ("bank", "soup bread")])
    assert not np.allclose(pair, swapped)


def test_every_step_answers_alike(run: RunDir) -> None:
    examples, record = read_examples(run.evaluation, run.load().label_names), load_export(run)
    assert run.load().pairs
    assert all(artifact.pairs for artifact in record.artifacts)
    trained = load_trained(run).logits(examples.texts)
    exported = Classifier.load(run.export / "onnx-fp32").logits(examples.texts)
    assert np.abs(trained - exported).max() < 1e-4
    int8 = Classifier.load(run.export / "onnx-int8").logits(examples.texts)
    for logits in (trained, exported, int8):
        assert (logits.argmax(-1) == np.array(examples.labels)).mean() > 0.9
    swapped = Classifier.load(run.export / "onnx-fp32").logits([(b, a) for a, b in examples.texts])  # type: ignore[misc]
    assert (swapped.argmax(-1) != np.array(examples.labels)).mean() > 0.9


def test_the_card_and_the_next_command_say_that_it_reads_pairs(run: RunDir) -> None:
    card = (run.export / "onnx-int8" / "README.md").read_text()
    assert "It reads pairs of texts, which together are cut to 24 tokens (`head`), the longer text first." in card
    assert '.predict([("a text", "its pair")])' in card
    assert 'classify([{"text": "a text", "text_pair": "its pair"}], truncation=True' in card
    assert "exporter.predict --run-dir" in summary(read_record(run.export_record, ExportRecord))
    assert '"A text." "And its pair."' in summary(read_record(run.export_record, ExportRecord))


def test_golden_answers_are_to_pairs(run: RunDir, copy_of: Callable[[RunDir], RunDir]) -> None:
    folder = copy_of(run).export / "onnx-fp32"
    golden = read_record(folder / "golden.json", Golden)
    assert golden.asked() == [*PAIRS]
    assert Classifier.load(folder)
    values = json.loads((folder / "golden.json").read_text())
    for change in ({"second_texts": []}, {"second_texts": values["second_texts"][:-1]}):
        (folder / "golden.json").write_text(json.dumps(values | change))
        write_checksums(folder)
        with pytest.raises(IntegrityError, match="its texts are not pairs"):
            Classifier.load(folder)
    changed = [*values["second_texts"][:-1], "soup salt"]
    (folder / "golden.json").write_text(json.dumps(values | {"second_texts": changed}))
    write_checksums(folder)
    with pytest.raises(IntegrityError, match="answers differently"):
        Classifier.load(folder)


def test_a_merged_checkpoint_is_adopted_with_pairs(run: RunDir, config: TrainConfig, tmp_path: Path) -> None:
    adopt(
        AdoptConfig(
            run.export / "pytorch-fp32", dataset=config.dataset, text_column=NAMES, run_dir=tmp_path / "adopted"
        )
    )
    adopted = RunDir(tmp_path / "adopted")
    assert adopted.load().pairs
    texts = read_examples(adopted.evaluation, adopted.load().label_names).texts[:8]
    assert np.allclose(load_trained(adopted).logits(texts), load_trained(run).logits(texts), atol=1e-5)


# --- answering


@pytest.mark.parametrize(
    ("texts", "advice"),
    [
        ([("a", "b"), "one text"], "and item 1 is of type str$"),
        (("a", "b"), "and item 0 is of type str$"),
        ("one text", r"not str; for one pair pass `\[\(first, second\)\]`$"),
        ([("a",)], r"and item 0 holds \(str\)$"),
        ([("a", "b"), ["a", "b", "c", "d"]], r"and item 1 holds \(str, str, str, …\)$"),
        ([("a", None)], r"and item 0 holds \(str, NoneType\); for a missing text pass `''`$"),
        (pandas.DataFrame({"a": ["b"]}), r"not DataFrame; pass two of its columns, such as `zip\(table\['text'\], "),
    ],
    ids=str,
)
def test_what_is_no_list_of_pairs_is_a_type_error_that_says_what_to_pass(
    classifier: Classifier, texts: Any, advice: str
) -> None:
    beginning = "this classifier reads pairs: texts must be a list of tuples of two str, "
    with pytest.raises(TypeError, match=f"^{beginning}{advice}"):
        classifier.predict(texts)


def test_lists_tuples_and_streams_of_pairs_are_answered_alike(classifier: Classifier) -> None:
    pairs = [pair for pair, _ in make_pairs(20, seed=1)]
    expected = classifier.predict(pairs)
    assert [answer.label for answer in expected] == [label for _, label in make_pairs(20, seed=1)]
    assert classifier.predict([list(pair) for pair in pairs]) == expected  # type: ignore[misc]
    assert [*classifier.stream(iter(pairs))] == [*zip(pairs, expected, strict=True)]
    assert [answer.truncated for answer in classifier.predict([("soup", "bank " * 40), ("soup", "bank")])] == [
        True,
        False,
    ]
    with pytest.raises(UserError, match="text 2 of the input is not valid Unicode"):
        classifier.predict([("a", "b"), ("a", "\ud800")])
    assert [len(window) for window in windows([("a" * 2**19, "b" * 2**19)] * 3)] == [1, 1, 1]


def answers_in(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_file_of_pairs_is_answered_row_by_row_and_can_be_read_again(
    run: RunDir, classifier: Classifier, command: Command, tmp_path: Path
) -> None:
    pairs: list[Any] = [*(pair for pair, _ in make_pairs(9, seed=2)), ("soup,\n salt", ""), ("=bank", 'a "loan"')]
    source = write_csv(tmp_path / "in.csv", pairs, ("hypothesis", "premise"))  # found by their names, not their order
    flags = ("--run-dir", run.path, "--output")
    status, _, err = command(exporter.predict.main, *flags, tmp_path / "out.jsonl", "--file", source)
    assert (status, 'pairs of texts in "premise" and "hypothesis"' in err) == (0, True)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [[*line][:3] for line in lines] == [["text", "text_pair", "label"]] * len(pairs)
    assert [(line["text_pair"], line["text"]) for line in lines] == pairs
    assert [line["label"] for line in lines] == [a.label for a in classifier.predict([(b, a) for a, b in pairs])]

    assert read_texts(tmp_path / "out.jsonl", pairs=True) == [(b, a) for a, b in pairs]
    status, _, _ = command(exporter.predict.main, *flags, tmp_path / "again.csv", "--file", tmp_path / "out.jsonl")
    again = answers_in(tmp_path / "again.csv")
    assert [*again[0]][:3] == ["text", "text_pair", "label"]
    assert [row["label"] for row in again] == [line["label"] for line in lines]
    named = ("--text-column", "hypothesis", "premise")
    command(exporter.predict.main, *flags, tmp_path / "swapped.csv", "--file", source, *named)
    assert [row["text"] for row in answers_in(tmp_path / "swapped.csv")][:9] == [first for first, _ in pairs][:9]


def test_the_columns_of_the_training_are_found_in_their_order(tmp_path: Path) -> None:
    rows = [(f"why {i}", f"because {i}", f"sure {i}") for i in range(4)]
    path = write_csv(tmp_path / "a.csv", rows, ("question", "context", "mine"))
    assert read_texts(path, pairs=True)[0] == ("why 0", "because 0")
    assert read_texts(path, pairs=True, trained=("context", "question"))[0] == ("because 0", "why 0")
    assert read_texts(path, trained=("mine",))[0] == "sure 0"
    assert read_texts(path, pairs=True, trained=("gone", "question"))[0] == ("why 0", "because 0")


def test_pairs_as_arguments_and_lines(run: RunDir, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("--run-dir", run.path)
    status, out, _ = command(exporter.predict.main, *flags, "soup bread", "bank", "bank loan", "salt")
    assert status == 0
    assert [line.split("  ")[0] for line in out.splitlines()] == ["food first", "money first"]
    assert out.splitlines()[0].endswith(")  soup bread | bank")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"soup bread\tbank\r\nbank loan\tsalt\n")))
    assert command(exporter.predict.main, *flags)[1] == out


@pytest.mark.parametrize(
    ("texts", "lines", "message"),
    [
        (["soup", "bank", "salt"], b"", "reads pairs of texts, and 3 texts were given"),
        ([], b"soup\tbank\nsalt\n", "line 2 of standard input has 0 tabs"),
        ([], b"soup\tbank\tsalt\n", "line 1 of standard input has 2 tabs"),
        ([], b"\n", "no text to classify"),
    ],
)
def test_half_a_pair_is_refused(
    run: RunDir, command: Command, monkeypatch: pytest.MonkeyPatch, texts: Sequence[str], lines: bytes, message: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    status, _, err = command(exporter.predict.main, "--run-dir", run.path, *texts)
    assert status == 2
    assert message in err


def test_one_column_for_a_classifier_of_pairs_is_refused(run: RunDir, command: Command, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", [("soup", 1)])
    flags = ("--run-dir", run.path, "--file", source)
    for more, message in (
        ([], "cannot tell which columns of"),
        (["--text-column", "text"], "this classifier reads pairs of texts, from two columns"),
        (["--text-column", "text", "text"], "`--text-column` names `text` twice"),
    ):
        status, out, err = command(exporter.predict.main, *flags, *more)
        assert (status, out) == (2, "")
        assert message in err


def test_columns_that_cannot_be_meant_are_refused() -> None:
    for make in (TrainConfig, lambda **values: AdoptConfig(Path("a"), dataset="b", **values), BenchConfig):
        with pytest.raises(UserError, match="`--text-column` names 3 columns"):
            make(text_column=("a", "b", "c"))
        with pytest.raises(UserError, match="`--text-column` names `a` twice"):
            make(text_column=("a", "a"))


# --- measuring


def test_a_benchmark_reads_pairs(run: RunDir, tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_bytes("premise;hypothesis\nsoup;bänk\n".encode("utf-16"))
    workload = Workload.read(BenchConfig(run_dir=run.path, texts=own, encoding="utf-16", threads=1))
    assert workload.own_tokens == (5,)
    assert workload.min_tokens == 4
    assert all(isinstance(text, tuple) for text in workload.examples.texts)


def test_reports_say_that_the_texts_are_pairs() -> None:
    for pairs in (True, False):
        summary = summarise(replace(make_record(), pairs=pairs))
        for report in (markdown(summary), render_page(summary)):
            assert ("A text is a pair of texts here, and its tokens are those of both." in report) == pairs
        assert ("pairs of texts for accuracy" in render_page(summary)) == pairs


def test_other_tools_are_asked_pairs(run: RunDir, tmp_path: Path) -> None:
    import torch

    texts = read_examples(run.evaluation, run.load().label_names).texts[:5]
    (spec,) = (spec for spec in PIPELINES if spec.name == "transformers-pipeline")
    peer = spec.load(run, torch.get_num_threads(), tmp_path)
    ours = Classifier.load(run.export / "onnx-fp32").logits(texts)
    ours = ours - np.log(np.exp(ours).sum(-1, keepdims=True))
    assert np.allclose(peer.logits(texts), ours, atol=1e-3)
    assert np.allclose(peer.logits(texts[:1]), ours[:1], atol=1e-3)
    fit(run, tmp_path)
    assert load(run, 1, tmp_path).logits(texts).shape == (5, 2)
