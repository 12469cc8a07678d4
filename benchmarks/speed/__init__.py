"""Speed of every part beside its goal."""
