"""Scores of answers: ROUGE, exact match, error propagation, with bootstrap intervals."""
