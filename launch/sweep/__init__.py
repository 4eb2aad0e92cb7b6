"""Expands sweeps and runs their points."""
