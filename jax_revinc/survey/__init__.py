"""Tables of what a population's models learned, and how often."""
