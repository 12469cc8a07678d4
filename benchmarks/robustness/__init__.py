"""Accuracy at every noise level: pudistill beside other systems, and what each part adds."""
