"""Chains of instructions, and the dataset folders that hold them."""
