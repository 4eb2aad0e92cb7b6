"""Runs stages: Beam pipelines whose results are kept."""
