"""The attention kernels of accelerators, and the selection of one of them."""
