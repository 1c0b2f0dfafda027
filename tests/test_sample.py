"""The built-in checkpoint is the one its record and its card describe, and its recipe makes such a checkpoint."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from trainer.data import load_splits
from trainer.data.sources import SAMPLE_MODEL
from trainer.model.load import load_tokenizer
from trainer.pretrain.config import PretrainRecord
from trainer.pretrain.output import OutputDir
from trainer.records import file_sha256, read_record

CARD = SAMPLE_MODEL.parent / "README.md"
LARGEST_BYTES = 16_000_000


@pytest.fixture(scope="module")
def record() -> PretrainRecord:
    return read_record(OutputDir(SAMPLE_MODEL).record, PretrainRecord)


def test_the_weights_are_those_of_the_record(record: PretrainRecord) -> None:
    assert file_sha256(SAMPLE_MODEL / "model.safetensors") == record.weights_sha256
    assert record.weights_sha256 in CARD.read_text(encoding="utf-8")


def test_it_is_small_and_was_made_from_no_other_model(record: PretrainRecord) -> None:
    assert sum(path.stat().st_size for path in SAMPLE_MODEL.iterdir()) <= LARGEST_BYTES
    assert (record.base, record.teacher) == (None, None)


def test_plain_transformers_loads_all_of_it(record: PretrainRecord) -> None:
    encoder, loading = transformers.AutoModel.from_pretrained(SAMPLE_MODEL, output_loading_info=True)
    assert not loading["missing_keys"]
    assert encoder.num_parameters() == record.parameters
    model = transformers.AutoModelForMaskedLM.from_pretrained(SAMPLE_MODEL, dtype=torch.float32).eval()
    tokenizer = load_tokenizer(SAMPLE_MODEL)
    ids = tokenizer(f"it is one of the best {tokenizer.mask_token} i have ever seen .", return_tensors="pt").input_ids
    with torch.no_grad():
        guesses = model(input_ids=ids).logits[0, ids[0] == tokenizer.mask_token_id].topk(10).indices[0]
    assert {"movies", "films"} <= set(tokenizer.convert_ids_to_tokens(guesses)), "it knows what these texts are about"


@pytest.mark.slow
def test_the_recipe_of_the_card_makes_such_a_checkpoint(record: PretrainRecord, tmp_path: Path) -> None:
    """On a few texts of the project's own: the same command, the same architecture, the same tensors."""
    (recipe,) = re.findall(r"python -m (trainer\.pretrain .*?)\n```", CARD.read_text(encoding="utf-8"), re.DOTALL)
    command = shlex.split(recipe.replace("\\\n", " "))
    places = slice(command.index("--text") + 1, command.index("--vocabulary"))
    assert command[places] == [str(path) for path in record.config.text]
    texts = load_splits("sample", None).train.texts[:40]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    command[places] = [str(tmp_path / "few.jsonl")]
    command[command.index("--output-dir") + 1] = str(tmp_path / "model")
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    again = read_record(OutputDir(tmp_path / "model").record, PretrainRecord)
    for field in ("vocabulary", "max_length", "batch_tokens", "epochs", "summary_weight", "mask_ratio", "seed"):
        assert getattr(again.config, field) == getattr(record.config, field), field
    assert again.learning_rate == record.learning_rate
    assert "word vectors: factorising co-occurrence counts" in done.stderr
    made, shipped = (load_file(folder / "model.safetensors") for folder in (tmp_path / "model", SAMPLE_MODEL))
    words = "distilbert.embeddings.word_embeddings.weight"
    assert made.keys() == shipped.keys()
    assert {name: made[name].dtype for name in made} == {name: shipped[name].dtype for name in shipped}
    assert all(made[name].shape == shipped[name].shape for name in made if name not in (words, "vocab_projector.bias"))
    assert made[words].shape[1] == shipped[words].shape[1]
