"""Adapter and base to one checkpoint, to ONNX, to the graph that is shipped."""
