"""Checkpoints and adapters: checked, loaded, and asked what they have room for."""
