"""Verifiable chains: typed text operations, composed, with a computed ground truth for every step."""
