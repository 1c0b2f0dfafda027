"""The truncation rule keeps what tells labels apart, by training texts alone; it is `head` where no rule is better."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from toys import FILLER, TOPICS, make_texts, write_csv

from trainer.config import TrainConfig, Truncation
from trainer.data.load import Examples
from trainer.lexical.truncation import TruncationChoice, best_rule, choose_truncation
from trainer.records import read_record, write_record
from trainer.run import RunDir, UnfinishedRun
from trainer.tasks import MultiLabel, SingleLabel, Task
from trainer.text.encoding import Encoder
from trainer.text.texts import Text
from trainer.text.tokenizing import TextTokenizer
from trainer.training.train import train

LENGTH = 24
"""With two special tokens, 22 of a text: `head-tail` keeps its first 6 and its last 16."""
WORDS = [words[0] for words in TOPICS.values()]


@pytest.fixture
def encoder(checkpoint: Path) -> Encoder:
    return Encoder.load(checkpoint, LENGTH, "head", 0)


def told_at(places: Sequence[int], count: int = 320, words: int = 40) -> Examples:
    """Return texts of which one word tells the topic, at one of the `places`; the others are noise."""
    rng, texts, labels = random.Random(0), [], []
    for i in range(count):
        text = rng.choices(FILLER, k=words)
        text[rng.choice(places)] = WORDS[i % 4]
        texts.append(" ".join(text))
        labels.append(i % 4)
    return Examples([*texts], [*labels])


def choose(encoder: Encoder, examples: Examples, task: Task | None = None) -> TruncationChoice:
    return choose_truncation(encoder, examples, task or SingleLabel(4), seed=0)


@pytest.mark.parametrize(
    ("places", "rule"),
    [
        (range(8, 20), "head"),
        (range(-22, -17), "tail"),
        ([*range(6), *range(-16, 0)], "head-tail"),
        (range(-16, 0), "head-tail"),  # as good as `tail`, and keeps the beginning
    ],
)
def test_the_rule_keeps_what_tells_labels_apart(encoder: Encoder, places: Sequence[int], rule: Truncation) -> None:
    choice = choose(encoder, told_at(places))
    assert choice.rule == rule
    trials = {trial.rule: trial for trial in choice.trials}
    assert trials.keys() == {"head", "tail", "head-tail"}
    assert trials[rule].accuracy == pytest.approx(1, abs=0.02)
    assert trials[rule].loss == pytest.approx(min(trial.loss for trial in choice.trials), rel=0.1)
    assert (choice.texts, choice.longer, choice.reason) == (320, 1, "")


def test_a_label_with_a_single_text_is_no_reason_not_to_compare(encoder: Encoder) -> None:
    examples = told_at(range(-22, -17))
    choice = choose(encoder, replace(examples, labels=[*examples.labels[:-1], 4]), SingleLabel(5))
    assert choice.rule == "tail"
    trial = next(trial for trial in choice.trials if trial.rule == "tail")
    assert trial.loss < 0.2  # one text in 320 at -30 alone would be 0.1 more
    assert trial.accuracy == pytest.approx(1, abs=0.02)


def test_texts_that_differ_only_where_they_are_cut_are_compared(encoder: Encoder) -> None:
    """Under `head` they are all the same, of which each fold has some."""
    examples = told_at(range(-16, 0))
    begun = ["the a of and we " * 8 + text for text in examples.texts]  # type: ignore[operator]
    assert choose(encoder, replace(examples, texts=[*begun])).rule in ("tail", "head-tail")


def test_noise_stays_at_the_head(encoder: Encoder) -> None:
    examples = told_at([*range(-16, 0)])
    labels = random.Random(1).sample(examples.labels, len(examples))
    assert choose(encoder, replace(examples, labels=labels)).rule == "head"


def test_a_rule_is_taken_if_it_is_better_by_more_than_chance() -> None:
    noise = np.tile(np.float32([1, -1]), 500)  # of its mean, the standard error is 0.032
    head = np.linspace(0, 3, 1000, dtype=np.float32)
    slightly, clearly = (head - gain + noise for gain in (0.06, 0.07))
    far = clearly - np.roll(noise, 1) - 0.07
    assert best_rule({"head": head, "tail": slightly, "head-tail": slightly}) == "head"
    assert best_rule({"head": head, "tail": clearly, "head-tail": slightly}) == "tail"
    assert best_rule({"head": head, "tail": clearly, "head-tail": clearly}) == "head-tail"
    other_noise = slightly - 2 * noise
    assert best_rule({"head": head, "tail": clearly, "head-tail": other_noise}) == "head-tail"
    assert best_rule({"head": head, "tail": far, "head-tail": clearly}) == "tail"
    assert best_rule({"head": head, "tail": head, "head-tail": head}) == "head"


@pytest.mark.parametrize(
    ("examples", "reason"),
    [
        (told_at([-1], words=22), "nothing to compare"),
        (told_at([-1], count=299), "299 texts are too few"),
        (replace(told_at([-1]), labels=[0] * 319 + [1]), "1 of 4 labels has more than one text"),
        (replace(told_at([-1]), texts=["the food " * 20] * 320), "1 texts are too few"),
    ],
)
def test_without_anything_to_compare_it_is_the_head(encoder: Encoder, examples: Examples, reason: str) -> None:
    choice = choose(encoder, examples)
    assert (choice.rule, choice.reason, choice.trials) == ("head", reason, ())
    assert reason in str(choice)


def test_of_several_labels_each_frequent_one_is_asked_about(encoder: Encoder) -> None:
    examples = told_at(range(-22, -17))
    several = replace(examples, labels=[(label,) if label < 3 else () for label in examples.labels])  # type: ignore[operator, misc]
    choice = choose(encoder, several, MultiLabel(5, (0.5,) * 5))
    assert choice.rule == "tail"
    assert choose(encoder, replace(several, labels=[()] * 320), MultiLabel(2, (0.5,) * 2)).trials == ()


def test_both_texts_of_a_pair_are_cut_by_the_rule(checkpoint: Path) -> None:
    examples = told_at(range(-6, 0))
    texts: list[Text] = [("the food", text) if i % 2 else (text, "the food") for i, text in enumerate(examples.texts)]  # type: ignore[misc]
    choice = choose(Encoder.load(checkpoint, LENGTH, "head", 0, pairs=True), replace(examples, texts=texts))
    assert choice.rule == "head-tail"


def test_both_ends_are_read_of_texts_that_are_not_tokenized_whole(encoder: Encoder, checkpoint: Path) -> None:
    encoder._tokenizer = TextTokenizer(Tokenizer.from_file(str(checkpoint / "tokenizer.json")), piece_characters=100)
    assert choose(encoder, told_at(range(-16, 0), words=100)).rule == "head-tail"


@pytest.mark.parametrize("rule", ["head", "tail", "head-tail"])
def test_what_is_compared_is_what_would_be_trained_on(checkpoint: Path, rule: Truncation) -> None:
    """Also of a text of which only the ends are tokenized."""
    texts = [" ".join(random.Random(0).choices(FILLER, k=count)) for count in (5, 60, 60_000)]
    tokens = Encoder.load(checkpoint, LENGTH, "head", 0).under("tail").tokens(texts)
    own = Encoder.load(checkpoint, LENGTH, rule, 0)
    assert [own.fit(bodies) for bodies in tokens] == own.encode(texts)
    assert [[*own.cut(bodies)] for bodies in tokens] == [[e.ids[1:-1]] for e in own.encode(texts)]


def test_a_run_says_how_it_was_chosen_and_keeps_to_it_when_it_is_resumed(
    toy_config: TrainConfig, tmp_path: Path
) -> None:
    rows = [(text, str(label)) for text, label in zip(*vars(told_at(range(-16, 0), 400)).values(), strict=True)]
    data = write_csv(tmp_path / "topics.csv", [*rows])
    config = replace(toy_config, dataset=str(data), epochs=1, run_dir=tmp_path / "run")
    train(config)
    run = RunDir(config.run_dir)
    training = run.load().training
    assert training is not None
    choice = training.truncation_choice
    assert choice is not None
    assert (run.load().truncation, choice.rule, training.config.truncation) == ("head-tail", "head-tail", "auto")

    other = replace(choice, rule="tail")
    write_record(run.unfinished, UnfinishedRun(training.config, run.load().base_sha256, training.data_sha256, other))
    assert read_record(run.unfinished, UnfinishedRun).truncation_choice == other
    train(replace(config, resume=True))
    assert run.load().truncation == "tail"


def test_a_rule_that_is_asked_for_is_not_questioned(toy_config: TrainConfig, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "topics.csv", [*make_texts(60)])
    train(replace(toy_config, dataset=str(data), epochs=1, truncation="tail", run_dir=tmp_path / "run"))
    record = RunDir(tmp_path / "run").load()
    assert record.training is not None
    assert (record.truncation, record.training.truncation_choice) == ("tail", None)
