"""What was measured, for people: console, Markdown, CSV and a page."""
