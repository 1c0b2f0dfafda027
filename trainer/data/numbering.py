"""Labels of a dataset, numbered as a classifier that is there already numbers its own."""

from __future__ import annotations

from dataclasses import replace

from trainer.config import TaskName
from trainer.data.load import Examples, Splits, check_label_names
from trainer.errors import UserError


def number_labels(splits: Splits, names: tuple[str, ...], task: TaskName) -> Splits:
    """Return the data with labels numbered by `names`, a classifier's own in the order of its logits.

    Raises:
        UserError: the data have a label that it does not have, or lack one that it has.
    """
    check_label_names(names)
    by_name = {name: i for i, name in enumerate(names)}
    by_number = {str(i): i for i in range(len(names))}
    # Numbers that are names themselves, as after `--label-names 1 0`, are no places among the names.
    is_numbered = not by_name.keys() >= {*splits.label_names} and by_number.keys() >= {*splits.label_names}
    places = by_number if is_numbered else by_name
    if unknown := [name for name in splits.label_names if name not in places]:
        raise UserError(
            f"the dataset has the label `{unknown[0]}`, and the classifier's labels are {', '.join(names)}",
            "use the same names; `--label-names` gives those of the classifier, in its order",
        )
    unseen = [names[i] for name, i in places.items() if name not in splits.label_names]
    if unseen and task == "single-label":  # of several labels, some may be rare
        raise UserError(f"the dataset has no text with the label `{unseen[0]}`", "add texts with every label")
    order = [places[name] for name in splits.label_names]

    def renumbered(part: Examples) -> Examples:
        return Examples(
            part.texts,
            [order[i] if isinstance(i, int) else tuple(sorted(order[number] for number in i)) for i in part.labels],
        )

    return replace(
        splits,
        train=renumbered(splits.train),
        evaluation=renumbered(splits.evaluation),
        calibration=splits.calibration and renumbered(splits.calibration),
        left_over=splits.left_over and renumbered(splits.left_over),
        label_names=names,
    )
