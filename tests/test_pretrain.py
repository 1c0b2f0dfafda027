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
from transformers import AutoModelForMaskedLM

import trainer.pretrain.__main__
from trainer.config import TrainConfig
from trainer.errors import UserError
from trainer.model import load_tokenizer
from trainer.pretrain.config import PretrainConfig, PretrainRecord
from trainer.pretrain.corpus import Batches, read_corpus, stream_of, tokenize
from trainer.pretrain.objective import Summary, Tap
from trainer.pretrain.terms import Terms
from trainer.pretrain.train import RECORD, pretrain
from trainer.pretrain.vectors import word_vectors
from trainer.records import file_sha256, read_record
from trainer.run import RunDir
from trainer.train import train


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
    assert read_record(config.output_dir / RECORD, PretrainRecord) == scratch
    assert scratch.evaluations[-1].loss < scratch.evaluations[0].loss - 0.3
    assert scratch.weights_sha256 == file_sha256(config.output_dir / "model.safetensors")
    assert (scratch.texts, scratch.held_out_texts) == (297, 3)
    assert not (config.output_dir / "checkpoints").exists()


def test_the_trainer_takes_it(scratch: PretrainRecord, topics_csv: Path, tmp_path: Path) -> None:
    base = str(scratch.config.output_dir)
    train(TrainConfig(model=base, dataset=str(topics_csv), epochs=1, max_length=32, device="cpu", run_dir=tmp_path))
    assert RunDir(tmp_path).load().base.name == str(scratch.config.output_dir.resolve())


def test_a_checkpoint_is_continued_with_its_own_tokenizer(
    config: PretrainConfig, scratch: PretrainRecord, tmp_path: Path
) -> None:
    base = scratch.config.output_dir
    again = pretrain(dataclasses.replace(config, model=str(base), output_dir=tmp_path / "on", save_precision="fp16"))
    assert again
    assert again.evaluations[0].loss < scratch.evaluations[0].loss - 0.3
    assert load_tokenizer(tmp_path / "on").get_vocab() == load_tokenizer(base).get_vocab()
    assert {t.dtype for t in load_file(tmp_path / "on" / "model.safetensors").values()} == {torch.float16}


@pytest.mark.parametrize("width", [64, 128], ids=["same width", "wider"])
def test_a_teacher_is_learnt_from(config: PretrainConfig, scratch: PretrainRecord, tmp_path: Path, width: int) -> None:
    teacher = str(scratch.config.output_dir)
    student = dataclasses.replace(config, teacher=teacher, width=width, output_dir=tmp_path / "student", epochs=4)
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
    odd = dataclasses.replace(
        config, model=str(checkpoint), teacher=str(scratch.config.output_dir), output_dir=tmp_path / "odd"
    )
    with pytest.raises(UserError, match="number their tokens differently"):
        pretrain(odd)


def test_an_interrupted_run_goes_on_to_the_same_end(
    config: PretrainConfig, scratch: PretrainRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = dataclasses.replace(config, output_dir=tmp_path / "model")
    with monkeypatch.context() as patch:
        patch.setattr("trainer.pretrain.train._Report.on_save", interrupt, raising=False)
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


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def batches(text: Path, checkpoint: Path, **changes: object) -> Batches:
    tokenizer = load_tokenizer(checkpoint)
    options = {"tokens": 4000, "lengths": [(16, 0.75), (32, 0.25)], "batch_tokens": 64, "mask_ratio": 0.2, "seed": 1}
    return Batches(tokenize(tokenizer, read_corpus([text], None, 0).train), tokenizer, **options | changes)  # type: ignore[arg-type]


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
    assert terms.within(np.array([1, 5, 6, 5, 2])).tolist() == [5, 6, 10]
    assert terms.within(np.array([1, 5, 6, 7, 2])).tolist() == [5, 6, 7, 10, 11, 12]
    assert terms.within(np.array([1])).tolist() == []
    assert terms.shares[[5, 8, 10]] == pytest.approx(np.array([30, 5, 30]) / 100)
    weights = terms.weights()
    assert weights[0] == weights[3] == 0, "what never occurs does not count"
    assert weights[8] > weights[5] > 0, "what is frequent counts less"


def test_the_summary_reads_the_first_vector_alone() -> None:
    """Its loss is that of a softmax over the terms, written out by hand."""
    torch.manual_seed(0)
    terms = Terms(np.array([5, 6, 7, 2] * 30), 10, [0, 1, 2])
    words = torch.randn(10, 4)
    summary = Summary(terms, words)
    assert torch.allclose(summary.phrases[0], (words[5] + words[6]) / 2**0.5)
    first = torch.randn(2, 4)
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
    stream = stream_of(documents, 3)
    terms = Terms(stream, len(tokenizer), tokenizer.all_special_ids)
    batch = batches(text, checkpoint, terms=terms)[0]
    plain = batches(text, checkpoint)[0]
    assert torch.equal(batch["input_ids"], plain["input_ids"]), "terms change no mask"
    restored = batch["input_ids"].flatten().clone()
    restored[batch["positions"]] = batch["labels"]
    for number, row in enumerate(restored.reshape(batch["input_ids"].shape)):
        found = batch["terms"][batch["term_rows"] == number].tolist()
        assert found == terms.within(row.numpy()).tolist()
        assert {token for token in row.tolist() if token > 4} == {term for term in found if term < len(tokenizer)}


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


def test_other_files_are_left_alone(config: PretrainConfig, scratch: PretrainRecord, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        pretrain(dataclasses.replace(config, output_dir=tmp_path, overwrite=True))
    copied = Path(shutil.copytree(scratch.config.output_dir, tmp_path / "model"))
    with pytest.raises(UserError, match="holds a pretrained model"):
        pretrain(dataclasses.replace(config, output_dir=copied))


@pytest.mark.parametrize(
    "changes",
    [{"text": ()}, {"mask_ratio": 1.0}, {"epochs": 0}, {"width": 100}, {"batch_tokens": 8}, {"learning_rate": -1}],
    ids=str,
)
def test_a_value_out_of_range_is_refused(config: PretrainConfig, changes: dict[str, object]) -> None:
    with pytest.raises(UserError):
        dataclasses.replace(config, **changes)  # type: ignore[arg-type]
