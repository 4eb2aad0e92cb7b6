"""Imports the official release of the paper."""
