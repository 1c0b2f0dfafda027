"""Labelled texts: where they come from, which columns hold them, and how they are split."""

from trainer.data.load import Columns, Examples, Splits, load_splits, read_examples, read_texts

__all__ = ["Columns", "Examples", "Splits", "load_splits", "read_examples", "read_texts"]
