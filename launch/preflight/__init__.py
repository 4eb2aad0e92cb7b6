"""Compiles a run for a TPU that is not there: does it fit, and how fast can it be?"""
