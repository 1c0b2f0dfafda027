"""Compare accuracy and latency across runtimes: ``python -m bench``."""
