"""Texts: which characters they have, how they become tokens, and where they are cut."""
