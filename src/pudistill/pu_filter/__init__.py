"""The tiered positive-unlabeled filter (Algorithm 1, lines 1-10)."""
