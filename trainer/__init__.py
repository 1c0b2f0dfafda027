"""Fine-tune a text classifier with LoRA: ``python -m trainer``."""
