"""Reports what is wrong with a dataset folder."""
