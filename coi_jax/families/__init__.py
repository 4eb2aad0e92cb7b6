"""The published model families: what each computes differently, and its sizes."""
