"""Memory, time and processes on large data and over long runs."""
