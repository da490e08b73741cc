"""The residual stream as a sum of what components write, and each one's effect on the logits."""
