"""Readers: every supported format becomes one `TrustedDataset`."""
