"""The HTML page that compares two runs of one task."""
