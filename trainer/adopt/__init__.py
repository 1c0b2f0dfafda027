"""A run made of an adapter, or of a merged checkpoint, that was trained elsewhere: ``python -m trainer.adopt``."""
