"""Runs: settings, what a command computes, the run folder and the report."""
