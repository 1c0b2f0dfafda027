"""The HTML page, a section a file."""
