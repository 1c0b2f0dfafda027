"""Texts that a linear classifier is sure of never reach the model: a cascade, proved as a whole."""
