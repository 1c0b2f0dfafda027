"""Whatever peft can merge comes out answering as it was saved; the weights in its file say what it is."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import WORDS, make_decoder, make_texts, write_csv
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from exporter.convert.merge import merge
from exporter.proof.reference import load_checkpoint
from trainer.adopt.adopt import adopt
from trainer.adopt.config import AdoptConfig
from trainer.data.sources import locate_base
from trainer.errors import UserError
from trainer.model.adapters import fit_vocabulary
from trainer.model.load import load_classifier
from trainer.run import RunDir

HEAD = ["pre_classifier", "classifier"]
LAYERS = ["q_lin", "v_lin"]
NAMES = ("music", "sport")
TEXTS = ["soup", "the <0> team saw <2> a race", " ".join(WORDS)]

Answers = npt.NDArray[np.float32]


def shake(model: torch.nn.Module) -> None:
    """Change all that is trained, as training does."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.2 * torch.randn(weight.shape, generator=generator)


def answers(model: torch.nn.Module, folder: Path) -> Answers:
    """Return the logits of `TEXTS`, one by one."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [torch.tensor([tokenizer(text)["input_ids"][:20]]) for text in TEXTS]
    with torch.no_grad():
        return np.concatenate([model.eval()(input_ids=one).logits.numpy() for one in ids])


def save(
    base: Path, folder: Path, config: peft.PeftConfig, *, tokens: int = 0, whole: bool | str = "auto"
) -> tuple[PreTrainedModel, Answers]:
    """Save an adapter as its user does, trained with so many added tokens, and return it with its answers."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([f"<{i}>" for i in range(tokens)])
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    model.config.pad_token_id = tokenizer.pad_token_id
    if len(tokenizer) != model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft tells its users what it saves, and what it was not tried on
        adapted = peft.get_peft_model(model, config)
        shake(adapted)
        adapted.save_pretrained(folder, save_embedding_layers=whole)
    tokenizer.save_pretrained(folder)
    return adapted, answers(adapted, folder)


@pytest.fixture
def export(tmp_path: Path) -> Callable[[Path], Answers]:
    """Adopts and merges the adapter in a folder, and returns the answers of the checkpoint that comes out."""
    data = write_csv(tmp_path / "texts.csv", [row for row in make_texts(60, longest=5) if row[1] in NAMES])

    def run(folder: Path) -> Answers:
        run = RunDir(tmp_path / "run")
        record = adopt(AdoptConfig(folder, dataset=str(data), label_names=NAMES, max_length=20, run_dir=run.path))
        merge(run, record, tmp_path / "merged")
        return answers(load_checkpoint(tmp_path / "merged", NAMES), tmp_path / "merged")

    return run


def lora(**values: Any) -> peft.LoraConfig:
    return peft.LoraConfig(**{"task_type": "SEQ_CLS", "r": 4, "target_modules": LAYERS} | values)


KINDS: dict[str, peft.PeftConfig] = {
    "no task": lora(task_type=None, modules_to_save=HEAD),
    "another task": lora(task_type="FEATURE_EXTRACTION", modules_to_save=HEAD),
    "dora": lora(use_dora=True),
    "pissa": lora(init_lora_weights="pissa"),
    "bias": lora(bias="all"),
    "pattern": lora(rank_pattern={"q_lin": 2}, alpha_pattern={"v_lin": 3}, use_rslora=True),
    "embedding": lora(target_modules=[*LAYERS, "word_embeddings"]),
    "rows": lora(trainable_token_indices={"word_embeddings": [4, 6]}),
    "adalora": peft.AdaLoraConfig(task_type="SEQ_CLS", init_r=6, target_r=4, total_step=9, target_modules=LAYERS),
    "ia3": peft.IA3Config(task_type="SEQ_CLS", target_modules=["k_lin", "lin2"], feedforward_modules=["lin2"]),
    "loha": peft.LoHaConfig(task_type="SEQ_CLS", r=4, target_modules=LAYERS),
    "lokr": peft.LoKrConfig(task_type="SEQ_CLS", r=4, target_modules=LAYERS),
    "vera": peft.VeraConfig(task_type="SEQ_CLS", r=4, target_modules=LAYERS),
    "norms": peft.LNTuningConfig(task_type="SEQ_CLS", target_modules=["sa_layer_norm"]),
    "biases alone": peft.BeftConfig(task_type="SEQ_CLS", target_modules=LAYERS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_peft_can_merge_answers_as_it_was_saved(
    checkpoint: Path, tmp_path: Path, export: Callable[[Path], Answers], kind: str
) -> None:
    _, expected = save(checkpoint, tmp_path / "adapter", KINDS[kind])
    np.testing.assert_allclose(export(tmp_path / "adapter"), expected, atol=1e-4)


def test_an_adapter_whose_ranks_were_cut_in_training_is_read_as_it_came_out(
    checkpoint: Path, tmp_path: Path, export: Callable[[Path], Answers]
) -> None:
    config = peft.AdaLoraConfig(
        task_type="SEQ_CLS", init_r=6, target_r=2, total_step=9, tinit=1, tfinal=1, deltaT=1, target_modules=LAYERS
    )
    adapted, _ = save(checkpoint, tmp_path / "adapter", config)
    adapted.train()
    for step in range(9):
        adapted(input_ids=torch.tensor([[2, 7, 3]]), labels=torch.tensor([1])).loss.backward()
        adapted.base_model.update_and_allocate(step)
    adapted.save_pretrained(tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["rank_pattern"]
    expected = answers(adapted, tmp_path / "adapter")
    np.testing.assert_allclose(export(tmp_path / "adapter"), expected, atol=1e-4)


NEW_TOKENS: dict[str, tuple[peft.PeftConfig, int, bool | str]] = {
    "saved whole": (lora(modules_to_save=["word_embeddings", *HEAD]), 3, False),
    "saved since it grew": (lora(), 3, "auto"),
    "under an adapter": (lora(target_modules=[*LAYERS, "word_embeddings"], use_dora=True), 3, "auto"),
    "their rows alone": (lora(trainable_token_indices={"word_embeddings": [4, 36, 35, 37]}), 3, False),
    "their rows and the table": (lora(trainable_token_indices=[4, 35]), 3, "auto"),
}


@pytest.mark.parametrize("kind", NEW_TOKENS)
def test_a_vocabulary_that_changed_comes_with_the_adapter(
    checkpoint: Path, tmp_path: Path, export: Callable[[Path], Answers], kind: str
) -> None:
    config, tokens, whole = NEW_TOKENS[kind]
    _, expected = save(checkpoint, tmp_path / "adapter", config, tokens=tokens, whole=whole)
    np.testing.assert_allclose(export(tmp_path / "adapter"), expected, atol=1e-4)


def test_a_padding_token_that_was_added_to_a_decoder_comes_with_it(
    tmp_path: Path, export: Callable[[Path], Answers]
) -> None:
    base = make_decoder(tmp_path / "base", "llama", pad="<pad>")
    config = lora(target_modules=["q_proj", "embed_tokens"])
    _, expected = save(base, tmp_path / "adapter", config, tokens=1)
    np.testing.assert_allclose(export(tmp_path / "adapter"), expected, atol=1e-4)


def test_rows_that_no_token_needs_can_be_cut_off(
    checkpoint: Path, tmp_path: Path, export: Callable[[Path], Answers]
) -> None:
    base = Path(shutil.copytree(checkpoint, tmp_path / "base"))
    larger = AutoModel.from_pretrained(base)
    larger.resize_token_embeddings(larger.config.vocab_size + 8, mean_resizing=False)
    larger.save_pretrained(base)
    _, expected = save(base, tmp_path / "adapter", lora())
    np.testing.assert_allclose(export(tmp_path / "adapter"), expected, atol=1e-4)


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def drop(folder: Path, ending: str) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name: weight for name, weight in load_file(path).items() if not name.endswith(ending)}, path)


REFUSED: dict[str, tuple[peft.PeftConfig, int, Callable[[Path], Any], str]] = {
    "new tokens and no rows": (
        lora(), 3, lambda folder: drop(folder, "word_embeddings.weight"), "the token `<2>` with the number 37"
    ),
    "a new token whose row is not trained": (
        lora(trainable_token_indices=[4, 35, 36]), 3, lambda folder: drop(folder, "base_layer.weight"),
        "the token `<2>` with the number 37"
    ),
    "new rows that only an adapter knows": (
        lora(target_modules=["word_embeddings"]), 3, lambda folder: drop(folder, "base_layer.weight"), "`<2>`"
    ),
    "layers that are not merged": (
        peft.LilyConfig(task_type="SEQ_CLS", target_modules=LAYERS, r=4), 0, lambda _: None,
        "adapters of the type `LILY` cannot be merged",
    ),
    "no head": (lora(task_type=None), 0, lambda _: None, "nor its base has `classifier."),
    "a random base": (
        lora(), 0, lambda folder: change_config(folder, init_lora_weights="pissa_niter_4"), "changed at random"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_become_one_classifier_is_refused_by_name(
    checkpoint: Path, tmp_path: Path, export: Callable[[Path], Answers], kind: str
) -> None:
    config, tokens, change, message = REFUSED[kind]
    save(checkpoint, tmp_path / "adapter", config, tokens=tokens)
    change(tmp_path / "adapter")
    with pytest.raises(UserError, match=re.escape(message)):
        export(tmp_path / "adapter")


def test_rows_that_are_not_in_the_file_are_not_made(checkpoint: Path, tmp_path: Path) -> None:
    """A shape may claim a million million rows of nothing, and a list as many numbers as it likes."""
    name = "base_model.model.distilbert.embeddings.word_embeddings"
    weights = {f"{name}.weight": torch.empty(10**12, 0)}
    weights[f"{name}.token_adapter.trainable_tokens_delta"] = torch.empty(2, 32)
    save_file(weights, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"trainable_token_indices": list(range(10**5))}))
    model, _ = load_classifier(locate_base(str(checkpoint)), NAMES)
    fit_vocabulary(model, tmp_path)
    assert model.get_input_embeddings().num_embeddings == 35 + 2
