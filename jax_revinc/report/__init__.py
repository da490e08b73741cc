"""The HTML pages of runs and populations, and the figures on them."""
