"""Throughput, side by side and interleaved."""
