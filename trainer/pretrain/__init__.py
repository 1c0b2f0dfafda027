"""Masked-language-model pretraining on plain text: ``python -m trainer.pretrain``."""
