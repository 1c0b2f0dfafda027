"""Loaded classifiers that answer texts: the contract, and an engine a file."""
