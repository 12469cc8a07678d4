"""The report: one HTML file with the results and figures of a run."""
