"""Attention kernels of accelerators, and which of them is used."""
