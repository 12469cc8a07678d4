"""Utilities without knowledge of labels: files, arrays, progress, threads, clusters."""
