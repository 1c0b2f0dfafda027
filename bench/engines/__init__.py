"""Engines that are measured and not shipped, and the table of all."""
