"""The HTML page, one file per section."""
