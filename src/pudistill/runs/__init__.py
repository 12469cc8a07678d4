"""Runs: the settings of a command, the run folder and what is written into it."""
