"""Verify labels: which samples next, a local page that asks for them, and the decisions."""
