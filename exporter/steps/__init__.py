"""The steps of an export, in the order that `exporter.export` gives them."""
