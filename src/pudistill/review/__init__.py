"""Verified samples one after the other: which to verify next, and what is promised meanwhile."""
