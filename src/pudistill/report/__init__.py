"""What a run tells its reader: the table of labels, and an HTML page about it."""
