"""Labels for other tools: a module for each, all listed in `registry`."""
