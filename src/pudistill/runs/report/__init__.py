"""The report: one HTML file with the figures of a run."""
