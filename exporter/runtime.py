"""The torch-free classifier: text in, label out, with onnxruntime, tokenizers and numpy alone.

classifier = Classifier.load("runs/default/export/onnx-int8")
classifier.predict(["An unforgettable film."])
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from exporter.bundle.artifact import Artifact, EngineName, made_for
from exporter.cascade.engine import CascadeEngine
from exporter.cascade.load import load_cascade
from exporter.cascade.stage import Stage
from exporter.checksums import manifest_sha256
from exporter.engines import openvino
from exporter.engines.cores import usable_cores
from exporter.engines.engine import Batching, Model, ModelEngine
from exporter.engines.onnxruntime import load_bundle
from exporter.engines.plan import fitting_plan
from exporter.engines.spec import Device, is_installed
from trainer.errors import UserError
from trainer.tasks import FloatArray
from trainer.text.encoding import Encoder
from trainer.text.texts import Text, is_valid, parts_of

WINDOW_TEXTS = 4096
WINDOW_CHARACTERS = 2**20
"""What `stream` holds at a time, but for the last text of a window."""


@dataclass(frozen=True)
class Prediction:
    """The answer to one text, or to one pair of texts."""

    label: str
    """The most probable label. A classifier of several labels a text may give others with it, or not even this one."""
    probabilities: dict[str, float]
    truncated: bool
    """Whether the text, or the pair, was longer than the classifier reads."""
    labels: tuple[str, ...]
    """All labels that the text has, the most probable first: one, or any number if a text may have several."""
    stage: Stage = "model"
    """What answered: `lexical` is the first stage of a cascade, which reads a text before it is cut, and `both` the
    sum of its logits and the model's."""


@dataclass(frozen=True)
class Source:
    """Where a classifier comes from and how it was loaded; see `Classifier.load`."""

    folder: Path
    device: Device
    threads: int | None
    golden: bool
    require_sha256: str | None
    engine: Literal[EngineName, "auto"]
    cascade: bool

    def settled(self) -> Source:
        """Return it with the engine that `auto` means here and now, which other processes then use as well."""
        if self.engine != "auto":
            return self
        if self.device != "cpu":
            return replace(self, engine="onnxruntime")
        plan = fitting_plan(self.folder, self.threads or usable_cores())
        best = plan.way.engine if plan else made_for(self.folder)
        return replace(self, engine=best if is_installed(best) else "onnxruntime")

    def load(self) -> Loaded:
        """Check the files and load them."""
        threads = self.threads or usable_cores()
        load = openvino.load_bundle if self.engine == "openvino" else load_bundle
        artifact, engine = load(
            self.folder,
            device=self.device,
            threads=threads,
            golden=self.golden,
            require_sha256=self.require_sha256,
        )
        if not self.cascade:
            return Loaded(artifact, engine, None)
        return Loaded(artifact, engine, load_cascade(self.folder, artifact, engine, golden=self.golden))


@dataclass(frozen=True)
class Loaded:
    """What answers in one process."""

    artifact: Artifact
    engine: ModelEngine[Model]
    """The model alone."""
    cascade: CascadeEngine | None
    """None where the artifact has none, or it is not to be used."""


class Classifier:
    """An exported classifier, ready to answer. Make one with `Classifier.load`.

    It can be pickled and used after a fork: in each other process it loads itself again from its folder when it is
    first asked, with the same checks, and only if the folder still holds the same classifier.

    Args:
        source: where it comes from.
        loaded: answers for it in this process.
    """

    def __init__(self, source: Source, loaded: Loaded) -> None:
        self.artifact = loaded.artifact
        self._source = source
        # The threads of a session do not survive a fork, and without them it cannot even be freed: the engine of the
        # process that was forked is kept, and not used.
        self._loaded = {os.getpid(): loaded}

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: everything but the loaded model."""
        return {**self.__dict__, "_loaded": {}}

    def _here(self) -> Loaded:
        process = os.getpid()
        if process not in self._loaded:
            self._loaded[process] = self._source.load()
        return self._loaded[process]

    @property
    def engine(self) -> ModelEngine[Model]:
        """The model in this process, without a first stage; see `Classifier.load` for errors of loading it again."""
        return self._here().engine

    @property
    def cascade(self) -> CascadeEngine | None:
        """What asks a first stage before the model, None where there is none or it is not to be used; see `engine`."""
        return self._here().cascade

    @property
    def encoder(self) -> Encoder:
        """Its tokenizer and truncation rule."""
        return self.engine.model.encoder

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: Device = "cpu",
        threads: int | None = None,
        golden: bool = True,
        require_sha256: str | None = None,
        engine: Literal[EngineName, "auto"] = "auto",
        cascade: bool = True,
    ) -> Classifier:
        """Load an ONNX artifact after checking its files, and let it answer its golden texts.

        Args:
            folder: the artifact's folder.
            device: where to run. On `cuda`, the first batch of a size may be slow.
            threads: how many CPU threads one call of the model may use; all usable cores where None.
            golden: whether to refuse a classifier that answers differently here than where it was exported.
            require_sha256: the SHA-256 of its `SHA256SUMS`, to refuse every artifact but this one.
            engine: what runs the model; `auto` is the one of a plan that `python -m exporter.tune` made here, or else
                the one that the artifact was made for; onnxruntime where that is not installed.
            cascade: whether `predict` and `stream` ask the artifact's first stage before the model, where it has one.

        Raises:
            IntegrityError: a file was changed, the artifact is not the required one, or the golden answers come out
                differently.
            UserError: the folder is no ONNX artifact, or the device cannot be used.
        """
        source = Source(Path(folder).absolute(), device, threads, golden, require_sha256, engine, cascade).settled()
        loaded = source.load()
        return cls(replace(source, require_sha256=manifest_sha256(source.folder)), loaded)

    def predict(self, texts: Iterable[Text]) -> list[Prediction]:
        """Classify texts, as this machine does it fastest: see `python -m exporter.tune`.

        Args:
            texts: a list of str, or whatever else yields texts: a tuple, a generator, an array, a column of a table.
                For a classifier that reads pairs, each is a tuple of two str.

        Returns:
            One prediction a text, in their order.

        Raises:
            TypeError: `texts` is one text, or holds something else than texts.
            UserError: a text is not valid Unicode, or the classifier returned NaN or infinity.
        """
        listed = list(self._checked(texts))
        _check_unicode(listed, first=1)
        return [answer for _, answer in self.stream(listed)]

    def stream(self, texts: Iterable[Text]) -> Iterator[tuple[Text, Prediction]]:
        """Classify texts while they come, a window of them at a time, in memory that does not grow with their number.

        Yields:
            Each text and its prediction, in their order.

        Raises:
            TypeError: as `predict`, when the turn of the text comes.
            UserError: the same.
        """
        first = 1
        for window in windows(self._checked(texts)):
            yield from zip(window, self._answers(window, first), strict=True)
            first += len(window)

    def logits(self, texts: Sequence[Text], *, batch_tokens: int | None = None) -> FloatArray:
        """Return the model's logits of one or more texts, [len(texts), classes]; no first stage is asked.

        Args:
            texts: the texts.
            batch_tokens: the maximum number of tokens in a batch, padding included; None makes one batch of all.
        """
        return self.engine.logits(list(self._checked(texts)), Batching(tokens=batch_tokens))

    def _checked(self, texts: Iterable[Any]) -> Iterator[Text]:
        return (_as_pairs if self.artifact.pairs else _as_texts)(texts)

    def _answers(self, texts: Sequence[Text], first: int) -> list[Prediction]:
        """Classify texts; `first` is the number of the first one, for messages."""
        _check_unicode(texts, first)
        truncated, logits, stages = self._scored(texts)
        if len(bad := np.flatnonzero(~np.isfinite(logits).all(axis=-1))):
            raise UserError(
                f"the classifier returned NaN or infinity for text {first + int(bad[0])} of the input",
                "do not use this artifact; export it again",
            )
        task = self.artifact.meaning()
        given = task.label_sets(task.answers(logits))
        return [
            _prediction(self.artifact.label_names, row, labels, stage, truncated=is_cut)
            for is_cut, row, labels, stage in zip(truncated, task.probabilities(logits), given, stages, strict=True)
        ]

    def _scored(self, texts: Sequence[Text]) -> tuple[Sequence[bool], FloatArray, Sequence[Stage]]:
        """Return whether each text was cut, its logits, and what answered it."""
        here = self._here()
        if here.cascade:
            return here.cascade.answer_all(texts)
        encoded, logits = here.engine.answer(texts, here.engine.for_list(len(texts)))
        return [e.truncated for e in encoded], logits, ["model"] * len(texts)


def _prediction(
    names: Sequence[str], row: FloatArray, given: Sequence[int], stage: Stage, *, truncated: bool
) -> Prediction:
    """Return the answer to a text: `row` holds the probability of each label, and those in `given` are its own."""
    probabilities = dict(zip(names, map(float, row), strict=True))
    ranked = sorted(names, key=lambda name: -probabilities[name])
    own = {names[i] for i in given}
    return Prediction(ranked[0], probabilities, truncated, tuple(name for name in ranked if name in own), stage)


def _check_unicode(texts: Sequence[Text], first: int) -> None:
    for number, text in enumerate(texts, first):
        if not is_valid(text):
            raise UserError(f"text {number} of the input is not valid Unicode", "fix or remove it")


def windows(texts: Iterable[Text]) -> Iterator[list[Text]]:
    """Yield the texts in order, some at a time: as many as make good batches, fewer long ones."""
    window: list[Text] = []
    characters = 0
    for text in texts:
        window.append(text)
        characters += sum(map(len, parts_of(text)))
        if len(window) == WINDOW_TEXTS or characters >= WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


def _as_texts(texts: Iterable[Any]) -> Iterator[Text]:
    """Yield the texts, or raise a TypeError that says what to pass."""
    if (advice := _advice(texts)) is not None:
        raise TypeError(f"texts must be a list of str, not {type(texts).__name__}; {advice}")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            advice = ""
            if isinstance(text, tuple | list):
                advice = "; this classifier reads single texts"
            elif _is_missing(text):
                advice = MISSING
            raise TypeError(f"texts must be a list of str, and item {i} is of type {type(text).__name__}{advice}")
        yield text


def _as_pairs(pairs: Iterable[Any]) -> Iterator[Text]:
    """Yield the pairs of texts as tuples, or raise a TypeError that says what to pass."""
    wanted = "this classifier reads pairs: texts must be a list of tuples of two str"
    if (advice := _advice(pairs, "(first, second)", "zip(table['text'], table['text_pair'])")) is not None:
        raise TypeError(f"{wanted}, not {type(pairs).__name__}; {advice}")
    for i, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list):
            raise TypeError(f"{wanted}, and item {i} is of type {type(pair).__name__}")
        if not (len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            held = ", ".join(type(text).__name__ for text in pair[:3]) + ", …" * (len(pair) > 3)
            raise TypeError(f"{wanted}, and item {i} holds ({held})" + MISSING * any(map(_is_missing, pair)))
        yield (pair[0], pair[1])


MISSING = "; for a missing text pass `''`"


def _is_missing(text: object) -> bool:
    """Return whether tables hold this where there is no text."""
    return text is None or isinstance(text, float)


def _advice(texts: object, one: str = "text", columns: str = "table['text']") -> str | None:
    """Say what to pass instead of what holds no texts, or yields something else; None where it may hold some."""
    if isinstance(texts, bytes | bytearray):
        return f"decode it, and pass `[{one}]`"
    if isinstance(texts, Mapping) or hasattr(texts, "columns"):
        return f"pass {'one of its columns' if one == 'text' else 'two of its columns'}, such as `{columns}`"
    if isinstance(texts, set | frozenset):
        return "it has no order that answers could follow: pass `sorted(texts)`"
    if isinstance(texts, str) or not isinstance(texts, Iterable) or getattr(texts, "shape", None) == ():
        return f"for one {'text' if one == 'text' else 'pair'} pass `[{one}]`"
    return None
