"""The ladder for GPUs: recipes for half precision, proved, judged and timed on the card."""
