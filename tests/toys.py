"""Toys that tests build their own truth from: labelled texts with a rule in them, and a tokenizer to match."""

from __future__ import annotations

import csv
import random
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

TOPICS = {
    "food": ["soup", "bread", "cheese", "oven", "salt"],
    "money": ["bank", "loan", "price", "coin", "tax"],
    "music": ["drum", "song", "choir", "tune", "harp"],
    "sport": ["goal", "race", "team", "ball", "coach"],
}
FILLER = ["the", "a", "of", "and", "we", "saw", "it", "again", "today", "with"]
WORDS = sorted({word for words in TOPICS.values() for word in words} | set(FILLER))


def make_texts(count: int, seed: int = 0, longest: int = 30) -> list[tuple[str, str]]:
    """Return `count` different texts of 3 to `longest` words with their topic, which a few words give away."""
    rng = random.Random(seed)
    rows: dict[str, str] = {}
    while len(rows) < count:
        topic = list(TOPICS)[len(rows) % len(TOPICS)]
        words = [rng.choice(TOPICS[topic] if rng.random() < 0.5 else FILLER) for _ in range(rng.randint(3, longest))]
        rows[" ".join([rng.choice(TOPICS[topic]), *words])] = topic
    return list(rows.items())


TOKENIZER_FILES = {"tokenizer.json", "tokenizer_config.json"}
"""What saving a tokenizer leaves."""
if version("transformers").startswith("4."):
    TOKENIZER_FILES.add("special_tokens_map.json")


# CPython ends by the signal itself where the interrupt came inside `exec`, as imports use it. A shell says 130 to both.
INTERRUPTED = (130, -signal.SIGINT)


QUICK_BENCH = [
    sys.executable,
    "-c",
    """if True:
        from functools import partial
        from bench.__main__ import main
        from bench.measure.instruments import Instruments
        from bench.measure.machine import measure_machine
        from bench.run import bench
        from trainer.errors import run_command

        quick = Instruments(measure_machine=partial(measure_machine, repeat_s=0.001))
        raise SystemExit(run_command(partial(main, partial(bench, instruments=quick)), if_interrupted="again"))
    """,
]
"""`python -m bench` with the real processes, but for ten seconds in which it measures the machine."""


def start(command: list[str]) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, as a terminal does, with Ctrl-C in effect.

    Under a background job of a shell it would inherit that SIGINT is ignored.
    """
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def write_csv(path: Path, rows: list[tuple[object, ...]], header: tuple[str, ...] = ("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def make_checkpoint(folder: Path) -> Path:
    """Save a DistilBERT of two layers, 32 wide, with random weights and a tokenizer that knows `WORDS`."""
    from transformers import DistilBertConfig, DistilBertModel, set_seed

    set_seed(0)
    config = DistilBertConfig(
        vocab_size=5 + len(WORDS), dim=32, hidden_dim=64, n_layers=2, n_heads=2, max_position_embeddings=64
    )
    DistilBertModel(config).save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def make_decoder(folder: Path, kind: str, *, before: str = "", pad: str | None = None, **values: object) -> Path:
    """Save a decoder of two layers, 32 wide, and a tokenizer that knows `WORDS`.

    Args:
        folder: where to.
        kind: its `model_type`.
        before: a token to put before each text, none if empty; it may be `<begin>`.
        pad: the tokenizer's padding token; it may be `<pad>`.
        values: what else its configuration says, which by default names no padding, and `<end>` as the end.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast, set_seed

    vocabulary = {token: i for i, token in enumerate(["<end>", "<pad>", "<begin>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if before:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{before} $A", special_tokens=[(before, vocabulary[before])]
        )
    tokens = {"eos_token": "<end>", "unk_token": "<unk>", "pad_token": pad}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **tokens).save_pretrained(folder)
    set_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
            "num_key_value_heads": 1, "max_position_embeddings": 64, "head_dim": 16}  # fmt: skip
    ends = {"vocab_size": len(vocabulary), "bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
    AutoModel.from_config(AutoConfig.for_model(kind, **size | ends | values)).save_pretrained(folder)
    return folder


def make_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",  # noqa: S106
        pad_token="[PAD]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
        mask_token="[MASK]",  # noqa: S106
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)
