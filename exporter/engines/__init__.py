"""Loaded classifiers that answer texts, one file an engine."""
