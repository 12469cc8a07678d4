"""Measurements of pudistill: speed, memory, robustness, and a comparison of bits."""
