"""Pretraining learns from plain text, can be interrupted, and leaves a checkpoint that the trainer takes."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toys import make_texts
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    BertConfig,
    ElectraConfig,
    PretrainedConfig,
    TrainerCallback,
    TrainingArguments,
)

import trainer.pretrain.__main__
from trainer.config import TrainConfig
from trainer.data import load_splits
from trainer.errors import UserError
from trainer.files.tables import Reading
from trainer.flags import flag_of
from trainer.model.load import load_tokenizer
from trainer.pretrain.config import PretrainConfig, PretrainRecord
from trainer.pretrain.corpus import Batches, learn_pieces, make_tokenizer, read_corpus, stream_of, tokenize
from trainer.pretrain.objective import HIDDEN_WEIGHT, SOFT_WEIGHT, TEMPERATURE, Summary, Tap, Teacher
from trainer.pretrain.output import OutputDir
from trainer.pretrain.terms import Terms
from trainer.pretrain.train import pretrain
from trainer.pretrain.vectors import word_vectors
from trainer.records import file_sha256, read_record
from trainer.run import RunDir
from trainer.training.resume import last_checkpoint
from trainer.training.train import train


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "topics.txt"
    path.write_text("\n".join(text for text, _ in make_texts(300)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def config(text: Path, tmp_path_factory: pytest.TempPathFactory) -> PretrainConfig:
    return PretrainConfig(
        text=(text,),
        vocabulary=300,
        width=64,
        layers=1,
        epochs=12,
        max_length=64,
        batch_tokens=256,
        device="cpu",
        precision="fp32",
        output_dir=tmp_path_factory.mktemp("pretrained") / "model",
    )


@pytest.fixture(scope="module")
def scratch(config: PretrainConfig) -> PretrainRecord:
    record = pretrain(config)
    assert record
    return record


def test_the_loss_falls_and_the_record_describes_the_weights(config: PretrainConfig, scratch: PretrainRecord) -> None:
    assert read_record(OutputDir(config.output_dir).record, PretrainRecord) == scratch
    assert scratch.evaluations[-1].loss < scratch.evaluations[0].loss - 0.3
    assert scratch.weights_sha256 == file_sha256(config.output_dir / "model.safetensors")
    assert (scratch.texts, scratch.held_out_texts) == (297, 3)
    assert not (config.output_dir / "checkpoints").exists()


def test_the_summary_takes_part_in_the_training(config: PretrainConfig, tmp_path: Path) -> None:
    """The model starts the same with and without it, and ends elsewhere."""
    runs = [
        pretrain(dataclasses.replace(config, epochs=1, summary_weight=weight, output_dir=tmp_path / str(weight)))
        for weight in (0, 3)
    ]
    first, last = ([run.evaluations[i].loss for run in runs if run] for i in (0, -1))
    assert first[0] == pytest.approx(first[1], abs=1e-6)
    assert last[0] != pytest.approx(last[1], abs=1e-4)


def test_the_trainer_takes_it(scratch: PretrainRecord, topics_csv: Path, tmp_path: Path) -> None:
    base = str(scratch.config.output_dir)
    train(TrainConfig(model=base, dataset=str(topics_csv), epochs=1, max_length=32, device="cpu", run_dir=tmp_path))
    assert RunDir(tmp_path).load().base.name == str(scratch.config.output_dir.resolve())


def test_a_checkpoint_is_continued_with_its_own_tokenizer(
    config: PretrainConfig, scratch: PretrainRecord, tmp_path: Path
) -> None:
    base = scratch.config.output_dir
    again = pretrain(continuing(config, str(base), output_dir=tmp_path / "on", save_precision="fp16"))
    assert again
    assert (again.evaluations[0].step, again.evaluations[0].tokens) == (0, 0)
    assert again.evaluations[0].loss == pytest.approx(scratch.evaluations[-1].loss, abs=1e-3), (
        "it starts where it ended"
    )
    assert again.base_sha256
    assert load_tokenizer(tmp_path / "on").get_vocab() == load_tokenizer(base).get_vocab()
    assert {t.dtype for t in load_file(tmp_path / "on" / "model.safetensors").values()} == {torch.float16}


def continuing(config: PretrainConfig, base: str, **changes: object) -> PretrainConfig:
    """What `config` asks, from a checkpoint instead of from scratch."""
    return dataclasses.replace(config, model=base, vocabulary=None, width=None, layers=None, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [64, 128], ids=["same width", "wider"])
def test_a_teacher_is_learnt_from(config: PretrainConfig, scratch: PretrainRecord, tmp_path: Path, width: int) -> None:
    teacher = str(scratch.config.output_dir)
    student = dataclasses.replace(
        config, teacher=teacher, vocabulary=None, width=width, output_dir=tmp_path / "student", epochs=4
    )
    record = pretrain(student)
    assert record
    assert record.teacher_sha256
    assert record.evaluations[-1].loss < record.evaluations[0].loss
    assert not [
        name
        for name in load_file(tmp_path / "student" / "model.safetensors")
        if "projection" in name or "summary" in name
    ]


def test_a_teacher_with_other_tokens_is_refused(
    config: PretrainConfig, scratch: PretrainRecord, checkpoint: Path, tmp_path: Path
) -> None:
    teacher = str(scratch.config.output_dir)
    with pytest.raises(UserError, match="number their tokens differently"):
        pretrain(continuing(config, str(checkpoint), teacher=teacher, output_dir=tmp_path / "student"))


def test_an_interrupted_run_goes_on_to_the_same_end(
    config: PretrainConfig, scratch: PretrainRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = dataclasses.replace(config, output_dir=tmp_path / "model")
    with monkeypatch.context() as patch:
        patch.setattr(TrainerCallback, "on_step_begin", interrupt_after_saving)
        with pytest.raises(KeyboardInterrupt):
            pretrain(here)
    with pytest.raises(UserError, match="interrupted run"):
        pretrain(here)
    with pytest.raises(UserError, match="the interrupted run had `--width 64`"):
        pretrain(dataclasses.replace(here, resume=True, width=128))
    resumed = pretrain(dataclasses.replace(here, resume=True))
    assert resumed
    assert [e.step for e in resumed.evaluations] == [e.step for e in scratch.evaluations]
    assert [e.loss for e in resumed.evaluations] == pytest.approx([e.loss for e in scratch.evaluations], abs=1e-4)


def test_a_run_interrupted_before_its_first_checkpoint_starts_as_it_did(
    config: PretrainConfig, scratch: PretrainRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = dataclasses.replace(config, output_dir=tmp_path / "model")
    with monkeypatch.context() as patch:
        patch.setattr(TrainerCallback, "on_train_begin", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pretrain(here)
    resumed = pretrain(dataclasses.replace(here, resume=True))
    assert resumed
    assert [e.loss for e in resumed.evaluations] == pytest.approx([e.loss for e in scratch.evaluations], abs=1e-4)


def test_a_run_started_again_learns_its_own_words(
    config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = dataclasses.replace(config, output_dir=tmp_path / "model", epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(TrainerCallback, "on_train_begin", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pretrain(here)
    other = tmp_path / "other.txt"
    other.write_text("\n".join(f"zebra {text}" for text, _ in make_texts(300)))
    pretrain(dataclasses.replace(here, text=(other,), overwrite=True))
    assert "zebra" in load_tokenizer(here.output_dir).get_vocab()


def test_a_run_is_not_resumed_on_other_text(
    config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("\n".join(text for text, _ in make_texts(100)))
    here = dataclasses.replace(config, text=(mine,), output_dir=tmp_path / "model")
    with monkeypatch.context() as patch:
        patch.setattr(TrainerCallback, "on_step_begin", interrupt_after_saving)
        with pytest.raises(KeyboardInterrupt):
            pretrain(here)
    mine.write_text("\n".join(text for text, _ in make_texts(101)))
    with pytest.raises(UserError, match="is not that of the interrupted run"):
        pretrain(dataclasses.replace(here, resume=True))


def test_a_run_that_diverges_is_stopped(config: PretrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training diverged: the evaluation loss after step 26 is nan"):
        pretrain(dataclasses.replace(config, learning_rate=1e30, output_dir=tmp_path / "model"))


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def interrupt_after_saving(_: object, arguments: TrainingArguments, *__: object, **___: object) -> None:
    if last_checkpoint(Path(arguments.output_dir)):
        raise KeyboardInterrupt


def batches(text: Path, checkpoint: Path, **changes: object) -> Batches:
    tokenizer = load_tokenizer(checkpoint)
    options = {"tokens": 4000, "lengths": [(16, 0.75), (32, 0.25)], "batch_tokens": 64, "mask_ratio": 0.2, "seed": 1}
    stream = stream_of(tokenize(tokenizer, read_corpus([text], None, 0).train), tokenizer)
    return Batches(stream, tokenizer, **options | changes)  # type: ignore[arg-type]


def test_every_token_is_drawn_before_any_is_drawn_again(text: Path, checkpoint: Path) -> None:
    some = batches(text, checkpoint, tokens=10**5, lengths=[(32, 1.0)], batch_tokens=32)
    stream = some._stream
    drawn = []
    for i in range(-(-len(stream) // 30)):
        flat = some[i]["input_ids"].flatten()
        flat[some[i]["positions"]] = some[i]["labels"]
        drawn.append(tuple(flat[1:-1].tolist()))
    cut = [tuple(stream[i : i + 30].tolist()) for i in range(0, len(stream) - 30, 30)]
    assert set(drawn) == {*cut, tuple(stream[-30:].tolist())}
    assert drawn[: len(cut)] != cut, "they are shuffled"


def test_batches_are_packed_short_first_and_masked_anew(text: Path, checkpoint: Path) -> None:
    some = batches(text, checkpoint)
    shapes = [tuple(some[i]["input_ids"].shape) for i in range(len(some))]
    assert shapes == [(4, 16)] * 47 + [(2, 32)] * 16
    assert some.tokens_before(len(some)) == 64 * 63
    for batch in (some[0], some[50]):
        ids = batch["input_ids"]
        assert (ids[:, 0] == 2).all()
        assert (ids[:, -1] == 3).all()
        assert not (ids == 0).any(), "a packed batch has no padding"
        assert not set(batch["labels"].tolist()) & {0, 1, 2, 3, 4}
    assert torch.equal(some[5]["input_ids"], batches(text, checkpoint)[5]["input_ids"])
    assert not torch.equal(some[5]["input_ids"], batches(text, checkpoint, seed=2)[5]["input_ids"])


def test_a_masked_token_is_mostly_hidden_and_all_others_stand(text: Path, checkpoint: Path) -> None:
    some = batches(text, checkpoint, tokens=100_000, lengths=[(32, 1.0)], batch_tokens=6400)
    hidden = kept = total = candidates = 0
    for i in range(len(some)):
        flat = some[i]["input_ids"].ravel()
        at = flat[some[i]["positions"]]
        hidden += int((at == 4).sum())
        kept += int((at == some[i]["labels"]).sum())
        total += len(at)
        elsewhere = torch.ones(len(flat), dtype=torch.bool)
        elsewhere[some[i]["positions"]] = False
        assert not (flat[elsewhere] == 4).any()
        candidates += int((elsewhere & (flat > 4)).sum())
    assert hidden / total == pytest.approx(0.8, abs=0.02)
    assert kept / total == pytest.approx(0.1, abs=0.02)
    assert total / (total + candidates) == pytest.approx(0.2, abs=0.005)


def test_the_head_sees_the_masked_positions_alone(checkpoint: Path) -> None:
    model = AutoModelForMaskedLM.from_pretrained(checkpoint).eval()
    ids = torch.randint(5, 20, (2, 12))
    positions = torch.tensor([1, 7, 20])
    with torch.no_grad():
        full = model(input_ids=ids).logits.flatten(0, 1)
        tap = Tap(model)
        tap.positions = positions
        assert torch.allclose(model(input_ids=ids).logits[0], full[positions], atol=1e-6)
    assert tap.hidden.shape == (2, 12, 32)


def test_terms_are_words_and_the_frequent_phrases() -> None:
    often, seldom = [5, 6, 7, 2], [8, 9, 2]
    terms = Terms(np.array(often * 30 + seldom * 5), 10, [0, 1, 2])
    assert terms.phrases == [(5, 6), (6, 7), (5, 6, 7)], "phrases hold no special token and occur twenty times"
    assert len(terms) == 13
    rows, found = terms.within(np.array([[1, 5, 6, 5, 2], [1, 5, 6, 7, 2], [1, 1, 2, 2, 2]]))
    assert list(zip(rows.tolist(), found.tolist(), strict=True)) == [
        (0, 5), (0, 6), (0, 10), (1, 5), (1, 6), (1, 7), (1, 10), (1, 11), (1, 12)
    ]  # fmt: skip
    assert terms.shares[[5, 8, 10]] == pytest.approx(np.array([30, 5, 30]) / 100)
    weights = terms.weights()
    assert weights[0] == weights[3] == 0, "what never occurs does not count"
    assert weights[8] > weights[5] > 0, "what is frequent counts less"


def test_the_summary_reads_the_first_vector_alone() -> None:
    """Its loss is that of a softmax over the terms, written out by hand."""
    torch.manual_seed(0)
    terms = Terms(np.array([5, 6, 7, 2] * 30), 10, [0, 1, 2])
    words = torch.randn(10, 4)
    summary = Summary(terms, words, width=3)
    assert torch.allclose(summary.phrases[0], (words[5] + words[6]) / 2**0.5)
    first = torch.randn(2, 3)
    batch = {"term_rows": torch.tensor([0, 0, 1]), "terms": torch.tensor([5, 10, 7])}
    scores = (first @ summary.transform.weight.T + summary.transform.bias) @ torch.cat([words, summary.phrases]).T
    likelihoods = (scores + summary.bias).softmax(dim=-1)
    weights = torch.from_numpy(terms.weights())
    expected = (
        sum(-weights[t] * likelihoods[r, t].log() for r, t in zip(batch["term_rows"], batch["terms"], strict=True))
        / weights[batch["terms"]].sum()
    )
    assert torch.allclose(summary.loss(first, words, batch), expected, atol=1e-5)


def test_a_batch_names_the_terms_that_stood_in_it_before_masking(text: Path, checkpoint: Path) -> None:
    tokenizer = load_tokenizer(checkpoint)
    documents = tokenize(tokenizer, read_corpus([text], None, 0).train)
    stream = stream_of(documents, tokenizer)
    terms = Terms(stream, len(tokenizer), tokenizer.all_special_ids)
    batch = batches(text, checkpoint, terms=terms)[0]
    plain = batches(text, checkpoint)[0]
    assert torch.equal(batch["input_ids"], plain["input_ids"]), "terms change no mask"
    restored = batch["input_ids"].flatten().clone()
    restored[batch["positions"]] = batch["labels"]
    for number, row in enumerate(restored.reshape(batch["input_ids"].shape)):
        found = batch["terms"][batch["term_rows"] == number].tolist()
        assert found == terms.within(row[None].numpy())[1].tolist()
        assert {token for token in row.tolist() if token > 4} == {term for term in found if term < len(tokenizer)}


def test_pieces_are_numbered_alike_each_time() -> None:
    texts = load_splits("sample", None).train.texts[:200]
    pieces = learn_pieces(texts, 2000)
    assert pieces == learn_pieces(texts, 2000)
    assert list(pieces)[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert list(pieces.values()) == list(range(2000))
    tokenizer = make_tokenizer(pieces)
    assert tokenizer.tokenize("The film wasn't filmed!")[:5] == ["the", "film", "wasn", "'", "t"]
    assert tokenizer.convert_ids_to_tokens(tokenizer("film").input_ids) == ["[CLS]", "film", "[SEP]"]
    assert not [piece for piece in pieces if piece.startswith("##") and not piece[2:].isalnum()]


def test_a_vocabulary_of_many_scripts_keeps_to_its_size() -> None:
    texts = [
        chr(code) * 2 + chr(code + 1) for start in (0x0400, 0x05D0, 0x0900, 0x4E00) for code in range(start, start + 90)
    ]
    assert len(learn_pieces(texts, 256)) <= 256


def test_a_teacher_is_copied_where_the_student_answers_alike(config: PretrainConfig, scratch: PretrainRecord) -> None:
    """Its loss is the cosine distance of the hidden states and the divergence of the answers, written out by hand."""
    folder = scratch.config.output_dir
    tokenizer = load_tokenizer(folder)
    teacher = Teacher(folder, tokenizer, config.max_length, "cpu")
    assert teacher.has_head
    ids = torch.randint(5, len(tokenizer), (2, 9))
    positions = torch.tensor([1, 4, 12])
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    with torch.no_grad():
        out = model(input_ids=ids, output_hidden_states=True)
        answers, hidden = out.logits.flatten(0, 1)[positions], out.hidden_states[-1]
        batch = {"input_ids": ids, "positions": positions}
        assert float(teacher.loss(answers, hidden, batch)) == pytest.approx(0, abs=1e-5)
        other, elsewhere = answers + torch.randn_like(answers), hidden + torch.randn_like(hidden)
        p, q = (answers / TEMPERATURE).softmax(-1), (other / TEMPERATURE).softmax(-1)
        divergence = (p * (p / q).log()).sum(-1).mean()
        cosine = (hidden * elsewhere).sum(-1) / hidden.norm(dim=-1) / elsewhere.norm(dim=-1)
        expected = SOFT_WEIGHT * TEMPERATURE**2 * divergence + HIDDEN_WEIGHT * (1 - cosine.mean())
        assert float(teacher.loss(other, elsewhere, batch)) == pytest.approx(float(expected), rel=1e-4)


def test_a_teacher_without_a_head_teaches_its_hidden_states(checkpoint: Path) -> None:
    """The toy checkpoint is an encoder alone."""
    teacher = Teacher(checkpoint, load_tokenizer(checkpoint), 32, "cpu")
    assert not teacher.has_head
    batch = {"input_ids": torch.randint(5, 20, (2, 9)), "positions": torch.tensor([1])}
    loss = teacher.loss(torch.randn(1, 20), torch.randn(2, 9, 32), batch)
    assert 0 < float(loss) <= 2 * HIDDEN_WEIGHT


@pytest.mark.parametrize(
    "architecture",
    [
        ElectraConfig(
            vocab_size=64, embedding_size=16, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=64,
        ),
        BertConfig(
            vocab_size=200, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=64,
        ),
    ],
    ids=["narrow embeddings", "more embeddings than tokens"],
)  # fmt: skip
def test_other_architectures_are_continued(
    config: PretrainConfig, checkpoint: Path, tmp_path: Path, architecture: PretrainedConfig
) -> None:
    AutoModel.from_config(architecture).save_pretrained(tmp_path / "base")
    load_tokenizer(checkpoint).save_pretrained(tmp_path / "base")
    short = continuing(config, str(tmp_path / "base"), epochs=1, output_dir=tmp_path / "on", learning_rate=1e-3)
    record = pretrain(short)
    assert record
    assert record.evaluations[-1].loss < record.evaluations[0].loss


def test_words_of_one_topic_get_similar_vectors() -> None:
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 5, 30) + 5 * (i % 2) for i in range(200)]
    vectors = word_vectors(documents, 11, 2)
    similarity = vectors @ vectors.T
    assert similarity[:5, :5].min() > 0.9
    assert np.abs(similarity[:5, 5:10]).max() < 0.5
    assert not vectors[10].any(), "a token that never occurs has no vector"


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "0 different texts"), ("one text\none text\n", "1 different texts"), ("a b c\nd e f\n", "do not fill one")],
)
def test_too_little_text_is_refused(
    tmp_path: Path, checkpoint: Path, command: Callable[..., tuple[int, str, str]], content: str, message: str
) -> None:
    (tmp_path / "few.txt").write_text(content)
    flags = ("--text", tmp_path / "few.txt", "--model", checkpoint, "--max-length", 32, "--device", "cpu")
    status, _, err = command(trainer.pretrain.__main__.main, *flags, "--output-dir", tmp_path / "out")
    assert status == 2
    assert message in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "flags", "message"),
    [
        ("a.csv", b"id,text\n1,one\n2,two\n", ("--text-column", "body"), "has no column `body`"),
        ("a.csv", b"id,number\n1,2\n", (), "--text-column"),
        ("a.txt", b"fine\n\xff\n", (), "is not valid UTF-8 at byte 5"),
        ("a.docx", b"words", (), "unknown file type `.docx`"),
        ("a.txt", None, (), "no file"),
        ("a.parquet", b"PAR1", (), "a.parquet"),
    ],
)
def test_unreadable_text_is_refused(
    tmp_path: Path,
    command: Callable[..., tuple[int, str, str]],
    name: str,
    content: bytes | None,
    flags: tuple[str, ...],
    message: str,
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    where = ("--text", tmp_path / name, "--output-dir", tmp_path / "out", *flags)
    status, out, err = command(trainer.pretrain.__main__.main, *where)
    assert (status, out) == (2, "")
    assert message in err
    assert not (tmp_path / "out").exists()


def test_a_text_file_has_a_text_a_line_and_tables_a_column(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffone\u2028still one\r\n\r\ntwo\nthree".encode())
    (tmp_path / "b.csv").write_text("id,text\n1,three\n2,four\n")
    (tmp_path / "c.jsonl").write_text('{"text": "five"}\n')
    corpus = read_corpus([tmp_path / name for name in ("a.txt", "b.csv", "c.jsonl")], None, 0)
    assert {*corpus.train, *corpus.held_out} == {"one\u2028still one", "two", "three", "four", "five"}
    assert len(corpus.held_out) == 1
    assert len(corpus.train) == 4


def test_text_in_another_encoding_and_without_a_header_is_read(tmp_path: Path) -> None:
    for name in ("a.txt", "b.csv"):
        (tmp_path / name).write_bytes("zwölf\nüber\n".encode("utf-16"))
    with pytest.raises(UserError, match="not valid UTF-8"):
        read_corpus([tmp_path / "a.txt"], None, 0)
    for name, column, reading in (
        ("a.txt", None, Reading("utf-16")),
        ("b.csv", "1", Reading("utf-16", no_header=True)),
    ):
        corpus = read_corpus([tmp_path / name], column, 0, reading)
        assert {*corpus.train, *corpus.held_out} == {"zwölf", "über"}
    with pytest.raises(UserError, match="`--no-header` is for CSV and TSV files"):
        read_corpus([tmp_path / "a.txt"], None, 0, Reading("utf-16", no_header=True))


def test_other_files_are_left_alone(config: PretrainConfig, scratch: PretrainRecord, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "checkpoints").mkdir(parents=True)
    for name in ("checkpoints/config.json", "checkpoints/pretrain.unfinished.json", "pretrain.json"):
        (theirs / name).write_text('{"model_type": "distilbert"}')
    with pytest.raises(UserError, match="holds no pretraining"):
        pretrain(dataclasses.replace(config, output_dir=theirs, overwrite=True))
    assert len([path for path in theirs.rglob("*") if path.is_file()]) == 3
    copied = Path(shutil.copytree(scratch.config.output_dir, tmp_path / "model"))
    with pytest.raises(UserError, match="holds a pretrained model"):
        pretrain(dataclasses.replace(config, output_dir=copied))
    with pytest.raises(UserError, match="is a checkpoint that the run learns from"):
        pretrain(continuing(config, str(copied), output_dir=copied, overwrite=True))
    again = pretrain(dataclasses.replace(config, output_dir=copied, overwrite=True, seed=1, epochs=1))
    assert again == read_record(OutputDir(copied).record, PretrainRecord)


@pytest.mark.parametrize(
    "changes",
    [
        {"mask_ratio": 1.0}, {"epochs": 0}, {"epochs": float("inf")}, {"width": 100}, {"batch_tokens": 8},
        {"learning_rate": -1}, {"summary_weight": -1}, {"vocabulary": 10},
    ],
    ids=str,
)  # fmt: skip
def test_a_value_out_of_range_is_refused(config: PretrainConfig, changes: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"`{flag_of(next(iter(changes)))} "):
        dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def test_flags_that_would_do_nothing_are_refused(text: Path) -> None:
    with pytest.raises(UserError, match="no text"):
        PretrainConfig()
    with pytest.raises(UserError, match="`--width` has no effect with `--model`"):
        PretrainConfig(text=(text,), model="distilbert-base-uncased", width=128)
    with pytest.raises(UserError, match="`--vocabulary` has no effect with `--teacher`"):
        PretrainConfig(text=(text,), teacher="distilbert-base-uncased", vocabulary=1000)
    with pytest.raises(UserError, match="cannot be combined"):
        PretrainConfig(text=(text,), resume=True, overwrite=True)
