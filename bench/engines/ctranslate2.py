"""CTranslate2 in int8, as its documentation says: it converts an encoder, and whoever asks it adds the head.

The texts and the tokenizer are ours, so that what is compared is the runtime and its int8.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.engines.peers import own_best
from exporter.bundle.artifact import MERGED, open_artifact
from exporter.engines.engine import ModelEngine, load_encoder
from exporter.engines.spec import EngineSpec
from trainer.errors import UserError
from trainer.model.untrusted import check_checkpoint
from trainer.progress import quiet_libraries
from trainer.tasks import FloatArray
from trainer.text.encoding import Encoded, Encoder

if TYPE_CHECKING:
    from trainer.run import RunDir

PRODUCTS = ("pre_classifier", "classifier")
"""Of the heads that are known here, in their order, with a ReLU between the two where a checkpoint has both."""
HEAD = "head.npz"


class CTranslate2Model:
    """An encoder with the head of a classifier.

    Args:
        runtime: the converted encoder.
        head: weights and bias of each product of the head.
        encoder: turns texts into tokens.
    """

    def __init__(self, runtime: Any, head: Sequence[tuple[FloatArray, FloatArray]], encoder: Encoder) -> None:
        self._runtime, self._head, self.encoder = runtime, head, encoder

    def run(self, batch: Sequence[Encoded], length: int | None = None) -> FloatArray:
        """Return the logits of one batch, [len(batch), classes], padded to the longest text or to `length` tokens."""
        from ctranslate2 import StorageView

        padded = self.encoder.pad(batch, length)
        ids = StorageView.from_array(padded["input_ids"].astype(np.int32))
        lengths = StorageView.from_array(np.array([*map(len, batch)], dtype=np.int32))
        types = padded["token_type_ids"].tolist() if self.encoder.pairs else None
        found = self._runtime.forward_batch(ids, lengths, types)
        pooled = found.pooler_output  # None where the checkpoint has no pooler
        values = np.array(found.last_hidden_state)[:, 0] if pooled is None else np.array(pooled)
        for number, (weights, bias) in enumerate(self._head):
            values = (np.maximum(values, 0) if number else values) @ weights.T + bias
        return values.astype(np.float32)


def convert(run: RunDir, folder: Path) -> None:
    """Convert the encoder of the merged checkpoint, quantize it, and keep the head beside it.

    Raises:
        UserError: the head is another one.
        ValueError: CTranslate2 has no such encoder.
    """
    from ctranslate2.converters import TransformersConverter
    from safetensors.numpy import load_file

    merged = run.export / MERGED
    check_checkpoint(merged)
    weights = load_file(merged / "model.safetensors")
    if f"{PRODUCTS[-1]}.weight" not in weights:
        raise UserError("the head of this architecture is not known here", "leave it out of `--engines`")
    quiet_libraries()
    TransformersConverter(str(merged)).convert(str(folder), quantization="int8", force=True)
    names = (f"{product}.{part}" for product in PRODUCTS for part in ("weight", "bias"))
    np.savez(folder / HEAD, **{name: weights[name] for name in names if name in weights})
    shutil.copy(merged / "tokenizer.json", folder)


def load(run: RunDir, threads: int, prepared: Path) -> ModelEngine[CTranslate2Model]:
    """Load what `convert` left."""
    import ctranslate2

    arrays = np.load(prepared / HEAD, allow_pickle=False)
    products = (name for name in PRODUCTS if f"{name}.weight" in arrays)
    head = [(arrays[f"{name}.weight"], arrays[f"{name}.bias"]) for name in products]
    encoder = load_encoder(prepared, open_artifact(run.export / MERGED))

    def split(streams: int) -> list[CTranslate2Model]:
        opened = ctranslate2.Encoder(str(prepared), inter_threads=streams, intra_threads=max(1, threads // streams))
        return [CTranslate2Model(opened, head, encoder)] * streams  # its calls run at a time, on threads of its own

    engine = ModelEngine(split(1)[0], split=split)
    engine.batchings = own_best(threads)
    return engine


ENGINES = (
    EngineSpec(
        name="ctranslate2-int8",
        load=load,
        precision="int8",
        artifact=MERGED,
        imports=("torch", "transformers", "ctranslate2"),
        packages=("ctranslate2",),
        is_peer=True,
        prepare=convert,
    ),
)
