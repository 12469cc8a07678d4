"""Labels: checks, pseudo-labels, corruption, model selection and the table of corrected labels."""
