"""The chain of proof: every step of an export, compared with the step before and with what was trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.engines.engine import Engine
from exporter.proof.verify import SAME_NUMBERS, Answers, Run, ask, check, check_labels, choose_examples, compare, plan
from exporter.proof.worker import Worker, Workers
from exporter.records import Comparison, Tolerance
from trainer.data import Examples
from trainer.tasks import Task
from trainer.text.encoding import Encoder


class Chain:
    """The steps of an export, each loaded from disk in a process of its own.

    Args:
        encoder: how texts are encoded.
        evaluation: texts to compare on, up to `most` of them, of all lengths.
        label_names: in the order of the logits.
        task: what the logits mean.
        most: the maximum number of texts to compare on.
        workers: starts the process of each step.
    """

    def __init__(
        self,
        encoder: Encoder,
        evaluation: Examples,
        label_names: tuple[str, ...],
        task: Task,
        *,
        most: int,
        workers: Workers,
    ) -> None:
        chosen = choose_examples(evaluation, [len(e) for e in encoder.encode(evaluation.texts)], most)
        self._plan, self._label_names = plan(encoder, chosen.texts), label_names
        self._task, self._truth = task, task.truth(chosen.labels)
        self._answers: dict[str, Answers] = {}
        self._workers = workers
        self.comparisons: list[Comparison] = []

    def begin(self, name: str, load: Callable[[], Engine]) -> None:
        """Add the first step, with which all others are compared."""
        with self._workers.opened(name, load) as worker:
            self.add(name, worker.run)

    @contextmanager
    def proved(
        self,
        folder: Path,
        load: Callable[[], Engine],
        *,
        after: str,
        tolerance: Tolerance = SAME_NUMBERS,
        most_batches: int | None = None,
    ) -> Iterator[Worker]:
        """Add the step in `folder`, called like it, and keep its process for the length of the `with`.

        Args:
            folder: the step's.
            load: loads it.
            after: the step it was made from.
            tolerance: how far it may be from that, and from the first.
            most_batches: of the plan, evenly spread, that it is asked at most; all of them where None.

        Raises:
            VerificationError: it is not the same classifier; see `add`.
        """
        with self._workers.opened(folder.name, load) as worker:
            check_labels(folder, self._label_names)
            self.add(folder.name, worker.run, after=after, tolerance=tolerance, most_batches=most_batches)
            yield worker

    def add(
        self,
        name: str,
        run: Run,
        *,
        after: str | None = None,
        tolerance: Tolerance = SAME_NUMBERS,
        most_batches: int | None = None,
    ) -> None:
        """Add a step.

        Args:
            name: what to call it.
            run: answers for it.
            after: the step it was made from; None for the first.
            tolerance: how far it may be from that, and from the first.
            most_batches: see `proved`; nothing can be compared with a step that was asked a part of the plan.

        Raises:
            VerificationError: it differs by more.
        """
        every = 1 if most_batches is None else -(-len(self._plan) // most_batches)
        answers = ask(name, run, self._plan[::every], len(self._label_names))
        comparisons = []
        for reference in dict.fromkeys([after, *list(self._answers)[:1]]) if after else ():
            before, names = self._answers[reference].of_every(every, self._plan), (name, reference)
            comparison = compare(before, answers, self._truth, self._task, tolerance, names=names)
            check(comparison)
            comparisons.append(comparison)
        self.comparisons += comparisons
        if every == 1:
            self._answers[name] = answers

    def link(self, name: str) -> Comparison:
        """Return the comparison of a step with the first of all."""
        first = next(iter(self._answers))
        return next(c for c in self.comparisons if (c.candidate, c.reference) == (name, first))
