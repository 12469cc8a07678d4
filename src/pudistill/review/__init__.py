"""Verify labels: which samples next, a page that asks for them, the decisions, the update."""
