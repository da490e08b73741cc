"""Hooks: functions that read and edit activations, by name."""
