"""Analyses of what a trained model learned, such as attention, circuits, ablation and patching."""
