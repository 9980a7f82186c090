"""Whole jobs over a model: what the command line's larger commands do."""
