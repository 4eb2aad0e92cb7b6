"""Limits that command lines and configs share."""

LARGEST_INTEGER = 2**31 - 1  # what arrays and counters of 32 bits hold
