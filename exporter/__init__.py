"""Merge, convert, quantize and verify a trained classifier: ``python -m exporter``."""
