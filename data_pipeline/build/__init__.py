"""Builds chains from single instructions, with a language model or by computing."""
