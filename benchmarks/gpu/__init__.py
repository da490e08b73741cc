"""``make gpu``: what can be asked of a GPU, asked in one command that stops at the first failure."""
