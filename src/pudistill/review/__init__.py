"""Verify labels: which samples next, a page that asks for them, and what is promised meanwhile."""
